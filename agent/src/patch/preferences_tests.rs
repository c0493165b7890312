//! Tables of pins against the version they choose.

use super::*;
use proptest::prelude::*;

/// Files of the table below: 0 is what is installed.
fn files() -> Vec<Provenance> {
    let some = |s: &str| Some(s.to_owned());
    let archive = |suite: &str, codename: &str, label: &str, priority| Provenance {
        archive: some(suite),
        codename: some(codename),
        origin: some("Debian"),
        label: some(label),
        version: some("12"),
        component: some("main"),
        arch: some("amd64"),
        site: some("deb.debian.org"),
        priority,
    };
    vec![
        Provenance::installed(),
        archive("stable", "bookworm", "Debian", 500),
        archive("stable-security", "bookworm-security", "Debian-Security", 500),
        archive("stable-backports", "bookworm-backports", "Debian Backports", 100),
        archive("experimental", "rc-buggy", "Debian", 1),
    ]
}

/// The version chosen for `demo` from source `demo-src`: installed 2, stable 3, security 4, backports 5,
/// experimental 6; stable also still has 1.
fn chosen(preferences: &str) -> Option<&'static str> {
    chosen_for(preferences, "amd64")
}

fn chosen_for(preferences: &str, arch: &str) -> Option<&'static str> {
    let (mut pins, mut mistakes) = (Vec::new(), Vec::new());
    parse(preferences, &mut pins, &mut mistakes);
    assert_eq!(mistakes, Vec::<String>::new());
    let policy = Policy::new(files(), pins);
    let version = |text, file| Version { text, source: "demo-src", files: vec![file] };
    let versions =
        [version("3", 1), version("2", 0), version("6", 4), version("4", 2), version("5", 3), version("1", 1)];
    let subject = Subject { package: "demo", arch, native: "amd64" };
    policy.candidate(subject, Some("2"), &versions).map(|at| versions[at].text)
}

#[test]
fn pins_choose_as_apt_preferences_says() {
    for (preferences, expected) in [
        ("", "4"),
        ("Package: *\nPin: release a=stable-backports\nPin-Priority: 600\n", "5"),
        ("Package: *\nPin: release n=rc-buggy\nPin-Priority: 501", "6"),
        ("# c\nExplanation: why\nPackage: *\nPin: release l=Debian-Security\nPin-Priority: -1\n", "3"),
        ("Package: *\nPin: release o=Debian\nPin-Priority: 50\n", "2"),
        ("Package: *\nPin: origin \"deb.debian.org\"\nPin-Priority: 50\n", "2"),
        ("Package: *\nPin: origin *.org\nPin-Priority: 50\n", "2"),
        ("Package: *\nPin: origin other.org\nPin-Priority: 50\n", "4"),
        ("Package: demo\nPin: version 2\nPin-Priority: 1000\n", "2"),
        ("Package: demo\nPin: version 1*\nPin-Priority: 1001\n", "1"),
        // Only a downgrade needs 1000, and 1000 is enough.
        ("Package: demo\nPin: version 1\nPin-Priority: 1000\n", "1"),
        ("Package: demo\nPin: version 1\nPin-Priority: 999\n", "4"),
        ("Package: d*o other\nPin: release a=experimental\nPin-Priority: 990\n", "6"),
        ("Package: /^DE.o$/\nPin: release c=main, a=stable\nPin-Priority: 990\n", "3"),
        ("Package: src:demo-src\nPin: release v=12, a=stable\nPin-Priority: 990\n", "3"),
        ("Package: src:demo\nPin: release a=stable\nPin-Priority: 990\n", "4"),
        ("Package: demo:i386\nPin: release a=stable\nPin-Priority: 990\n", "4"),
        ("Package: demo:any\nPin: release stable\nPin-Priority: 990\n", "3"),
        // The first that matches wins, among archives and among versions.
        (
            "Package: *\nPin: release a=stable\nPin-Priority: 600\n\nPackage: *\nPin: release a=stable\nPin-Priority: 400\n",
            "3",
        ),
        (
            "Package: demo\nPin: version 5\nPin-Priority: -5\n\nPackage: demo\nPin: release a=stable-backports\nPin-Priority: 990\n",
            "4",
        ),
        ("Package: demo\nPin: release a=now\nPin-Priority: 990\n", "2"),
    ] {
        assert_eq!(chosen(preferences), Some(expected), "{preferences}");
    }
}

#[test]
fn a_pin_without_architecture_speaks_of_native_packages_only() {
    let pin = "Package: demo\nPin: release a=stable\nPin-Priority: 990\n";
    assert_eq!(chosen_for(pin, "amd64"), Some("3"));
    assert_eq!(chosen_for(pin, "i386"), Some("4"));
}

#[test]
fn a_package_may_be_left_without_candidate() {
    assert_eq!(chosen("Package: demo\nPin: version *\nPin-Priority: -1\n"), None);
}

#[test]
fn a_version_in_two_archives_has_the_higher_priority() {
    let policy = Policy::new(files(), Vec::new());
    let versions =
        [Version { text: "5", source: "s", files: vec![3] }, Version { text: "2", source: "s", files: vec![0, 1] }];
    let subject = Subject { package: "demo", arch: "amd64", native: "amd64" };
    assert_eq!(policy.candidate(subject, Some("2"), &versions), Some(1));
}

#[test]
fn records_that_are_not_understood_are_told_and_left_out() {
    for bad in [
        "Package: demo\nPin: release a=x\n",
        "Package: demo\nPin: release a=x\nPin-Priority: 0\n",
        "Package: demo\nPin: release a=x\nPin-Priority: much\n",
        "Package: demo\nPin: weather fine\nPin-Priority: 1\n",
        "Package: *\nPin: version 1\nPin-Priority: 1\n",
        "Package: /a(/\nPin: version 1\nPin-Priority: 1\n",
        "Pin: version 1\nPin-Priority: 1\n",
    ] {
        let (mut pins, mut mistakes) = (Vec::new(), Vec::new());
        parse(bad, &mut pins, &mut mistakes);
        assert_eq!((pins.len(), mistakes.len()), (0, 1), "{bad}");
    }
}

#[test]
fn the_default_release_comes_before_the_preferences() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("etc/apt/preferences.d")).unwrap();
    std::fs::write(dir.path().join("etc/apt/apt.conf"), "APT::Default-Release \"stable\";").unwrap();
    std::fs::write(dir.path().join("etc/apt/preferences"), "Package: *\nPin: release o=Debian\nPin-Priority: 400\n")
        .unwrap();
    std::fs::write(dir.path().join("etc/apt/preferences.d/a.bak"), "Package: *\nPin: release *\nPin-Priority: 1\n")
        .unwrap();
    let mut problems = Vec::new();
    let policy = Policy::read(&Root::new(dir.path()), files(), &mut problems);
    assert_eq!(policy.priorities, [100, 990, 400, 400, 400]);
    assert_eq!(problems, []);
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "[a-c:=,*/\\[ \n\"0-9]{0,80}") {
        let (mut pins, mut mistakes) = (Vec::new(), Vec::new());
        parse(&text, &mut pins, &mut mistakes);
        parse(&format!("Package: {text}\nPin: release {text}\nPin-Priority: 5"), &mut pins, &mut mistakes);
        Policy::new(files(), pins);
    }
}
