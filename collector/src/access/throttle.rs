//! Slows down guessing. Pure: time is an argument.
//!
//! Failures are counted per account and per address (an IPv6 /64 is one address). After a few free
//! tries every further failure doubles the wait. An address waits up to 15 minutes; an account at most
//! one minute, so that a stranger can make its owner wait but not lock them out. Counts are forgotten
//! an hour after the last failure, and at a success.
//!
//! In memory only: a restart forgets, and each collector counts for itself. Behind a proxy all clients
//! share the proxy's address; the wait per account still holds.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

/// Accounts and addresses remembered. When full the one that failed longest ago is forgotten.
pub const ENTRIES_MAX: usize = 10_000;

/// Without failures for this long the count starts anew.
const FORGET_AFTER: Millis = Millis::HOUR;

/// Longest name that is remembered as it is, bytes; longer ones share the entry of their beginning.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Account(String),
    Address(IpAddr),
}

impl Key {
    fn both(name: &str, peer: IpAddr) -> [Self; 2] {
        let end = name.floor_char_boundary(NAME_BYTES_MAX.min(name.len()));
        [Self::Account(name[..end].to_owned()), Self::Address(network(peer))]
    }

    /// Tries without waiting, and the longest wait after more.
    fn patience(&self) -> (u32, Millis) {
        match self {
            Self::Account(_) => (10, Millis::MINUTE),
            Self::Address(_) => (5, Millis(15 * Millis::MINUTE.0)),
        }
    }
}

/// Somebody with IPv6 has 2^64 addresses at hand.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: UtcTime,
}

/// Who failed how often.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: BTreeMap<Key, Failures>,
}

impl Throttle {
    /// How long this attempt must wait; zero when it may go on.
    pub fn wait(&self, name: &str, peer: IpAddr, now: UtcTime) -> Millis {
        let waits = Key::both(name, peer).into_iter().map(|key| {
            let Some(failed) = self.failures.get(&key) else { return Millis::ZERO };
            let (free, longest) = key.patience();
            let over = failed.count.saturating_sub(free);
            if over == 0 || now.since(failed.last) >= FORGET_AFTER {
                return Millis::ZERO;
            }
            let wait = Millis((Millis::SECOND.0 << over.min(20)).min(longest.0));
            failed.last.plus(wait).since(now)
        });
        waits.max().unwrap_or(Millis::ZERO).max(Millis::ZERO)
    }

    /// Counts a failure (before the outcome is known, so that a burst counts whole).
    pub fn failed(&mut self, name: &str, peer: IpAddr, now: UtcTime) {
        for key in Key::both(name, peer) {
            self.make_room(&key);
            let failed = self.failures.entry(key).or_insert(Failures { count: 0, last: now });
            let fresh = now.since(failed.last) >= FORGET_AFTER;
            *failed = Failures { count: if fresh { 1 } else { failed.count.saturating_add(1) }, last: now };
        }
    }

    /// Forgets the failures of this account and address.
    pub fn succeeded(&mut self, name: &str, peer: IpAddr) {
        for key in Key::both(name, peer) {
            self.failures.remove(&key);
        }
    }

    fn make_room(&mut self, key: &Key) {
        if self.failures.len() < ENTRIES_MAX || self.failures.contains_key(key) {
            return;
        }
        if let Some(oldest) = self.failures.iter().min_by_key(|(_, failed)| failed.last).map(|(key, _)| key.clone()) {
            self.failures.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UtcTime = UtcTime(1_000_000_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_wait_of_an_address_doubles_after_five_tries_up_to_fifteen_minutes() {
        let mut throttle = Throttle::default();
        let waits: Vec<i64> = (0..20)
            .map(|n| {
                throttle.failed(&format!("name{n}"), ip("192.0.2.1"), NOW);
                throttle.wait("other", ip("192.0.2.1"), NOW).0
            })
            .collect();
        assert_eq!(waits[..8], [0, 0, 0, 0, 0, 2_000, 4_000, 8_000]);
        assert_eq!(waits[19], 15 * 60_000);
        assert_eq!(throttle.wait("other", ip("192.0.2.2"), NOW), Millis::ZERO);
    }

    #[test]
    fn an_account_attacked_from_everywhere_waits_a_minute_at_most() {
        let mut throttle = Throttle::default();
        for n in 0..200 {
            throttle.failed("admin", ip(&format!("198.51.100.{n}")), NOW);
        }
        assert_eq!(throttle.wait("admin", ip("192.0.2.9"), NOW), Millis::MINUTE);
        assert_eq!(throttle.wait("admin", ip("192.0.2.9"), NOW.plus(Millis::MINUTE)), Millis::ZERO);
    }

    #[test]
    fn a_neighbour_in_the_same_ipv6_network_is_the_same_address() {
        let mut throttle = Throttle::default();
        for n in 0..9 {
            throttle.failed("x", ip(&format!("2001:db8::{n}")), NOW);
        }
        assert!(throttle.wait("y", ip("2001:db8::ffff"), NOW) > Millis::ZERO);
        assert_eq!(throttle.wait("y", ip("2001:db8:0:1::1"), NOW), Millis::ZERO);
    }

    #[test]
    fn success_and_an_hour_forget() {
        let mut throttle = Throttle::default();
        for _ in 0..9 {
            throttle.failed("x", ip("192.0.2.1"), NOW);
        }
        assert_eq!(throttle.wait("x", ip("192.0.2.1"), NOW.plus(FORGET_AFTER)), Millis::ZERO);
        throttle.succeeded("x", ip("192.0.2.1"));
        assert_eq!(throttle.wait("x", ip("192.0.2.1"), NOW), Millis::ZERO);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_failures_stay() {
        let mut throttle = Throttle::default();
        for n in 0..ENTRIES_MAX {
            let n = i64::try_from(n).expect("small");
            throttle.failed(&format!("{n}é{}", "x".repeat(200)), ip("192.0.2.1"), NOW.plus(Millis(n)));
        }
        throttle.failed("late", ip("192.0.2.1"), NOW.plus(Millis::HOUR));
        assert_eq!(throttle.failures.len(), ENTRIES_MAX);
        assert!(throttle.failures.contains_key(&Key::Account("late".to_owned())));
    }
}
