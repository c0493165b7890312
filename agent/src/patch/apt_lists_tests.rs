//! Lists of every packing, and every way in which they can be unfit.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::io::Write;

const NOON: &str = "2026-11-23T12:00:00Z";
const PACKAGES: &str = "Package: demo\nArchitecture: amd64\nVersion: 2\nSource: demo-src (2.0)\n\nPackage: other\nVersion: 1\nArchitecture: all\n\n";

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("var/lib/apt/lists/partial")).unwrap();
        Self { dir }
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.dir.path().join("var/lib/apt/lists").join(name), content).unwrap();
        self
    }

    /// A security archive with one list, named and packed as given.
    fn with_list(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        self.put(
            "h_d_dists_s-security_InRelease",
            "Origin: Debian\nLabel: Debian-Security\nSuite: s-security\nDate: Mon, 23 Nov 2026 00:00:00 UTC\n",
        );
        self.put(&format!("h_d_dists_s-security_main_binary-amd64_{name}"), content)
    }

    fn root(&self) -> Root {
        Root::new(self.dir.path())
    }

    fn offers(&self) -> (Vec<Offer>, Vec<ErrorKind>) {
        let mut problems = Vec::new();
        let lists = Lists::find(&self.root(), &mut problems);
        let offers = lists.offers(&self.root(), &Wanted::new(["demo"].into_iter(), None), &mut problems);
        lists.check(&self.root(), "amd64", UtcTime::parse(NOON).unwrap(), &mut problems);
        (offers, problems.into_iter().map(|p| p.kind).collect())
    }
}

fn gz(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

fn lz4(data: &[u8]) -> Vec<u8> {
    let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    lzma_rs::xz_compress(&mut &data[..], &mut out).unwrap();
    out
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn every_packing_is_told_by_its_content_not_its_name() {
    let plain = PACKAGES.as_bytes();
    for (name, content) in [
        ("Packages", plain.to_vec()),
        ("Packages.gz", gz(plain)),
        ("Packages.lz4", lz4(plain)),
        ("Packages.xz", xz(plain)),
        ("Packages.zst", zstd(plain)),
        ("Packages.gz", plain.to_vec()),
        ("Packages", zstd(plain)),
        // A stream may follow a stream.
        ("Packages.gz", [gz(&plain[..50]), gz(&plain[50..])].concat()),
        ("Packages.lz4", [lz4(&plain[..50]), lz4(&plain[50..])].concat()),
        ("Packages.zst", [zstd(&plain[..50]), zstd(&plain[50..])].concat()),
    ] {
        let lab = Lab::new();
        let (offers, problems) = lab.with_list(name, content).offers();
        assert_eq!(problems, [], "{name}");
        let [offer] = &offers[..] else { panic!("{name}: {offers:?}") };
        assert_eq!(
            (offer.version.as_str(), offer.source.name.as_str(), offer.source.version.as_str()),
            ("2", "demo-src", "2.0")
        );
    }
}

#[test]
fn big_lists_unpack_whole_in_every_packing() {
    let mut big = String::new();
    for i in 0..40_000 {
        big.push_str(&format!(
            "Package: p{i}\nVersion: {}\nArchitecture: amd64\nDescription: {:x}\n\n",
            i % 97,
            i * 7919
        ));
    }
    big.push_str(PACKAGES);
    let expected = big.len() as u64;
    for packed in
        [big.clone().into_bytes(), gz(big.as_bytes()), lz4(big.as_bytes()), xz(big.as_bytes()), zstd(big.as_bytes())]
    {
        let lab = Lab::new();
        lab.put("x", packed);
        let mut count = 0;
        let mut stanzas = Stanzas::new(|_: &[u8]| count += 1);
        let bytes = decompress::unpack(lab.root().open("/var/lib/apt/lists/x").unwrap(), &mut stanzas).unwrap();
        assert_eq!((bytes, stanzas.finish()), (expected, Ending::Whole));
        assert_eq!(count, 40_002);
    }
}

#[test]
fn an_xz_bomb_is_refused_before_it_is_unpacked() {
    // A stream header, a block header, and chunks that each claim 2 MiB of output for one byte of input.
    let mut bomb = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46\x02\0\x21\x01\x16\0\0\0\0\0\0\0".to_vec();
    for _ in 0..60 {
        bomb.extend([0xff, 0xff, 0xff, 0, 0, 0x5d, 0]);
    }
    let (offers, problems) = Lab::new().with_list("Packages.xz", bomb).offers();
    assert_eq!((offers.len(), problems), (0, vec![ErrorKind::ListUnreadable]));
}

#[test]
fn unfit_lists_are_problems_never_an_empty_result() {
    let half = |packed: Vec<u8>| packed[..packed.len() / 2].to_vec();
    let plain = PACKAGES.as_bytes();
    let noise: Vec<u8> = (0..4000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 3).to_le_bytes()).collect();
    for (what, name, content, expected) in [
        ("bzip2", "Packages.bz2", b"BZh91AY&SY".to_vec(), ErrorKind::ListUnreadable),
        ("half gz", "Packages.gz", half(gz(plain)), ErrorKind::ListUnreadable),
        ("half lz4", "Packages.lz4", half(lz4(&noise)), ErrorKind::ListUnreadable),
        ("half xz", "Packages.xz", half(xz(plain)), ErrorKind::ListUnreadable),
        ("half zst", "Packages.zst", half(zstd(&noise)), ErrorKind::ListUnreadable),
        ("cut", "Packages", plain[..plain.len() - 9].to_vec(), ErrorKind::ListTruncated),
        ("empty", "Packages", Vec::new(), ErrorKind::ListsMissing),
    ] {
        let lab = Lab::new();
        let (_, problems) = lab.with_list(name, content).offers();
        assert_eq!(problems, [expected], "{what}");
    }
}

#[test]
fn a_cut_list_still_gives_what_stands_before_the_cut() {
    let lab = Lab::new();
    lab.with_list("Packages", &PACKAGES[..PACKAGES.len() - 9]);
    assert_eq!(lab.offers().0.len(), 1);
}

#[test]
fn a_list_shorter_than_its_archive_says_is_told() {
    let lab = Lab::new();
    lab.with_list("Packages", PACKAGES);
    let head = |bytes: usize| format!("Label: Debian-Security\nSHA256:\n 00 {bytes} main/binary-amd64/Packages\n");
    lab.put("h_d_dists_s-security_InRelease", head(PACKAGES.len()));
    assert_eq!(lab.offers().1, []);
    lab.put("h_d_dists_s-security_InRelease", head(PACKAGES.len() + 1));
    assert_eq!(lab.offers().1, [ErrorKind::ListTruncated]);
}

#[test]
fn an_archive_that_is_truly_empty_is_no_problem() {
    let lab = Lab::new();
    lab.with_list("Packages", PACKAGES);
    lab.put(
        "h_d_dists_s-updates_InRelease",
        "Suite: s-updates\nSHA256:\n 00 0 main/binary-amd64/Packages\n 00 9 main/binary-arm64/Packages\n",
    );
    assert_eq!(lab.offers().1, []);
    lab.put("h_d_dists_s-updates_main_binary-amd64_Packages", "");
    assert_eq!(lab.offers().1, []);
}

#[test]
fn missing_expired_and_future_archives_are_told() {
    assert_eq!(Lab::new().offers().1, [ErrorKind::ListsMissing]);

    let partial = Lab::new();
    partial.put("partial/h_d_dists_s-security_main_binary-amd64_Packages", PACKAGES);
    assert_eq!(partial.offers().1, [ErrorKind::ListsMissing]);

    let other_missing = Lab::new();
    other_missing.with_list("Packages", PACKAGES).put("h_d_dists_s_InRelease", "Suite: s\n");
    assert_eq!(other_missing.offers().1, [ErrorKind::ListsMissing]);

    let insecure = Lab::new();
    insecure.put("h_d_dists_s_InRelease", "Suite: s\n").put("h_d_dists_s_main_binary-amd64_Packages", PACKAGES);
    assert_eq!(insecure.offers().1, [ErrorKind::SecurityUnknown]);

    for (line, expected) in [
        ("Valid-Until: Mon, 23 Nov 2026 11:59:59 UTC", vec![ErrorKind::ListsExpired]),
        ("Valid-Until: Mon, 23 Nov 2026 12:00:01 UTC", vec![]),
        ("Valid-Until: tomorrow", vec![ErrorKind::ReleaseDamaged]),
        ("Date: Tue, 24 Nov 2026 11:59:59 UTC", vec![]),
        ("Date: Tue, 24 Nov 2026 12:00:01 UTC", vec![ErrorKind::ClockSkew]),
    ] {
        let lab = Lab::new();
        lab.with_list("Packages", PACKAGES)
            .put("h_d_dists_s-security_InRelease", format!("Label: Debian-Security\n{line}\n"));
        assert_eq!(lab.offers().1, expected, "{line}");
    }
}

#[test]
fn each_list_finds_the_head_it_belongs_to() {
    let lab = Lab::new();
    for base in ["h_d_dists_s", "h_d_dists_s-security_updates", "h_d", "flat_repo_."] {
        lab.put(&format!("{base}_InRelease"), format!("Suite: {base}\nNotAutomatic: yes\n"));
    }
    lab.put("flat_repo_._Release", "Suite: unsigned\n");
    for list in [
        "h_d_dists_s_main_binary-amd64_Packages",
        "h_d_dists_s-security_updates_non-free_binary-i386_Packages.lz4",
        "h_d_dists_t_main_binary-amd64_Packages",
        "h_d_Packages",
        "flat_repo_._Packages",
        "my%5fhost:8080_r_dists_x_main_binary-all_Packages",
    ] {
        lab.put(list, PACKAGES);
    }
    let lists = Lists::find(&lab.root(), &mut Vec::new());
    let seen: BTreeMap<String, _> = (0..lists.lists.len())
        .map(|at| {
            let p = lists.provenance(at);
            (
                lists.lists[at].file[DIRECTORY.len() + 1..].to_owned(),
                (p.archive, p.component, p.arch, p.site, p.priority),
            )
        })
        .collect();
    let some = |s: &str| Some(s.to_owned());
    assert_eq!(
        seen["h_d_dists_s_main_binary-amd64_Packages"],
        (some("h_d_dists_s"), some("main"), some("amd64"), some("h"), 1)
    );
    assert_eq!(
        seen["h_d_dists_s-security_updates_non-free_binary-i386_Packages.lz4"],
        (some("h_d_dists_s-security_updates"), some("non-free"), some("i386"), some("h"), 1)
    );
    assert_eq!(seen["h_d_dists_t_main_binary-amd64_Packages"].0, None);
    assert_eq!(seen["h_d_Packages"], (some("h_d"), None, None, some("h"), 1));
    assert_eq!(seen["flat_repo_._Packages"].0, some("flat_repo_."));
    assert_eq!(seen["my%5fhost:8080_r_dists_x_main_binary-all_Packages"].4, 500);
    let sites: Vec<String> = lists.archives().into_iter().map(|a| a.site).collect();
    assert_eq!(sites, ["flat", "h", "h", "h", "h", "my_host"]);
}

proptest! {
    #[test]
    fn any_bytes_after_any_magic_are_answered(
        magic in prop_oneof![Just(&b"\x1f\x8b\x08"[..]), Just(&b"\x04\x22\x4d\x18"[..]), Just(&b"\x28\xb5\x2f\xfd"[..]), Just(&b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46"[..]), Just(&b""[..])],
        bytes in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let lab = Lab::new();
        lab.with_list("Packages", [magic, &bytes].concat()).offers();
    }

    #[test]
    fn damage_anywhere_in_a_packed_list_is_answered(at in 0usize..400, to in any::<u8>()) {
        let mut text = PACKAGES.to_owned();
        for i in 0..20 {
            text.push_str(&format!("Package: p{i}\nVersion: {i}\n\n"));
        }
        for mut packed in [gz(text.as_bytes()), lz4(text.as_bytes()), xz(text.as_bytes()), zstd(text.as_bytes())] {
            let at = at % packed.len();
            packed[at] = to;
            Lab::new().with_list("Packages", packed).offers();
        }
    }

    #[test]
    fn any_name_is_understood_or_passed_over(name in "[a-c_%0-9.:-]{0,20}") {
        decoded(&name);
        site_of(&name);
        let mut lists = Lists::default();
        lists.heads.push(Head { base: "a".to_owned(), ..Head::default() });
        let packages = format!("{name}_Packages");
        lists.add_list(&packages, &packages);
        lists.archives();
        lists.provenance(0);
    }
}
