//! Trees as machines and mischief make them.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn zone(root: &Path, entry: &str, files: &[(&str, &str)]) {
    let dir = root.join(CLASS_DIR).join(entry);
    fs::create_dir_all(&dir).unwrap();
    for (file, text) in files {
        fs::write(dir.join(file), text).unwrap();
    }
}

fn ids(found: &Found) -> Vec<&str> {
    found.zones.iter().map(|zone| zone.id.as_str()).collect()
}

#[test]
fn zones_are_known_by_name_whatever_their_number_and_order() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    // Index is not the socket, psys stands between them, and sub-zones are numbered at random.
    zone(root, "intel-rapl:0", &[("name", "package-1\n"), ("energy_uj", "1\n")]);
    zone(root, "intel-rapl:1", &[("name", "psys\n"), ("energy_uj", "2\n")]);
    zone(root, "intel-rapl:2", &[("name", "package-0\n"), ("energy_uj", "3\n")]);
    zone(root, "intel-rapl:2:1", &[("name", "dram\n")]);
    zone(root, "intel-rapl:2:0", &[("name", "core\n")]);
    zone(root, "intel-rapl:0:3", &[("name", "dram\n")]);
    zone(root, "intel-rapl:7", &[("name", "package-15\n")]);
    zone(root, "intel-rapl-mmio:0", &[("name", "package-0\n")]);
    zone(root, "intel-rapl", &[("enabled", "1\n")]);
    zone(root, "dtpm", &[("name", "package-9\n")]);
    let found = discover(root);
    assert_eq!(
        ids(&found),
        [
            "mmio:package-0",
            "package-0",
            "package-0/core",
            "package-0/dram",
            "package-1",
            "package-1/dram",
            "package-15",
            "psys"
        ]
    );
    let dram = found.zones.iter().find(|zone| zone.id == "package-1/dram").unwrap();
    assert_eq!(dram.domain, Domain::Dram(Place { package: Some(1), die: None }));
    assert_eq!(found.zones.last().unwrap().read_uj(), Ok(2));
}

#[test]
fn sub_zones_below_their_parent_are_found_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    zone(root, "intel-rapl:0", &[("name", "package-0-die-1\n")]);
    zone(root, "intel-rapl:0/intel-rapl:0:0", &[("name", "dram\n")]);
    symlink(root.join(CLASS_DIR).join("intel-rapl:0/intel-rapl:0:0"), root.join(CLASS_DIR).join("intel-rapl:0:0"))
        .unwrap();
    let found = discover(root);
    assert_eq!(ids(&found), ["package-0-die-1", "package-0-die-1/dram"]);
    assert_eq!(found.zones[0].domain, Domain::Package(Place { package: Some(0), die: Some(1) }));
    assert_eq!(found.excluded, []);
}

#[test]
fn mischief_is_passed_over_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let class = root.join(CLASS_DIR);
    zone(root, "intel-rapl:0", &[("name", "package-0\n"), ("energy_uj", "5")]);
    zone(root, "intel-rapl:a", &[("name", "\n")]);
    zone(root, "intel-rapl:3", &[]);
    zone(root, "intel-rapl:4", &[("name", "../../etc/passwd")]);
    zone(root, "intel-rapl:9:0", &[("name", "dram\n")]);
    zone(root, "intel-rapl:b", &[("name", "package-4294967296\n")]);
    fs::write(class.join("intel-rapl:5"), "a stray file").unwrap();
    fs::write(class.join("README"), "another").unwrap();
    symlink(&class, class.join("intel-rapl:6")).unwrap();
    symlink(class.join("intel-rapl:7"), class.join("intel-rapl:7")).unwrap();
    symlink(class.join("intel-rapl:0"), class.join("intel-rapl:8")).unwrap();
    symlink(class.join("intel-rapl:0"), class.join("intel-rapl:0/intel-rapl:0:0")).unwrap();
    let found = discover(root);
    // A zone below itself is nothing we know; it is never counted (`compose.rs`).
    let counted: Vec<_> = found.zones.iter().filter(|zone| zone.domain != Domain::Unknown).collect();
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert_eq!(counted[0].id, "package-0");
    let why = |what: &str| found.excluded.iter().find(|it| it.what.contains(what)).map(|it| it.why.clone());
    for (what, part) in [
        ("intel-rapl:a", "is not a zone name"),
        ("intel-rapl:3", "no zone name (absent)"),
        ("intel-rapl:4", "is not a zone name"),
        ("intel-rapl:5", "no zone name"),
        ("intel-rapl:7", "no zone name"),
        ("intel-rapl:8", "a second zone of the same name"),
        ("intel-rapl:9:0", "its parent intel-rapl:9 is missing"),
    ] {
        assert!(why(what).is_some_and(|why| why.contains(part)), "{what}: {part} in {:#?}", found.excluded);
    }
}

#[test]
fn a_counter_is_a_number_or_a_reason_never_zero_by_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    zone(root, "intel-rapl:0", &[("name", "package-0")]);
    let zone = discover(root).zones.remove(0);
    let file = zone.dir.join("energy_uj");
    assert_eq!(zone.read_uj(), Err(Unreadable::Absent));
    for text in ["", "\n", "-1\n", "+5\n", "0x10", "12 34", "99999999999999999999\n", "garbage", &"1".repeat(500)] {
        fs::write(&file, text).unwrap();
        assert!(matches!(zone.read_uj(), Err(Unreadable::Garbage(_))), "{text:?}");
    }
    fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(matches!(zone.read_uj(), Err(Unreadable::Garbage(_))));
    fs::write(&file, "0\n").unwrap();
    assert_eq!(zone.read_uj(), Ok(0));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(zone.read_uj(), Err(Unreadable::Io(_))));
}

#[test]
fn a_refused_read_is_a_matter_of_permission_and_a_dead_device_is_absent() {
    let errno = |errno: rustix::io::Errno| Unreadable::from(io::Error::from(errno));
    assert_eq!(errno(rustix::io::Errno::ACCESS), Unreadable::Permission);
    assert_eq!(errno(rustix::io::Errno::PERM), Unreadable::Permission);
    assert_eq!(errno(rustix::io::Errno::NODEV), Unreadable::Absent);
    assert!(matches!(errno(rustix::io::Errno::IO), Unreadable::Io(_)));
    assert!(matches!(errno(rustix::io::Errno::NODATA), Unreadable::Io(_)));
}

#[test]
fn nonsense_limits_do_not_become_the_most_a_zone_can_draw() {
    let table: [(&[(&str, &str)], u64); 5] = [
        (&[], 1_000_000),
        (&[("constraint_0_power_limit_uw", "0"), ("constraint_1_max_power_uw", "3408000000")], 1_000_000),
        (&[("constraint_0_power_limit_uw", "200000000"), ("constraint_0_max_power_uw", "150000000")], 300_000),
        (&[("constraint_0_max_power_uw", "15000000"), ("constraint_1_power_limit_uw", "64000000")], 96_000),
        (&[("constraint_0_max_power_uw", "garbage"), ("constraint_1_max_power_uw", "1")], 1),
    ];
    for (files, pmax_mw) in table {
        let dir = tempfile::tempdir().unwrap();
        zone(dir.path(), "intel-rapl:0", &[("name", "package-0")]);
        zone(dir.path(), "intel-rapl:0", files);
        assert_eq!(discover(dir.path()).zones[0].pmax_mw, pmax_mw, "{files:?}");
    }
}

#[test]
fn a_machine_without_powercap_has_no_zones() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(discover(dir.path()), Found::default());
    assert_eq!(discover(Path::new("/nonexistent")), Found::default());
}
