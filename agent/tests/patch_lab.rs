//! Compares the patch scan with apt itself, on a small world of packages built here and on this machine.
//!
//! The lab makes three archives (release, security, backports) and a flat directory from packages of a
//! few hundred bytes, installs old versions of some into a root of its own with `dpkg --root`, lets
//! `apt-get update` fetch from `file:` addresses, and then asks both: `apt list --upgradable` and our scan. What counts as a
//! missing fix is written down per case. No network; takes a few seconds.
//!
//! Needs root (dpkg changes owners) and `dpkg`, `dpkg-deb`, `apt-get`, `apt` and `apt-ftparchive`. Where
//! they are missing each test says that it is skipped, and why.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lab is built outside #[test] functions, and a broken lab must fail"
)]

#[path = "patch_lab/lab.rs"]
mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use peil_agent::patch::report::{ErrorKind, Level, State};
use peil_agent::patch::{self, Report};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;

use lab::{CASES, Lab, Line, text, upgradable};

fn scan(lab: &Lab) -> Report {
    patch::scan(&lab.root(), WallClock::System.now())
}

fn pending(report: &Report) -> BTreeSet<Line> {
    let line =
        |p: &patch::report::Pending| (p.package.clone(), p.arch.clone(), p.installed.clone(), p.candidate.clone());
    report.pending.iter().map(line).collect()
}

fn findings(report: &Report) -> BTreeSet<String> {
    let line = |f: &patch::report::Finding| {
        let patch::report::Finding {
            package,
            arch,
            installed,
            security_version,
            candidate,
            state,
            source,
            source_version,
            ..
        } = f;
        format!("{package} {arch} {installed} {security_version} {candidate} {state:?} {source} {source_version}")
    };
    report.findings.iter().map(line).collect()
}

fn expected_findings() -> BTreeSet<String> {
    CASES
        .iter()
        .flat_map(|case| case.findings.iter().map(move |finding| format!("{} {finding}", case.package)))
        .collect()
}

fn kinds(report: &Report) -> Vec<ErrorKind> {
    report.errors.iter().map(|e| e.kind).collect()
}

#[test]
fn the_scan_sees_what_apt_sees_and_every_missing_fix() {
    let Some(lab) = Lab::build() else { return };
    for packing in ["Acquire::GzipIndexes \"false\";", "Acquire::GzipIndexes \"true\";"] {
        lab.update(packing);
        let report = scan(&lab);
        assert_eq!(report.errors, [], "{packing}");
        assert_eq!(report.level, Level::Known);
        assert_eq!(pending(&report), lab.upgradable(), "{packing}");
        assert_eq!(findings(&report), expected_findings(), "{packing}");
        assert_eq!(report.installed, CASES.iter().map(|c| c.installed.len()).sum::<usize>() - 1);
        let security: Vec<_> = report.archives.iter().filter(|a| a.security).map(|a| a.codename.as_deref()).collect();
        assert_eq!(security, [Some("bookworm-security")]);
        assert_eq!(report.reboot.required, None, "a root that is not running has no kernel to compare with");
    }
    // The cases were not all alike, or the comparison above would say little.
    let states: BTreeSet<State> = scan(&lab).findings.iter().map(|f| f.state).collect();
    assert_eq!(states.len(), 3);
    let upgradable = lab.upgradable();
    assert!(upgradable.iter().any(|l| l.0 == "held") && !upgradable.iter().any(|l| l.0 == "pinned"));
}

#[test]
fn preferences_choose_as_apt_chooses() {
    let Some(lab) = Lab::build() else { return };
    lab.update("");
    let mut outcomes = BTreeSet::new();
    for preferences in [
        "",
        "Package: *\nPin: release n=bookworm-backports\nPin-Priority: 600\n",
        "Package: *\nPin: release l=Debian-Security\nPin-Priority: 50\n",
        "Package: *\nPin: release a=oldstable-security, c=main\nPin-Priority: -1\n",
        "Package: *\nPin: release bookworm\nPin-Priority: 990\n",
        "Package: *\nPin: release 12*\nPin-Priority: 1001\n",
        "Package: *\nPin: origin \"\"\nPin-Priority: 90\n",
        "Package: *\nPin: origin deb.debian.org\nPin-Priority: 90\n",
        "Package: *\nPin: release a=now\nPin-Priority: 700\n",
        "Package: *\nPin: release *\nPin-Priority: 70\n",
        "Package: *\nPin: release o=Debian, b=i386\nPin-Priority: 20\n",
        "Package: foreign secfix\nPin: release n=bookworm\nPin-Priority: 700\n",
        "Package: foreign:i386\nPin: release n=bookworm\nPin-Priority: 700\n",
        "Package: foreign:any\nPin: version 1.0-1\nPin-Priority: 700\n",
        "Package: src:secfix-src\nPin: version 1.0-1\nPin-Priority: 700\n",
        "Package: src:sec*\nPin: version 1.0-1\nPin-Priority: 700\n",
        "Package: *e*\nPin: release l=/^debian-SEC/\nPin-Priority: -10\n",
        "Package: /^(held|ep.ch|every.+)$/\nPin: release l=Debian-Security\nPin-Priority: -10\n",
        "Package: newerhere\nPin: release n=bookworm\nPin-Priority: 1000\n",
        "Package: newerhere plain\nPin: version *\nPin-Priority: -1\n",
        "Package: plain\nPin: version 1.0-2\nPin-Priority: 99\n\nPackage: plain\nPin: version 1.0-2\nPin-Priority: 900\n",
        "# a comment\n\nExplanation: spaces\nPackage:   plain  \nPin:  version   1.0-1 \nPin-Priority:  1001\n",
        "Package: supersed\nPin: version /deb12u9$/\nPin-Priority: 800\n",
    ] {
        lab.put("root/etc/apt/preferences", preferences);
        let report = scan(&lab);
        assert_eq!(report.errors, [], "{preferences}");
        assert_eq!(pending(&report), lab.upgradable(), "{preferences}");
        // Whatever is chosen, the fixes that are missing stay the same.
        let missing = |report: &Report| report.findings.iter().map(|f| f.package.clone()).collect::<BTreeSet<_>>();
        assert_eq!(missing(&report).len(), expected_findings().len(), "{preferences}");
        outcomes.insert(pending(&report));
    }
    assert!(outcomes.len() >= 10, "the preferences made only {} different outcomes", outcomes.len());

    lab.put("root/etc/apt/preferences", "");
    lab.put("root/etc/apt/apt.conf.d/50default", "APT { Default-Release \"bookworm\"; };\n");
    assert_eq!(pending(&scan(&lab)), upgradable(&mut lab.apt("apt", "APT::Default-Release \"bookworm\";")));
}

#[test]
fn a_host_that_cannot_see_its_fixes_is_unknown() {
    let Some(lab) = Lab::build() else { return };
    let report = scan(&lab);
    assert_eq!(
        (report.level, kinds(&report)),
        (Level::Unknown, vec![ErrorKind::ListsMissing]),
        "before the first update"
    );

    lab.update("Acquire::GzipIndexes \"true\";");
    let key = patch::fingerprint(&lab.root());
    assert!(key.is_some());
    assert_eq!(patch::fingerprint(&lab.root()), key, "nothing changed");
    assert_eq!(scan(&lab).level, Level::Known);
    let in_eight_days = WallClock::System.now().plus(Millis(8 * 24 * 3_600_000));
    let report = patch::scan(&lab.root(), in_eight_days);
    assert_eq!((report.level, kinds(&report)), (Level::Unknown, vec![ErrorKind::ListsExpired]));
    assert_eq!(findings(&report), expected_findings(), "what is known to be missing is still told");

    let lists = lab.root().join("var/lib/apt/lists");
    let security = |suffix: &str| {
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let names = fs::read_dir(&lists).unwrap().map(|entry| name(entry.unwrap()));
        let found = names.filter(|n| n.contains("bookworm-security") && n.contains(suffix));
        found.map(|name| lists.join(name)).collect::<Vec<_>>()
    };
    for list in security("_Packages") {
        fs::remove_file(list).unwrap();
    }
    let report = scan(&lab);
    assert_eq!((report.level, kinds(&report)), (Level::Unknown, vec![ErrorKind::ListsMissing]));
    for head in security("Release") {
        fs::remove_file(head).unwrap();
    }
    let report = scan(&lab);
    assert_eq!((report.level, kinds(&report)), (Level::Unknown, vec![ErrorKind::SecurityUnknown]));
    assert_ne!(patch::fingerprint(&lab.root()), key, "lists are gone");
}

#[test]
fn this_machine_is_seen_as_apt_sees_it() {
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    if !lists.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("_Packages")) {
        println!("skipped: no apt lists on this machine");
        return;
    }
    let report = patch::scan(Path::new("/"), WallClock::System.now());
    assert_eq!(pending(&report), upgradable(&mut Command::new("apt")));
    assert!(report.installed > 0);
    assert!(!report.archives.is_empty());
}

fn agent(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_peil-agent")).args(["patch", "scan"]).args(args).output().unwrap()
}

#[test]
fn the_command_prints_the_promised_keys() {
    let root = tempfile::tempdir().unwrap();
    let put = |file: &str, text: &str| {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n");
    put(
        "usr/share/distro-info/debian.csv",
        "version,codename,series,created,release,eol\n12,Bookworm,bookworm,2021-08-14,2023-06-10,9999-07-11\n",
    );
    put(
        "var/lib/dpkg/status",
        "Package: demo\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nSource: src\n\n",
    );
    let list = "var/lib/apt/lists/h_dists_s-security_main_binary-amd64_Packages";
    put(list, "Package: demo\nVersion: 2\nArchitecture: all\nSource: src\n\n");
    put(
        "var/lib/apt/lists/h_dists_s-security_InRelease",
        "Label: Debian-Security\nSuite: s-security\nDate: Sat, 21 Nov 2020 00:53:02 UTC\n",
    );
    let root = root.path().to_str().unwrap();
    let output = agent(&["--root", root, "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "level": "known",
            "os": {"id": "debian", "version_id": "12", "codename": "bookworm",
                   "end_of_life": {"date": "9999-07-11", "phase": "standard", "dates": {"eol": "9999-07-11"}}},
            "archives": [{"origin": null, "label": "Debian-Security", "suite": "s-security", "codename": null,
                          "release_date": "2020-11-21T00:53:02Z", "valid_until": null, "security": true, "site": "h", "components": ["main"]}],
            "installed": 1,
            "pending": [{"package": "demo", "arch": "all", "installed": "1", "candidate": "2"}],
            "findings": [{"source": "src", "source_version": "2", "package": "demo", "arch": "all", "installed": "1", "security_version": "2",
                          "candidate": "2", "state": "installable", "advisory": null, "issued": null}],
            "reboot": {"required": null, "reasons": ["not the running system, so no kernel to compare with"]},
            "errors": []
        })
    );
    let human = text(&agent(&["--root", root]));
    assert!(
        human
            .starts_with("Security fixes missing: 1 (source packages: 1), updates pending: 1, packages installed: 1\n"),
        "{human}"
    );
    assert!(human.contains("debian 12 bookworm; maintained until 9999-07-11; reboot not known"), "{human}");
    assert!(human.contains("  demo:all 1 -> 2 (source src)\n"), "{human}");
}

#[test]
fn other_systems_are_unsupported_never_compliant() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc")).unwrap();
    for (os_release, id) in [("ID=fedora\nVERSION_ID=43\n", Some("fedora")), ("ID=alpine\n", Some("alpine"))] {
        fs::write(root.path().join("etc/os-release"), os_release).unwrap();
        let report = patch::scan(root.path(), UtcTime(0));
        assert_eq!((report.level, kinds(&report)), (Level::Unknown, vec![ErrorKind::Unsupported]));
        assert_eq!(report.os.id.as_deref(), id);
        assert_eq!(patch::fingerprint(root.path()), None);
    }
    fs::remove_dir_all(root.path().join("etc")).unwrap();
    let report = patch::scan(root.path(), UtcTime(0));
    assert_eq!((report.level, kinds(&report)), (Level::Unknown, vec![ErrorKind::Unsupported]));
    let gone = root.path().join("gone");
    let output = agent(&["--root", gone.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
}
