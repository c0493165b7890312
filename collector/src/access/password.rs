//! Passwords: argon2id, and the first one a new collector prints.
//!
//! The stored form is the PHC string (`$argon2id$v=19$m=19456,t=2,p=1$salt$hash`), so raising the cost
//! later leaves old passwords usable. Nothing here judges how good a password is.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

use super::{AccessError, random};

/// Longest password that is looked at, bytes. A longer one is wrong: hashing megabytes is an attack.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// 32 letters without look-alikes (no l, o, 0, 1): five bits each.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// How dear a guess is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PasswordCost {
    /// m = 19 MiB, t = 2, p = 1: OWASP's first choice for argon2id.
    pub const STANDARD: Self = Self { memory_kib: 19 * 1_024, passes: 2, lanes: 1 };

    fn hasher(self) -> Result<Argon2<'static>, AccessError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, None)
            .map_err(|e| AccessError::Hash(e.to_string()))?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// The PHC string to keep.
///
/// # Errors
/// [`AccessError::Hash`] for a password that is empty or too long, or a senseless cost.
pub fn hash(password: &str, cost: PasswordCost) -> Result<String, AccessError> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(AccessError::Hash(format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes")));
    }
    let hash: PasswordHash =
        cost.hasher()?.hash_password(password.as_bytes()).map_err(|e| AccessError::Hash(e.to_string()))?;
    Ok(hash.to_string())
}

/// Whether the password is the one behind `stored`. With `None` (nobody of that name) it does the
/// same work and says no, so that the time taken does not tell which names exist.
pub fn verify(password: &str, stored: Option<&str>, cost: PasswordCost) -> bool {
    if password.len() > PASSWORD_BYTES_MAX {
        return false;
    }
    let Ok(hasher) = cost.hasher() else { return false };
    match stored.map(PasswordHash::new) {
        Some(Ok(parsed)) => hasher.verify_password(password.as_bytes(), &parsed).is_ok(),
        Some(Err(_)) => false,
        None => {
            let mut out = [0; 32];
            std::hint::black_box(hasher.hash_password_into(password.as_bytes(), b"nobody-of-that-name", &mut out).ok());
            false
        }
    }
}

/// A readable random password of 100 bits in four groups: `k7m2q-x9abc-…`.
///
/// # Errors
/// [`AccessError::Random`] without random bytes.
pub fn first_run_password() -> Result<String, AccessError> {
    let bytes: [u8; 20] = random()?;
    let letters: Vec<char> = bytes.iter().map(|b| char::from(LETTERS[usize::from(b & 31)])).collect();
    let groups: Vec<String> = letters.chunks(5).map(|group| group.iter().collect()).collect();
    Ok(groups.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

    #[test]
    fn a_password_is_kept_as_argon2id_with_its_cost_and_own_salt() -> Result<(), AccessError> {
        let stored = hash("horse", PasswordCost::STANDARD)?;
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(hash("horse", CHEAP)?, hash("horse", CHEAP)?);
        Ok(())
    }

    #[test]
    fn only_the_right_password_verifies_whatever_the_cost_is_now() -> Result<(), AccessError> {
        let stored = hash("horse", CHEAP)?;
        let dearer = PasswordCost { memory_kib: 128, passes: 2, lanes: 1 };
        assert!(verify("horse", Some(&stored), dearer));
        for (password, stored) in [("hors", Some(stored.as_str())), ("horse", None), ("horse", Some("not a hash"))] {
            assert!(!verify(password, stored, CHEAP), "{password} {stored:?}");
        }
        assert!(!verify(&"x".repeat(PASSWORD_BYTES_MAX + 1), Some(&stored), CHEAP));
        Ok(())
    }

    #[test]
    fn a_password_of_no_or_too_many_bytes_is_refused() {
        assert!(hash("", CHEAP).is_err());
        assert!(hash(&"x".repeat(PASSWORD_BYTES_MAX + 1), CHEAP).is_err());
    }

    #[test]
    fn the_first_password_is_readable_and_never_the_same() -> Result<(), AccessError> {
        let password = first_run_password()?;
        assert_eq!(password.len(), 23);
        assert!(password.bytes().all(|b| b == b'-' || LETTERS.contains(&b)), "{password}");
        assert_ne!(password, first_run_password()?);
        Ok(())
    }
}
