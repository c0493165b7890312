//! Where the meter stood at its last report, so that a restarted agent bridges the pause exactly.
//!
//! One file: a line with format and CRC-32C, then JSON. Written beside itself and renamed, so a reader
//! sees the old or the new state, never half of one. Not synced to disk: after a crash of the machine
//! every counter starts anew and the state serves for bounds only; a torn file fails its checksum and
//! counting then starts afresh, which is a gap and never a wrong figure.
//!
//! Limit: [`STATE_BYTES_MAX`]; a larger file is not ours and is treated as corrupt.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use peil_proto::time::UtcTime;
use serde::{Deserialize, Serialize};

use super::integrator::ZoneIntegrator;
use super::model::ModelBaseline;

/// A state of a hundred zones has 20 KiB.
pub(super) const STATE_BYTES_MAX: u64 = 1 << 20;

const FORMAT: &str = "peil-energy 1";

/// Which source speaks for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Speaker {
    /// The counters.
    Counters,
    /// The model; counters, where readable, only get their baseline.
    Model,
}

/// Where the meter stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// The boot it was written in.
    pub(super) boot_id: String,
    /// Where the next interval starts, on the wall clock.
    pub(super) start: UtcTime,
    /// The same moment, awake ms since boot.
    pub(super) mono_ms: u64,
    /// The same moment, ms since boot.
    pub(super) boottime_ms: u64,
    /// Who spoke.
    pub(super) speaker: Speaker,
    /// Counters by zone id.
    pub(super) zones: BTreeMap<String, ZoneIntegrator>,
    /// The model, if it runs.
    pub(super) model: Option<ModelBaseline>,
}

/// Why there is no state to go on from.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    /// The file cannot be read.
    #[error("cannot read energy state {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not hold what we wrote.
    #[error("energy state {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The file cannot be written.
    #[error("cannot write energy state {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads the state; `Ok(None)` when none was ever written.
///
/// # Errors
/// [`StateError::Read`] and [`StateError::Damaged`].
pub(super) fn load(path: &Path) -> Result<Option<State>, StateError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(STATE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged(path, "not UTF-8")),
        Err(source) => return Err(StateError::Read { path: path.to_owned(), source }),
    }
    if text.len() as u64 > STATE_BYTES_MAX {
        return Err(damaged(path, "too large"));
    }
    let (head, body) = text.split_once('\n').ok_or_else(|| damaged(path, "no first line"))?;
    if head != header(body) {
        return Err(damaged(path, "format or checksum does not fit"));
    }
    serde_json::from_str(body).map(Some).map_err(|error| damaged(path, error))
}

/// Writes the state, replacing the old one at once.
///
/// # Errors
/// [`StateError::Write`]; the old state is then still there.
pub(super) fn save(path: &Path, state: &State) -> Result<(), StateError> {
    let failed = |source: io::Error| StateError::Write { path: path.to_owned(), source };
    let body = serde_json::to_string(state).map_err(|error| failed(error.into()))?;
    let fresh = path.with_extension("new");
    fs::write(&fresh, format!("{}\n{body}", header(&body))).and_then(|()| fs::rename(&fresh, path)).map_err(failed)
}

fn header(body: &str) -> String {
    format!("{FORMAT} {:08x}", crc32c::crc32c(body.as_bytes()))
}

fn damaged(path: &Path, why: impl ToString) -> StateError {
    StateError::Damaged { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            boot_id: "A".into(),
            start: UtcTime(1_000),
            mono_ms: 2,
            boottime_ms: 3,
            speaker: Speaker::Counters,
            zones: BTreeMap::from([("package-0".to_owned(), ZoneIntegrator::default())]),
            model: None,
        }
    }

    #[test]
    fn a_state_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("energy.state");
        assert!(load(&path).unwrap().is_none());
        save(&path, &state()).unwrap();
        save(&path, &state()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(state()));
    }

    #[test]
    fn every_damaged_byte_and_every_torn_end_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("energy.state");
        save(&path, &state()).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(load(&path), Err(StateError::Damaged { .. })), "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(matches!(load(&path), Err(StateError::Damaged { .. })), "cut at {at}");
        }
    }
}
