//! A small world of packages: archives, a root that lags behind them, and apt to ask about both.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// One package of the lab; versions are `arch version [extra control lines]`, empty for none.
pub(crate) struct Case {
    pub(crate) package: &'static str,
    pub(crate) installed: &'static [&'static str],
    pub(crate) main: &'static [&'static str],
    pub(crate) security: &'static [&'static str],
    pub(crate) backports: &'static [&'static str],
    /// In a flat archive without release file.
    pub(crate) flat: &'static [&'static str],
    /// `arch installed security_version candidate state source source_version`.
    pub(crate) findings: &'static [&'static str],
}

const NONE: Case =
    Case { package: "", installed: &[], main: &[], security: &[], backports: &[], flat: &[], findings: &[] };

pub(crate) const CASES: &[Case] = &[
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
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// `None`, with a note, where the tools or rights are missing.
    pub(crate) fn build() -> Option<Self> {
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

    pub(crate) fn root(&self) -> PathBuf {
        self.at("root")
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
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
    pub(crate) fn apt(&self, tool: &str, more: &str) -> Command {
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

    pub(crate) fn update(&self, more: &str) {
        run(self.apt("apt-get", more).arg("update"));
    }

    pub(crate) fn upgradable(&self) -> BTreeSet<Line> {
        upgradable(&mut self.apt("apt", ""))
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}{}", text(&output), String::from_utf8_lossy(&output.stderr));
    output
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Package, architecture, installed, candidate.
pub(crate) type Line = (String, String, String, String);

/// What `apt list --upgradable` prints, without rebuilds of the same version.
pub(crate) fn upgradable(apt: &mut Command) -> BTreeSet<Line> {
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
