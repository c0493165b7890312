//! Compares the patch scan with apt itself, on a small world of packages built here and on this machine.
//!
//! The lab makes three archives (release, security, backports) and a flat directory from packages of a few hundred bytes,
//! installs old versions of some into a root of its own with `dpkg --root`, lets `apt-get update` fetch
//! from `file:` addresses, and then asks both: `apt list --upgradable` and our scan. What counts as a
//! missing fix is written down per case. No network; takes a few seconds.
//!
//! Needs root (dpkg changes owners) and `dpkg`, `dpkg-deb`, `apt-get`, `apt` and `apt-ftparchive`. Where
//! they are missing each test says that it is skipped, and why.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lab is built outside #[test] functions, and a broken lab must fail"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use peil_agent::patch::report::{ErrorKind, Level, State};
use peil_agent::patch::{self, Report};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;

/// One package of the lab; versions are `arch version [extra control lines]`, empty for none.
struct Case {
    package: &'static str,
    installed: &'static [&'static str],
    main: &'static [&'static str],
    security: &'static [&'static str],
    backports: &'static [&'static str],
    /// In a flat archive without release file.
    flat: &'static [&'static str],
    /// `arch installed security_version candidate state source source_version`.
    findings: &'static [&'static str],
}

const NONE: Case =
    Case { package: "", installed: &[], main: &[], security: &[], backports: &[], flat: &[], findings: &[] };

const CASES: &[Case] = &[
    Case { package: "plain", installed: &["amd64 1.0-1"], main: &["amd64 1.0-2"], ..NONE },
    Case {
        package: "secfix",
        installed: &["amd64 1.0-1|Source: secfix-src (0.9-1)"],
        main: &["amd64 1.0-1|Source: secfix-src (0.9-1)"],
        security: &["amd64 1.0-1+deb12u1|Source: secfix-src (0.9-1+deb12u1)"],
        findings: &["amd64 1.0-1 1.0-1+deb12u1 1.0-1+deb12u1 Installable secfix-src 0.9-1+deb12u1"],
        ..NONE
    },
    // The point release took over: apt no longer says "security", the fix is missing all the same.
    Case {
        package: "supersed",
        installed: &["amd64 1.0-1+deb12u6"],
        main: &["amd64 1.0-1+deb12u10"],
        security: &["amd64 1.0-1+deb12u9"],
        findings: &["amd64 1.0-1+deb12u6 1.0-1+deb12u9 1.0-1+deb12u10 Installable supersed 1.0-1+deb12u9"],
        ..NONE
    },
    Case {
        package: "held",
        installed: &["amd64 1.0-1"],
        security: &["amd64 1.0-1+deb12u1"],
        findings: &["amd64 1.0-1 1.0-1+deb12u1 1.0-1+deb12u1 Held held 1.0-1+deb12u1"],
        ..NONE
    },
    Case {
        package: "pinned",
        installed: &["amd64 1.0-1"],
        security: &["amd64 1.0-1+deb12u1"],
        findings: &["amd64 1.0-1 1.0-1+deb12u1 1.0-1 BlockedPin pinned 1.0-1+deb12u1"],
        ..NONE
    },
    // `apt-get upgrade` keeps this one back, because it needs a package that is not installed.
    Case {
        package: "newdep",
        installed: &["amd64 1.0-1"],
        security: &["amd64 1.0-1+deb12u1|Depends: newlib"],
        findings: &["amd64 1.0-1 1.0-1+deb12u1 1.0-1+deb12u1 Installable newdep 1.0-1+deb12u1"],
        ..NONE
    },
    Case { package: "newlib", security: &["amd64 1.0-1"], ..NONE },
    Case {
        package: "bpo",
        installed: &["amd64 1.0-1"],
        main: &["amd64 1.0-1"],
        backports: &["amd64 2.0-1~bpo12+1"],
        ..NONE
    },
    Case {
        package: "frombpo",
        installed: &["amd64 2.0-1~bpo12+1"],
        main: &["amd64 1.0-1"],
        security: &["amd64 1.0-1+deb12u1"],
        backports: &["amd64 2.0-1~bpo12+2"],
        ..NONE
    },
    Case {
        package: "foreign",
        installed: &["i386 1.0-1"],
        main: &["amd64 9.0-1", "i386 1.0-1"],
        security: &["i386 1.0-1+deb12u1"],
        findings: &["i386 1.0-1 1.0-1+deb12u1 1.0-1+deb12u1 Installable foreign 1.0-1+deb12u1"],
        ..NONE
    },
    Case {
        package: "everyarch",
        installed: &["all 1.0-1"],
        security: &["all 1.0-1+deb12u1"],
        findings: &["all 1.0-1 1.0-1+deb12u1 1.0-1+deb12u1 Installable everyarch 1.0-1+deb12u1"],
        ..NONE
    },
    // Was for all architectures, is now for one: still the same package.
    Case { package: "becamearch", installed: &["all 1.0-1"], main: &["amd64 1.0-2"], ..NONE },
    Case {
        package: "epoch",
        installed: &["amd64 5.0-1"],
        security: &["amd64 1:1.0-1"],
        findings: &["amd64 5.0-1 1:1.0-1 1:1.0-1 Installable epoch 1:1.0-1"],
        ..NONE
    },
    // Removed, settings kept: nothing to fix.
    Case { package: "rcstate", installed: &["amd64 1.0-1"], security: &["amd64 1.0-1+deb12u1"], ..NONE },
    // Built again on the host: apt lists the archive's build of the same version as an upgrade.
    Case { package: "rebuilt", installed: &["amd64 1.0-1|X-Built: here"], main: &["amd64 1.0-1"], ..NONE },
    // Installed twice, the fix is there for one architecture so far.
    Case {
        package: "twice",
        installed: &["amd64 1.0-1|Multi-Arch: same", "i386 1.0-1|Multi-Arch: same"],
        security: &["i386 1.0-1+deb12u1|Multi-Arch: same"],
        findings: &["i386 1.0-1 1.0-1+deb12u1 1.0-1+deb12u1 Installable twice 1.0-1+deb12u1"],
        ..NONE
    },
    // No metapackage: apt will never bring the next kernel, so apt does not list it. The fix is missing.
    Case { package: "linux-image-6.1.0-9-amd64", installed: &["amd64 6.1.27-1"], main: &["amd64 6.1.27-1"], ..NONE },
    Case {
        package: "linux-image-6.1.0-10-amd64",
        security: &["amd64 6.1.38-1|Source: linux-signed-amd64 (6.1.38+1)"],
        findings: &["amd64 6.1.27-1 6.1.38-1 6.1.38-1 Installable linux-signed-amd64 6.1.38+1"],
        ..NONE
    },
    Case { package: "linux-image-6.1.0-11-cloud-amd64", security: &["amd64 6.1.40-1"], ..NONE },
    Case { package: "thirdparty", installed: &["amd64 1.0-1"], flat: &["amd64 1.1-1"], ..NONE },
    Case { package: "uptodate", installed: &["amd64 1.0-1+deb12u1"], security: &["amd64 1.0-1+deb12u1"], ..NONE },
    Case { package: "newerhere", installed: &["amd64 3.0-1"], main: &["amd64 2.0-1"], ..NONE },
];

const PIN: &str = "Package: pinned\nPin: version 1.0-1\nPin-Priority: 1001\n";

/// A lab directory: `tree/`, `re_po/` (apt quotes the underscore) and `root/`.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// `None`, with a note, where the tools or rights are missing.
    fn build() -> Option<Self> {
        for tool in ["dpkg", "dpkg-deb", "apt-get", "apt", "apt-ftparchive"] {
            if Command::new(tool).arg("--version").output().is_err() {
                println!("skipped: no {tool} on this machine (Debian packages apt, dpkg, apt-utils)");
                return None;
            }
        }
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root, because dpkg --root changes owners");
            return None;
        }
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        lab.make_archives();
        lab.make_root();
        Some(lab)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn root(&self) -> PathBuf {
        self.at("root")
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Builds one package; `spec` is `arch version|more control lines`.
    fn deb(&self, pool: &str, package: &str, spec: &str) -> PathBuf {
        let (head, more) = spec.split_once('|').unwrap_or((spec, ""));
        let (arch, version) = head.split_once(' ').unwrap();
        let tree = format!("tree/{pool}/{package}-{arch}");
        let extra = if more.is_empty() { String::new() } else { format!("{more}\n") };
        let control = format!(
            "Package: {package}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: Lab <lab@example.org>\n{extra}Description: {package} of the lab\n"
        );
        self.put(&format!("{tree}/DEBIAN/control"), &control);
        if package == "rcstate" {
            self.put(&format!("{tree}/etc/rcstate.conf"), "kept = yes\n");
            self.put(&format!("{tree}/DEBIAN/conffiles"), "/etc/rcstate.conf\n");
        }
        let file = self.at(&format!("re_po/{pool}/{package}_{}_{arch}.deb", version.replace(':', "%3a")));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        run(Command::new("dpkg-deb").args(["-Znone", "-b"]).arg(self.at(&tree)).arg(&file));
        file
    }

    fn make_archives(&self) {
        type Pick = fn(&Case) -> &'static [&'static str];
        let suites: [(&str, Pick, &[&str]); 3] = [
            ("bookworm", |c| c.main, &["Label=Debian", "Suite=oldstable", "Version=12.15"]),
            (
                "bookworm-security",
                |c| c.security,
                &["Label=Debian-Security", "Suite=oldstable-security", "ValidTime=604800"],
            ),
            (
                "bookworm-backports",
                |c| c.backports,
                &[
                    "Label=Debian-Backports",
                    "Suite=oldstable-backports",
                    "NotAutomatic=yes",
                    "ButAutomaticUpgrades=yes",
                ],
            ),
        ];
        for (suite, pick, settings) in suites {
            let pool = format!("pool/{suite}");
            fs::create_dir_all(self.at("re_po").join(&pool)).unwrap();
            for case in CASES {
                for spec in pick(case) {
                    self.deb(&pool, case.package, spec);
                }
            }
            for arch in ["amd64", "i386"] {
                let index = run(Command::new("apt-ftparchive")
                    .args(["--arch", arch, "packages", &pool])
                    .current_dir(self.at("re_po")));
                self.put(&format!("re_po/dists/{suite}/main/binary-{arch}/Packages"), &text(&index));
            }
            let mut release = Command::new("apt-ftparchive");
            for setting in
                settings.iter().copied().chain(["Origin=Debian", "Architectures=amd64 i386", "Components=main"])
            {
                release.arg("-o").arg(format!("APT::FTPArchive::Release::{setting}"));
            }
            release.arg("-o").arg(format!("APT::FTPArchive::Release::Codename={suite}"));
            let head = run(release.arg("release").arg(format!("dists/{suite}")).current_dir(self.at("re_po")));
            self.put(&format!("re_po/dists/{suite}/Release"), &text(&head));
        }
        for spec in CASES.iter().flat_map(|case| case.flat.iter().map(move |spec| (case.package, spec))) {
            self.deb("flat", spec.0, spec.1);
        }
        let index = run(Command::new("apt-ftparchive").args(["packages", "."]).current_dir(self.at("re_po/flat")));
        self.put("re_po/flat/Packages", &text(&index));
    }

    fn make_root(&self) {
        for dir in [
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "etc/apt/preferences.d",
        ] {
            fs::create_dir_all(self.root().join(dir)).unwrap();
        }
        self.put("root/var/lib/dpkg/status", "");
        self.put("root/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n");
        self.put("root/etc/apt/preferences.d/lab", PIN);
        let sources: String = ["bookworm", "bookworm-security", "bookworm-backports"]
            .map(|suite| format!("deb [trusted=yes] file:{} {suite} main\n", self.at("re_po").display()))
            .concat()
            + &format!("deb [trusted=yes] file:{} ./\n", self.at("re_po/flat").display());
        self.put("root/etc/apt/sources.list", &sources);
        run(self.dpkg().args(["--add-architecture", "i386"]));
        let old = CASES.iter().flat_map(|case| case.installed.iter().map(|spec| self.deb("old", case.package, spec)));
        run(self.dpkg().args(["--force-depends", "-i"]).args(old.collect::<Vec<_>>()));
        run(self.dpkg().args(["--remove", "rcstate"]));
        let selections = self.at("selections");
        fs::write(&selections, "held hold\n").unwrap();
        run(self.dpkg().arg("--set-selections").stdin(fs::File::open(selections).unwrap()));
    }

    fn dpkg(&self) -> Command {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.root().display()))
            .args(["--force-architecture", "--force-script-chrootless"]);
        dpkg
    }

    /// apt on the lab's root. `more` are lines of configuration.
    fn apt(&self, tool: &str, more: &str) -> Command {
        let root = self.root().display().to_string();
        let config = format!(
            "Dir \"{root}\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\nDir::Bin::dpkg \"/usr/bin/dpkg\";\n\
             #clear APT::Architectures;\nAPT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; \"i386\"; }};\n\
             APT::Sandbox::User \"root\";\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n{more}\n"
        );
        let file = self.at("apt.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(tool);
        command.env("APT_CONFIG", file).env("LC_ALL", "C");
        command
    }

    fn update(&self, more: &str) {
        run(self.apt("apt-get", more).arg("update"));
    }

    fn upgradable(&self) -> BTreeSet<Line> {
        upgradable(&mut self.apt("apt", ""))
    }

    fn scan(&self) -> Report {
        patch::scan(&self.root(), WallClock::System.now())
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}{}", text(&output), String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Package, architecture, installed, candidate.
type Line = (String, String, String, String);

/// What `apt list --upgradable` prints, without rebuilds of the same version.
fn upgradable(apt: &mut Command) -> BTreeSet<Line> {
    let output = run(apt.args(["list", "--upgradable"]).env("LC_ALL", "C"));
    let line = |line: &str| {
        let (package, rest) = line.split_once('/')?;
        let mut words = rest.split(' ').skip(1);
        let (candidate, arch) = (words.next()?, words.next()?);
        let installed = line.split_once("[upgradable from: ")?.1.trim_end_matches(']');
        Some((package.to_owned(), arch.to_owned(), installed.to_owned(), candidate.to_owned()))
    };
    text(&output).lines().filter_map(line).filter(|(_, _, installed, candidate)| installed != candidate).collect()
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
        let report = lab.scan();
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
    let states: BTreeSet<State> = lab.scan().findings.iter().map(|f| f.state).collect();
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
        let report = lab.scan();
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
    assert_eq!(pending(&lab.scan()), upgradable(&mut lab.apt("apt", "APT::Default-Release \"bookworm\";")));
}

#[test]
fn a_host_that_cannot_see_its_fixes_is_unknown() {
    let Some(lab) = Lab::build() else { return };
    let report = lab.scan();
    assert_eq!(
        (report.level, kinds(&report)),
        (Level::Unknown, vec![ErrorKind::ListsMissing]),
        "before the first update"
    );

    lab.update("Acquire::GzipIndexes \"true\";");
    let key = patch::fingerprint(&lab.root());
    assert!(key.is_some());
    assert_eq!(patch::fingerprint(&lab.root()), key, "nothing changed");
    assert_eq!(lab.scan().level, Level::Known);
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
    let report = lab.scan();
    assert_eq!((report.level, kinds(&report)), (Level::Unknown, vec![ErrorKind::ListsMissing]));
    for head in security("Release") {
        fs::remove_file(head).unwrap();
    }
    let report = lab.scan();
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
        human.starts_with("1 security fixes missing (from 1 sources), 1 updates pending, 1 packages installed.\n"),
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
