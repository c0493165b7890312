//! What both ends of a connection agree on before the first byte: the crypto provider and the clock.
//!
//! rustls can look for a process-wide default provider and reads the system clock by itself. Neither
//! happens here: every configuration names its provider through [`provider`], so a dependency that brings
//! another one changes nothing, and takes its time from a [`WallClock`], so a test can let a certificate
//! expire without waiting for it.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::time::WallClock;

/// HTTP/2, the only protocol between agent and collector.
pub const ALPN_H2: &[u8] = b"h2";

/// HTTP/1.1, which browsers and scripts may still choose.
pub const ALPN_HTTP_1_1: &[u8] = b"http/1.1";

/// The crypto provider of both programs: ring.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The time of day as rustls asks for it.
#[derive(Debug, Clone)]
pub struct TlsClock(pub WallClock);

impl TlsClock {
    /// A clock to hand to `builder_with_details`.
    pub fn shared(clock: &WallClock) -> Arc<dyn TimeProvider> {
        Arc::new(Self(clock.clone()))
    }
}

impl TimeProvider for TlsClock {
    /// `None` before 1970, which rustls answers by refusing the handshake.
    fn current_time(&self) -> Option<UnixTime> {
        let since_1970 = u64::try_from(self.0.now().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(since_1970)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UtcTime;

    #[test]
    fn the_clock_of_a_handshake_is_ours_to_set() {
        let clock = WallClock::manual(UtcTime(1_774_994_400_999));
        assert_eq!(TlsClock(clock.clone()).current_time().map(|t| t.as_secs()), Some(1_774_994_400));
        clock.set(UtcTime(-1));
        assert_eq!(TlsClock(clock).current_time(), None);
    }
}
