//! Reads what stands in a certificate. The bytes come from a stranger: whatever cannot be read is absent,
//! never an error that hides the rest. The fingerprint needs no reading and is always there.

use std::fmt::Write as _;
use std::net::IpAddr;

use data_encoding::HEXLOWER;
use peil_proto::time::UtcTime;
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Alternative names read from one certificate. The rest are counted, not shown: some certificates of content
/// networks hold hundreds.
const NAMES_MAX: usize = 100;

/// One certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 over its DER, in hexadecimal: what `openssl x509 -fingerprint -sha256` shows.
    pub sha256: String,
    /// What stands in it; `None` when it is not a certificate we can read.
    pub facts: Option<CertificateFacts>,
}

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Distinguished name it was given to.
    pub subject: String,
    /// Distinguished name of who signed it.
    pub issuer: String,
    /// Alternative names: DNS names and addresses as written, at most 100.
    pub names: Vec<String>,
    /// Names beyond those.
    pub names_left_out: usize,
    /// First moment at which it is valid.
    pub not_before: UtcTime,
    /// Last moment at which it is valid.
    pub not_after: UtcTime,
    /// Serial number in hexadecimal.
    pub serial: String,
}

impl Certificate {
    pub(super) fn read(der: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let facts = X509Certificate::from_der(der).ok().map(|(_, read)| CertificateFacts::of(&read));
        Self { sha256: HEXLOWER.encode(digest.as_ref()), facts }
    }
}

impl CertificateFacts {
    /// Whole days from `now` until its end, floored; negative once it has ended.
    pub fn days_left(&self, now: UtcTime) -> i64 {
        self.not_after.since(now).0.div_euclid(peil_proto::units::Millis::DAY.0)
    }

    fn of(read: &X509Certificate<'_>) -> Self {
        let names = match read.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.as_slice(),
            _ => &[],
        };
        let (not_before, not_after) = dates(read);
        Self {
            subject: read.subject().to_string(),
            issuer: read.issuer().to_string(),
            names: names.iter().take(NAMES_MAX).map(name_text).collect(),
            names_left_out: names.len().saturating_sub(NAMES_MAX),
            not_before,
            not_after,
            serial: HEXLOWER.encode(read.raw_serial()),
        }
    }
}

fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => (*text).to_owned(),
        GeneralName::IPAddress(bytes) => address_text(bytes),
        other => other.to_string(),
    }
}

fn address_text(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return IpAddr::from(v4).to_string();
    }
    if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        return IpAddr::from(v6).to_string();
    }
    bytes.iter().fold(String::from("address "), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// First and last moment of validity; `None` when the certificate cannot be read.
pub(super) fn validity(der: &CertificateDer<'_>) -> Option<(UtcTime, UtcTime)> {
    X509Certificate::from_der(der).ok().map(|(_, read)| dates(&read))
}

fn dates(read: &X509Certificate<'_>) -> (UtcTime, UtcTime) {
    let at = |secs: i64| UtcTime(secs.saturating_mul(1_000));
    (at(read.validity().not_before.timestamp()), at(read.validity().not_after.timestamp()))
}

/// That `now` lies within the validity of a certificate which rustls could not judge.
pub(super) fn valid_at(der: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let (from, until) = validity(der).ok_or(CertificateError::BadEncoding)?;
    let now = UtcTime(i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000));
    if now > until {
        return Err(CertificateError::Expired.into());
    }
    if now < from {
        return Err(CertificateError::NotValidYet.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_certificate_still_has_its_fingerprint() {
        let read = Certificate::read(&CertificateDer::from(vec![1, 2, 3]));
        assert_eq!(read.sha256, "039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81");
        assert_eq!(read.facts, None);
    }

    #[test]
    fn names_and_dates_are_read_as_written() {
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned(), "10.0.0.1".to_owned(), "::1".to_owned()])
            .expect("params");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x12, 0xab]));
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Peil");
        let key = rcgen::KeyPair::generate().expect("a key");
        let facts = Certificate::read(params.self_signed(&key).expect("a certificate").der()).facts.expect("readable");
        assert_eq!(facts.names, ["a.test", "10.0.0.1", "::1"]);
        assert_eq!(facts.not_before.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(facts.serial, "12ab");
        assert!(facts.subject.contains("O=Peil"), "{}", facts.subject);
        let at = |text: &str| UtcTime::parse(text).expect("a time");
        assert_eq!(facts.days_left(at("2026-03-30T12:00:00Z")), 1);
        assert_eq!(facts.days_left(at("2026-04-01T00:00:01Z")), -1);
    }

    #[test]
    fn a_certificate_is_valid_from_its_first_to_its_last_second() {
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).expect("params");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let der = params.self_signed(&key).expect("a certificate").der().clone();
        let at = |text: &str| {
            let millis = UtcTime::parse(text).expect("a time").0.unsigned_abs();
            valid_at(&der, UnixTime::since_unix_epoch(std::time::Duration::from_millis(millis)))
        };
        assert_eq!(at("2025-12-31T23:59:59Z"), Err(CertificateError::NotValidYet.into()));
        assert_eq!(at("2026-01-01T00:00:00Z"), Ok(()));
        assert_eq!(at("2026-04-01T00:00:00Z"), Ok(()));
        assert_eq!(at("2026-04-01T00:00:01Z"), Err(CertificateError::Expired.into()));
        let junk = valid_at(&CertificateDer::from(vec![1]), UnixTime::since_unix_epoch(std::time::Duration::ZERO));
        assert_eq!(junk, Err(CertificateError::BadEncoding.into()));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_whatever_make_reading_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            let read = Certificate::read(&CertificateDer::from(bytes));
            proptest::prop_assert_eq!(read.sha256.len(), 64);
        }

        #[test]
        fn a_damaged_certificate_makes_nothing_panic(at in 0_usize..400, value in proptest::num::u8::ANY) {
            let whole = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
            let mut bytes = whole.cert.der().to_vec();
            let at = at % bytes.len();
            bytes[at] = value;
            let der = CertificateDer::from(bytes);
            let _ = Certificate::read(&der);
            let _ = validity(&der);
        }
    }
}
