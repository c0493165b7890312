//! A cheap key over everything a scan reads, so that an unchanged host is not scanned again.
//!
//! Length, time and inode of every file, plus the signed date of every archive (proxies and `rsync` make
//! file times lie) and the running kernel: one stat per file and 4 KiB per archive, against a scan of all lists.
//!
//! The key says nothing about time passing: lists expire and releases reach their end while no file
//! changes. Whoever skips a scan must still scan once a day, or when the earliest `valid_until` passes.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::root::Root;
use super::{apt_conf, apt_lists, dpkg, os, preferences, reboot, release};

/// FNV-1a: stable from one build of the agent to the next, unlike the standard library's hash.
struct Key(u64);

impl Key {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn add_file(&mut self, root: &Root, inside: &str) {
        self.add(inside.as_bytes());
        match fs::metadata(root.locate(inside)) {
            Ok(m) => {
                for part in [m.mtime(), m.mtime_nsec()] {
                    self.add(&part.to_le_bytes());
                }
                for part in [m.len(), m.ino()] {
                    self.add(&part.to_le_bytes());
                }
            }
            Err(_) => self.add(b"\0absent"),
        }
    }
}

/// The key of a root, `None` when it has no dpkg database.
pub(crate) fn of(root: &Root) -> Option<u64> {
    fs::metadata(root.locate(dpkg::STATUS)).ok()?;
    let mut key = Key(0xcbf2_9ce4_8422_2325);
    let tables = ["/usr/share/distro-info/debian.csv", "/usr/share/distro-info/ubuntu.csv"];
    let single = [dpkg::STATUS, dpkg::ARCHITECTURES, apt_conf::FILE, preferences::FILE, reboot::FLAG, reboot::PACKAGES];
    for file in single.into_iter().chain(os::FILES).chain(tables) {
        key.add_file(root, file);
    }
    for directory in [apt_conf::DIRECTORY, preferences::DIRECTORY, apt_lists::DIRECTORY] {
        for name in root.names(directory) {
            let file = format!("{directory}/{name}");
            key.add_file(root, &file);
            if name.ends_with("_InRelease") || name.ends_with("_Release") {
                let date = release::date(root, &file);
                key.add(&date.map_or(0, |date| date.0).to_le_bytes());
            }
        }
    }
    if root.is_running_system() {
        key.add(root.text(reboot::KERNEL_RELEASE).unwrap_or_default().as_bytes());
    }
    Some(key.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn every_change_a_scan_would_see_changes_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let put = |inside: &str, text: &str| {
            let path = dir.path().join(inside.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // In place, with the time it had: only the content tells.
            let before = fs::metadata(&path).and_then(|m| m.modified()).ok();
            let mut file = File::create(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            if let Some(before) = before {
                file.set_modified(before).unwrap();
            }
        };
        assert_eq!(of(&root), None, "nothing there");
        put(dpkg::STATUS, "Package: a\n");
        let head = format!("{}/h_dists_s_InRelease", apt_lists::DIRECTORY);
        put(&head, "Date: Sat, 21 Nov 2026 00:53:02 UTC\n");
        let mut seen = vec![of(&root).unwrap()];
        assert_eq!(of(&root), seen.first().copied(), "unchanged");
        let fragment = format!("{}/pin", preferences::DIRECTORY);
        for (inside, text) in [
            (dpkg::STATUS, "Package: longer\n"),
            (head.as_str(), "Date: Sun, 22 Nov 2026 00:53:02 UTC\n"),
            (fragment.as_str(), "Package: a\n"),
            (apt_conf::FILE, "x"),
            (reboot::FLAG, ""),
            ("/usr/share/distro-info/debian.csv", "version"),
            ("/var/lib/apt/lists/h_dists_s_main_binary-amd64_Packages", "Package: a\n"),
        ] {
            put(inside, text);
            let key = of(&root).unwrap();
            assert!(!seen.contains(&key), "{inside} changed unseen");
            seen.push(key);
        }
        let touched = File::open(root.locate(dpkg::STATUS)).unwrap();
        touched.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(!seen.contains(&of(&root).unwrap()), "same length, other time");
    }
}
