//! A program run to its end or to the deadline, whichever comes first; nothing of it is left behind.
//!
//! It leads a process group of its own, which is killed as a whole when it has ended, when the deadline comes, and when
//! the probe is dropped: children that hold on to the output or ignore SIGTERM go too. (A process that leaves the group
//! on purpose, a daemon, stays.) The leader is reaped by the runtime, its orphans by init: no zombies.
//!
//! Of the output the first [`OUTPUT_BYTES_MAX`] are kept and the rest is read and thrown away, so that a program that
//! prints without end is not blocked on its way to its own end. Error output is not read.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::Instant;

use super::super::dial::Deadline;

/// Bytes of output kept.
pub(in super::super) const OUTPUT_BYTES_MAX: usize = 8 << 10;
/// How long output is waited for when the program has ended and a child of it still holds the other end.
const AFTER_END: Duration = Duration::from_millis(200);

/// How a program ended.
pub(in super::super) struct Ran {
    /// Its exit status; `None` when a signal ended it.
    pub(in super::super) code: Option<i32>,
    /// The beginning of its output.
    pub(in super::super) output: Vec<u8>,
}

/// Runs `argv`; `None` when the deadline came first.
///
/// # Errors
/// When it cannot be started or waited for.
pub(in super::super) async fn run(argv: &[String], deadline: Deadline) -> io::Result<Option<Ran>> {
    let [program, arguments @ ..] = argv else { return Err(io::Error::other("no program is named")) };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let _group = Group(leader);
    let mut pipe = child.stdout.take().ok_or_else(|| io::Error::other("the output is not connected"))?;
    let work = async {
        let mut output = Vec::new();
        let (mut open, mut ended) = (true, None);
        let mut piece = [0; 4_096];
        while open || ended.is_none() {
            let until = ended.map_or_else(Instant::now, |(_, at)| at + AFTER_END);
            tokio::select! {
                read = pipe.read(&mut piece), if open => {
                    let read = read?;
                    open = read > 0;
                    let room = OUTPUT_BYTES_MAX - output.len();
                    output.extend_from_slice(&piece[..read.min(room)]);
                }
                status = child.wait(), if ended.is_none() => ended = Some((status?, Instant::now())),
                () = tokio::time::sleep_until(until), if ended.is_some() => open = false,
            }
        }
        let code = ended.and_then(|(status, _)| status.code());
        Ok(Ran { code, output })
    };
    deadline.allows(work).await.transpose()
}

/// Kills what is left of the process group. Its number is not given to another process as long as a member lives; when
/// none does, there is nothing to kill in the moment between the end of the leader and this.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
