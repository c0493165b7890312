//! A signing request, reduced to the one thing we take from it: a public key whose holder made it.
//!
//! Subject, names and extensions a host asks for are ignored, not refused: what a certificate says is
//! decided here. Accepted keys are those both ends can verify in a handshake: ECDSA on P-256 and P-384,
//! Ed25519, RSA of 2048 to 8192 bits.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509;

/// Largest request read: RSA 8192 with a full subject has 2.5 kB. A larger one is refused unread.
pub const CSR_BYTES_MAX: usize = 16 << 10;

const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_ED25519: &str = "1.3.101.112";
const OID_EC: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";

/// Why a request is not signed. Shown to the person who enrols.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Over [`CSR_BYTES_MAX`].
    #[error("the signing request has {0} bytes; {CSR_BYTES_MAX} is the most")]
    TooLarge(usize),
    /// Not DER, or something behind it.
    #[error("the signing request is not a PKCS#10 request in DER form")]
    Unreadable,
    /// The maker does not hold the key, or the request was changed on its way.
    #[error("the signing request is not signed by the key it contains")]
    NotItsKey,
    /// Too short, too long.
    #[error("an RSA key of {0} bits is not accepted: use ECDSA P-256, or RSA of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")]
    RsaSize(usize),
    /// DSA, P-521, SM2, something new.
    #[error(
        "keys of this kind ({0}) are not accepted: use ECDSA P-256 or P-384, Ed25519, or RSA of {RSA_BITS_MIN} bits or more"
    )]
    KeyKind(String),
}

/// The key to certify.
pub(super) fn public_key_of(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, RequestError> {
    if csr_der.len() > CSR_BYTES_MAX {
        return Err(RequestError::TooLarge(csr_der.len()));
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(csr_der) else {
        return Err(RequestError::Unreadable);
    };
    let key = &request.certification_request_info.subject_pki;
    // The kind first: its message says what to do, whereas a weak key merely fails to verify.
    check_kind(key)?;
    request.verify_signature().map_err(|_| RequestError::NotItsKey)?;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| RequestError::KeyKind(key.algorithm.algorithm.to_id_string()))
}

fn check_kind(key: &x509::SubjectPublicKeyInfo<'_>) -> Result<(), RequestError> {
    match key.algorithm.algorithm.to_id_string().as_str() {
        OID_ED25519 => Ok(()),
        OID_EC => check_curve(key),
        OID_RSA => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&rsa.key_size()) => Ok(()),
            Ok(PublicKey::RSA(rsa)) => Err(RequestError::RsaSize(rsa.key_size())),
            _ => Err(RequestError::Unreadable),
        },
        other => Err(RequestError::KeyKind(other.to_owned())),
    }
}

fn check_curve(key: &x509::SubjectPublicKeyInfo<'_>) -> Result<(), RequestError> {
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
    match curve.as_deref() {
        Some(OID_P256 | OID_P384) => Ok(()),
        Some(other) => Err(RequestError::KeyKind(format!("elliptic curve {other}"))),
        None => Err(RequestError::KeyKind("elliptic curve without a name".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::new(["i.would.like.to.be.root".to_owned()])
            .unwrap()
            .serialize_request(key)
            .unwrap()
            .der()
            .to_vec()
    }

    /// DER of a SubjectPublicKeyInfo, put together by hand: ring makes no RSA keys to test with.
    fn rsa_key_info(bits: usize) -> Vec<u8> {
        let tlv = |tag: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&[tag, 0x82], &length[..], body].concat()
        };
        let mut modulus = vec![0xff; bits / 8];
        modulus.insert(0, 0);
        let key = tlv(0x30, &[tlv(0x02, &modulus), vec![0x02, 3, 1, 0, 1]].concat());
        let algorithm = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
        let key = [&[0][..], &key].concat();
        tlv(0x30, &[&algorithm[..], &tlv(0x03, &key)].concat())
    }

    #[test]
    fn the_key_of_a_request_is_the_key_that_made_it() {
        for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(kind).unwrap();
            let taken = public_key_of(&request(&key)).unwrap();
            assert_eq!(taken.der_bytes(), key.public_key_raw());
        }
    }

    #[test]
    fn a_request_with_somebody_elses_key_is_refused() {
        let (mine, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut forged = request(&mine);
        let at = forged.windows(65).position(|w| w == mine.public_key_raw()).unwrap();
        forged[at..at + 65].copy_from_slice(theirs.public_key_raw());
        assert_eq!(public_key_of(&forged), Err(RequestError::NotItsKey));
    }

    #[test]
    fn a_weak_or_strange_key_is_refused_with_what_to_use() {
        for (bits, answer) in [
            (1024, Err(RequestError::RsaSize(1024))),
            (2048, Ok(())),
            (8192, Ok(())),
            (16_384, Err(RequestError::RsaSize(16_384))),
        ] {
            let der = rsa_key_info(bits);
            let (_, key) = x509::SubjectPublicKeyInfo::from_der(&der).unwrap();
            assert_eq!(check_kind(&key), answer);
        }
        // id-dsa instead of rsaEncryption.
        let mut der = rsa_key_info(2048);
        let at = der.windows(3).position(|w| w == [6, 9, 0x2a]).unwrap();
        der[at + 10] = 9;
        let (_, key) = x509::SubjectPublicKeyInfo::from_der(&der).unwrap();
        let refused = check_kind(&key).unwrap_err().to_string();
        assert!(refused.contains("ECDSA P-256"), "{refused}");
    }

    #[test]
    fn more_than_a_request_is_refused() {
        let mut der = request(&KeyPair::generate().unwrap());
        der.push(0);
        assert_eq!(public_key_of(&der), Err(RequestError::Unreadable));
        assert_eq!(public_key_of(&vec![0x30; CSR_BYTES_MAX + 1]), Err(RequestError::TooLarge(CSR_BYTES_MAX + 1)));
    }

    proptest! {
        #[test]
        fn no_changed_byte_gets_a_request_signed_for_another_key(at: prop::sample::Index, flip in 1_u8..) {
            let key = KeyPair::generate().unwrap();
            let mut der = request(&key);
            let at = at.index(der.len());
            der[at] ^= flip;
            if let Ok(taken) = public_key_of(&der) {
                prop_assert_eq!(taken.der_bytes(), key.public_key_raw());
            }
        }
    }
}
