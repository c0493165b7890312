//! What checks of this host share: looks that may block, and thresholds that remember.
//!
//! A look (a file system that hangs, a process table) runs on the blocking pool and cannot be called back, so at most
//! [`LOOKS_MAX`] run at a time; one that does not end with the deadline is a `timeout` of what it looks at, and one that
//! finds no place is our own trouble.
//!
//! A threshold fails above its maximum and is well again only `hysteresis` points below it. What it remembers is lost
//! when the agent restarts: it then begins as if all were well.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use peil_proto::ids::CheckNo;
use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::dial::Deadline;
use super::{Failure, Hop, Phase};

/// Looks at this host at the same time.
const LOOKS_MAX: usize = 8;
/// Thresholds remembered as exceeded. Beyond, all are forgotten.
const LATCHED_MAX: usize = 20_000;
/// Bytes of a file of the kernel that are read.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// What looks at this host share. Lives as long as the agent.
#[derive(Debug)]
pub(super) struct Host {
    places: Arc<Semaphore>,
    latched: Mutex<HashSet<(CheckNo, &'static str)>>,
}

/// A share in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Share(pub(super) u32);

impl Share {
    /// `part` of `whole`; nothing of nothing is nothing.
    pub(super) fn of(part: u64, whole: u64) -> Self {
        let share = u128::from(part) * 10_000 / u128::from(whole.max(1));
        Self(u32::try_from(share).unwrap_or(u32::MAX))
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02} %", self.0 / 100, self.0 % 100)
    }
}

impl Host {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(LOOKS_MAX)), latched: Mutex::default() }
    }

    /// Does blocking `work` within the deadline; its time is `first_byte` of `hop`.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        deadline: Deadline,
        hop: &mut Hop,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let place = deadline.allows(Arc::clone(&self.places).acquire_owned()).await;
        let Some(Ok(place)) = place else {
            return Err(Failure::unusable("other looks at this host do not end"));
        };
        let looking = tokio::task::spawn_blocking(move || {
            let found = work();
            drop(place);
            found
        });
        let found = deadline.allows(looking).await;
        hop.phases.first_byte = Some(Micros::from_duration(began.elapsed()));
        match found {
            Some(Ok(found)) => found,
            Some(Err(failed)) => Err(Failure::unusable(format!("the look failed within the agent: {failed}"))),
            None => Err(Failure::during(Phase::FirstByte, FailureKind::Timeout, "it does not answer")),
        }
    }

    /// Whether `share` is over `max`, or was and is not yet `hysteresis` points below it.
    pub(super) fn is_over(&self, of: (CheckNo, &'static str), share: Share, max: u8, hysteresis: u8) -> bool {
        let mut latched = self.latched.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = if latched.contains(&of) { max.saturating_sub(hysteresis) } else { max };
        let over = share > Share(u32::from(limit) * 100);
        if over {
            if latched.len() >= LATCHED_MAX {
                latched.clear();
            }
            latched.insert(of);
        } else {
            latched.remove(&of);
        }
        over
    }

    /// The failure of a threshold, if it is over.
    pub(super) fn judge(
        &self,
        of: (CheckNo, &'static str),
        share: Share,
        max: u8,
        hysteresis: u8,
    ) -> Result<(), Failure> {
        if self.is_over(of, share, max, hysteresis) {
            let text = format!("{} at {share}, over {max} %, well again {hysteresis} points below", of.1);
            return Err(Failure::judged(FailureKind::Content, text));
        }
        Ok(())
    }
}

/// What an error of this host's files says.
pub(super) fn failure_of(error: &io::Error, path: &Path) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FailureKind::NoSuchName,
        io::ErrorKind::PermissionDenied => FailureKind::Permission,
        _ => FailureKind::LocalResource,
    };
    Failure::judged(kind, format!("{}: {error}", path.display()))
}

/// A text of the kernel. That it is missing says nothing about what is checked.
pub(super) fn kernel_text(path: &Path) -> Result<String, Failure> {
    let read = || {
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(std::fs::File::open(path)?, TEXT_BYTES_MAX), &mut text)?;
        Ok(text)
    };
    read().map_err(|error: io::Error| match failure_of(&error, path) {
        failure @ Failure { kind: FailureKind::NoSuchName, .. } => {
            Failure { kind: FailureKind::LocalResource, ..failure }
        }
        failure => failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_well_again_only_below_its_hysteresis() {
        let host = Host::new();
        let check = (CheckNo(1), "disk");
        let over = |percent: u32| host.is_over(check, Share(percent * 100), 90, 5);
        assert_eq!([90, 91, 88, 86, 85, 88, 91].map(over), [false, true, true, true, false, false, true]);
        assert!(!host.is_over((CheckNo(2), "disk"), Share(8_800), 90, 5), "each check remembers for itself");
    }

    #[test]
    fn shares_are_floored_and_never_divide_by_nothing() {
        assert_eq!(Share::of(1, 3), Share(3_333));
        assert_eq!(Share::of(5, 0), Share(50_000));
        assert_eq!(Share::of(u64::MAX, u64::MAX), Share(10_000));
        assert_eq!(Share(9_005).to_string(), "90.05 %");
    }
}
