//! What can go wrong with the spool as a whole; damage is not an error but a [`Recovery`](super::Recovery).

use std::io;
use std::path::PathBuf;

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or opened.
    #[error("making the spool directory {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory cannot be listed; starting blindly would overwrite what is in it.
    #[error("listing the spool directory")]
    List {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("another process uses the spool directory {}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The system has no random numbers for a new epoch.
    #[error("choosing a new spool epoch")]
    Random {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a record was not taken. In every case the spool is as it was and can be used again.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It is larger than a record may be: it will never be taken.
    #[error("record of {bytes} bytes, at most {max} are taken")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// [`Limits::record_bytes_max`](super::Limits::record_bytes_max).
        max: u32,
    },
    /// The buffer is full and the file system has no room to empty it into.
    #[error("no room on the file system for buffered records")]
    NoSpace {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The buffer is full and could not be written.
    #[error("writing buffered records")]
    Write {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
