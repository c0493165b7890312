//! `mount`: whether a file system of this host is mounted and has room. Options: `peil_proto::plan::Mount`.
//!
//! Used bytes are counted as `df` does: of what users may fill, without what is kept for root. File systems without
//! inodes (btrfs) have none to run out of. A network file system that hangs does not answer: `timeout`.

use std::path::Path;

use peil_proto::ids::CheckNo;
use peil_proto::plan::Mount;
use peil_proto::sample::FailureKind;

use super::dial::Deadline;
use super::host::{Share, failure_of, kernel_text};
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "mount",
    about: "looks whether a file system of this host has room",
    example: "mount:///",
    phases: &[Phase::FirstByte],
};

/// What is looked at.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    used: Share,
    free_bytes: u64,
    inodes: Share,
}

pub(super) async fn run(no: CheckNo, check: &Mount, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.mount.clone(), ..Hop::default() };
    let (proc, path) = (ctx.local.proc_dir.clone(), check.mount.clone());
    let room = ctx.host.look(deadline, &mut hop, move || look(&proc, &path)).await;
    let mut facts = Vec::new();
    if let Ok(room) = &room {
        facts.push(Fact::new("used", room.used));
        facts.push(Fact::new("free", format_args!("{} MiB", room.free_bytes >> 20)));
        facts.push(Fact::new("inodes", room.inodes));
    }
    let end = room.and_then(|room| judge(no, check, &room, ctx)).map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

fn look(proc: &Path, path: &str) -> Result<Room, Failure> {
    let mounts = kernel_text(&proc.join("self/mountinfo"))?;
    // Before the file system is asked: one that is gone would be its parent, with room.
    if !mounts.lines().filter_map(mount_point).any(|point| point == path.as_bytes()) {
        let there = std::fs::symlink_metadata(path).map_err(|error| failure_of(&error, Path::new(path)));
        return there.and_then(|_| Err(Failure::judged(FailureKind::Content, "nothing is mounted there")));
    }
    let stat = rustix::fs::statvfs(path).map_err(|error| failure_of(&error.into(), Path::new(path)))?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let inodes_used = stat.f_files.saturating_sub(stat.f_ffree);
    Ok(Room {
        used: Share::of(used, used.saturating_add(stat.f_bavail)),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: Share::of(inodes_used, stat.f_files),
    })
}

fn judge(no: CheckNo, check: &Mount, room: &Room, ctx: &ProbeContext) -> Result<(), Failure> {
    ctx.host.judge((no, "use"), room.used, check.used_max, check.hysteresis)?;
    ctx.host.judge((no, "inodes"), room.inodes, check.inodes_max, check.hysteresis)?;
    match check.free_min_mib.filter(|least| room.free_bytes >> 20 < *least) {
        Some(least) => {
            let text = format!("{} MiB free, fewer than {least}", room.free_bytes >> 20);
            Err(Failure::judged(FailureKind::Content, text))
        }
        None => Ok(()),
    }
}

/// The mount point of a line of mountinfo: its fifth word, with `\040` and the like for what may not stand there.
fn mount_point(line: &str) -> Option<Vec<u8>> {
    let word = line.split(' ').nth(4)?.as_bytes();
    let mut point = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after.get(..3).filter(|_| *byte == b'\\');
        let code = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                point.push(code);
                rest = &after[3..];
            }
            None => {
                point.push(*byte);
                rest = after;
            }
        }
    }
    Some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let line = r"36 35 98:0 / /mnt/my\040disk rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(b"/mnt/my disk".to_vec()));
        assert_eq!(mount_point("a b"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_line_has_a_mount_point_or_not(line in ".{0,80}", word in r"[\\0-9a-z]{0,20}") {
            let _ = mount_point(&line);
            let _ = mount_point(&format!("1 2 3 4 {word} x"));
        }
    }
}
