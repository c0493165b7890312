//! Where a store is: the one line of the settings that chooses the engine.

use std::fmt;
use std::path::PathBuf;

pub use super::postgres::Target;
pub use super::postgres::target::{BadTarget, Beside};

/// Where a store is.
#[derive(Debug, Clone)]
pub enum Place {
    /// SQLite, in a directory of this machine: one collector.
    Directory(PathBuf),
    /// PostgreSQL: any number of collectors.
    Server(Target),
}

/// Why a line of settings is no place.
#[derive(Debug, thiserror::Error)]
pub enum BadPlace {
    /// Neither of the two forms.
    #[error("must be \"sqlite:///a/directory\" or \"postgres://user@host/database\"")]
    Form,
    /// A PostgreSQL URL, but not a good one.
    #[error(transparent)]
    Server(#[from] BadTarget),
}

impl Place {
    /// Reads `sqlite:///DIR` or `postgres://…`.
    ///
    /// # Errors
    /// [`BadPlace`] with what is wrong.
    pub fn parse(url: &str, beside: Beside) -> Result<Self, BadPlace> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Directory(path)) } else { Err(BadPlace::Form) };
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(BadPlace::Form);
        }
        Ok(Self::Server(Target::parse(url, beside)?))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "sqlite://{}", path.display()),
            Self::Server(target) => target.fmt(f),
        }
    }
}
