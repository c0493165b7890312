//! SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding, as a client. No SASLprep: passwords outside ASCII must
//! be in the form the server has (they nearly always are).

use std::num::NonZeroU32;

use data_encoding::BASE64;
use ring::{digest, hmac, pbkdf2};

use super::message;

/// Rounds of hashing we do at most: PostgreSQL's standard is 4096; a server must not make us work for minutes.
const ROUNDS_MAX: u32 = 100_000;

/// A log-in under way.
pub(super) struct Scram {
    password: Vec<u8>,
    nonce: String,
    expected: Option<Vec<u8>>,
}

impl Scram {
    /// Begins when the server offers it. `offered`: names, each with a zero behind it.
    pub(super) fn begin(offered: &[u8], password: &[u8]) -> Result<Self, &'static str> {
        if !offered.split(|byte| *byte == 0).any(|name| name == b"SCRAM-SHA-256") {
            return Err("the server does not offer SCRAM-SHA-256");
        }
        let mut nonce = [0; 18];
        getrandom::fill(&mut nonce).map_err(|_| "no random number")?;
        Ok(Self { password: password.to_vec(), nonce: BASE64.encode(&nonce), expected: None })
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    pub(super) fn first_message(&self) -> Vec<u8> {
        let text = format!("n,,{}", self.first_bare());
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
        message::of(b'p', &[b"SCRAM-SHA-256\0", &length[..], text.as_bytes()].concat())
    }

    /// The proof that we know the password, for what the server said.
    pub(super) fn answer(&mut self, server_first: &[u8]) -> Result<Vec<u8>, &'static str> {
        const BROKEN: &str = "the server's part of the log-in cannot be read";
        let text = std::str::from_utf8(server_first).map_err(|_| BROKEN)?;
        let part = |name: &str| text.split(',').find_map(|part| part.strip_prefix(name)).ok_or(BROKEN);
        let (nonce, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's part of the log-in is not an answer to ours");
        }
        let salt = BASE64.decode(salt.as_bytes()).map_err(|_| BROKEN)?;
        let rounds: u32 = rounds.parse().map_err(|_| BROKEN)?;
        let rounds = NonZeroU32::new(rounds).filter(|rounds| rounds.get() <= ROUNDS_MAX).ok_or(BROKEN)?;
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, &self.password, &mut salted);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{text},{without_proof}", self.first_bare());
        let client_key = sign(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, client_key.as_ref());
        let signature = sign(stored.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = sign(&salted, b"Server Key");
        self.expected = Some(sign(server_key.as_ref(), signed.as_bytes()).as_ref().to_vec());
        Ok(message::of(b'p', format!("{without_proof},p={}", BASE64.encode(&proof)).as_bytes()))
    }

    /// Whether the server knows the password too.
    pub(super) fn verify(&self, server_final: &[u8]) -> Result<(), &'static str> {
        let proof = server_final.strip_prefix(b"v=").and_then(|proof| BASE64.decode(proof).ok());
        if proof.is_some() && proof == self.expected {
            Ok(())
        } else {
            Err("the server does not prove that it knows the password")
        }
    }
}

fn sign(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 §3, with the user name that PostgreSQL leaves out put back.
    #[test]
    fn the_example_of_the_standard_comes_out() {
        let client_first = "n=user,r=rOprNGfwEbeRWgbNEkqO";
        let server_first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let mut salted = [0; 32];
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let rounds = NonZeroU32::new(4096).expect("not zero");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, b"pencil", &mut salted);
        let signed =
            format!("{client_first},{server_first},c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        let server_key = sign(&salted, b"Server Key");
        let expected = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(BASE64.encode(sign(server_key.as_ref(), signed.as_bytes()).as_ref()), expected);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_of_a_server_are_answered_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let mut scram = Scram { password: b"x".to_vec(), nonce: "n".to_owned(), expected: None };
            let _ = (scram.answer(&bytes), scram.verify(&bytes));
            let _ = Scram::begin(&bytes, b"x");
            let near = [b"r=nx,i=1,s=", bytes.as_slice()].concat();
            let _ = scram.answer(&near);
        }
    }
}
