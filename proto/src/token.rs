//! The enrolment token: the one string an operator carries from the collector to a new host.
//!
//! `peil1.<secret>.<authority>`: 160 random bits the collector knows only as a hash, and the SHA-256 of
//! the authority's certificate (DER), both base64url without padding. The secret lets the host in once;
//! the fingerprint lets the host know the collector before it has any certificate of its own, so a
//! stranger in between can neither read the secret nor hand out an identity.
//!
//! Assumes the caller supplies the random bytes (this crate reads no randomness) and stores
//! [`TokenSecret::hash`], never the secret. A plain SHA-256 is enough there: 160 random bits cannot be
//! guessed, so a slow hash would protect nothing.
//!
//! Deliberately absent: expiry, use count and host group. Those are facts the collector keeps with the
//! hash; a token that carried them would have to be signed to be believed.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;

/// Random bytes in the secret part: 160 bits.
pub const SECRET_BYTES: usize = 20;

/// A token of this version begins so. Another number is another format and is refused by name.
const VERSION: &str = "peil1";

/// Longest text looked at; a real token has 77 characters. Longer input is refused unread.
const TEXT_BYTES_MAX: usize = 256;

/// The whole token. `Display` and `Debug` hide the secret; only [`Token::reveal`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What the host proves to the collector.
    pub secret: TokenSecret,
    /// What the collector proves to the host.
    pub authority: CaFingerprint,
}

/// The secret part, as it travels in `EnrolRequest.token`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; SECRET_BYTES]);

/// SHA-256 of a certificate authority's certificate in DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaFingerprint(pub [u8; 32]);

/// Why a text is not a token. Never repeats the text: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else was pasted.
    #[error("this is not an enrolment token: a token begins with \"peil1.\"")]
    NotAToken,
    /// Made by a collector that speaks a later format.
    #[error(
        "this token has another version than this program knows (\"peil1\"): use the agent that belongs to the collector"
    )]
    OtherVersion,
    /// Cut while copying, or with something behind it.
    #[error(
        "this token is not complete: it has three parts separated by dots, 77 characters in all; copy it again as a whole"
    )]
    Incomplete,
    /// A character that base64url does not have, or the wrong one at the end.
    #[error("the {0} of this token is damaged; copy the token again as a whole")]
    Damaged(Part),
}

/// A part of the token, for the error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The middle part.
    Secret,
    /// The last part.
    Fingerprint,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "secret (second part)",
            Self::Fingerprint => "fingerprint (third part)",
        })
    }
}

impl Token {
    /// A token from 20 fresh random bytes and the authority it is for.
    pub fn make(random: [u8; SECRET_BYTES], authority: CaFingerprint) -> Self {
        Self { secret: TokenSecret(random), authority }
    }

    /// Reads what [`Token::reveal`] wrote; white space around it is forgiven, nothing else is.
    ///
    /// # Errors
    /// [`TokenError`] says which part is wrong and what to do.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::NotAToken);
        }
        let mut parts = text.split('.');
        match parts.next() {
            Some(VERSION) => {}
            Some(other) if is_a_version(other) => return Err(TokenError::OtherVersion),
            _ => return Err(TokenError::NotAToken),
        }
        let (Some(secret), Some(authority), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Incomplete);
        };
        Ok(Self {
            secret: TokenSecret(decode(secret, Part::Secret)?),
            authority: CaFingerprint(decode(authority, Part::Fingerprint)?),
        })
    }

    /// What the collector keeps instead of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        self.secret.hash()
    }

    /// The token in clear: for the operator's eyes, once, and for nothing that is logged or stored.
    pub fn reveal(&self) -> String {
        format!("{VERSION}.{}.{}", self.secret.reveal(), self.authority.to_base64())
    }
}

impl TokenSecret {
    /// Reads the secret part alone, as it arrives in `EnrolRequest.token`.
    ///
    /// # Errors
    /// [`TokenError::Incomplete`] or [`TokenError::Damaged`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        decode(text, Part::Secret).map(Self)
    }

    /// SHA-256 of the 20 bytes.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.0)
    }

    /// The secret in clear, for the wire.
    pub fn reveal(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }
}

impl CaFingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate_der: &[u8]) -> Self {
        Self(sha256(certificate_der))
    }

    /// Reads the hex that `Display` writes.
    pub fn parse(hex: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    fn to_base64(self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }
}

/// Lower-case hex, as other tools print a SHA-256 fingerprint.
impl fmt::Display for CaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}.(secret).{}", self.authority.to_base64())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(hidden)")
    }
}

fn is_a_version(text: &str) -> bool {
    text.strip_prefix("peil").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn decode<const N: usize>(text: &str, part: Part) -> Result<[u8; N], TokenError> {
    if text.len() != BASE64URL_NOPAD.encode_len(N) {
        return Err(TokenError::Incomplete);
    }
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| TokenError::Damaged(part))?;
    bytes.try_into().map_err(|_| TokenError::Damaged(part))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> Token {
        Token::make([0xfb; SECRET_BYTES], CaFingerprint::of(b"an authority"))
    }

    #[test]
    fn a_token_shows_its_secret_only_when_asked() {
        let token = token();
        let secret = token.secret.reveal();
        assert_eq!(token.reveal().len(), 77);
        assert!(token.reveal().contains(&secret));
        for shown in [token.to_string(), format!("{token:?}"), format!("{:?}", token.secret)] {
            assert!(!shown.contains(&secret), "{shown} shows the secret");
        }
    }

    #[test]
    fn the_hash_of_the_wire_part_is_the_hash_of_the_token() {
        let token = token();
        assert_eq!(TokenSecret::parse(&token.secret.reveal()).map(|s| s.hash()), Ok(token.secret_hash()));
        assert_ne!(token.secret_hash(), Token::make([0xfa; SECRET_BYTES], token.authority).secret_hash());
    }

    #[test]
    fn a_fingerprint_is_the_sha_256_other_tools_print() {
        // The digest of "abc" from FIPS 180-2.
        assert_eq!(
            CaFingerprint::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_wrong_text_is_refused_with_what_is_wrong() {
        let good = token().reveal();
        let (head, _) = good.rsplit_once('.').unwrap();
        let cases = [
            (String::new(), TokenError::NotAToken),
            ("https://collector.example".to_owned(), TokenError::NotAToken),
            ("x".repeat(10_000), TokenError::NotAToken),
            (good.replace("peil1", "peil2"), TokenError::OtherVersion),
            ("peil1".to_owned(), TokenError::Incomplete),
            (head.to_owned(), TokenError::Incomplete),
            (good[..good.len() - 1].to_owned(), TokenError::Incomplete),
            (format!("{good}.more"), TokenError::Incomplete),
            (good.replacen("peil1.-", "peil1.+", 1), TokenError::Damaged(Part::Secret)),
            (format!("{}!", &good[..good.len() - 1]), TokenError::Damaged(Part::Fingerprint)),
        ];
        for (text, wrong) in cases {
            assert_eq!(Token::parse(&text), Err(wrong), "{text}");
            assert!(text.is_empty() || !wrong.to_string().contains(&text), "the message repeats the text");
        }
    }

    proptest! {
        #[test]
        fn a_token_reads_back_as_it_was_made(secret: [u8; SECRET_BYTES], ca: [u8; 32]) {
            let token = Token::make(secret, CaFingerprint(ca));
            prop_assert_eq!(Token::parse(&format!("  {}\n", token.reveal())), Ok(token));
        }

        #[test]
        fn two_texts_are_never_the_same_token(secret: [u8; SECRET_BYTES], at in 6_usize..77, with in "[A-Za-z0-9_-]") {
            let token = Token::make(secret, CaFingerprint(*b"0123456789abcdef0123456789abcdef"));
            let good = token.reveal();
            let other = format!("{}{with}{}", &good[..at], &good[at + 1..]);
            prop_assume!(other != good);
            prop_assert_ne!(Token::parse(&other), Ok(token));
        }

        #[test]
        fn any_text_is_harmless(text: String) {
            let _ = Token::parse(&text);
        }
    }
}
