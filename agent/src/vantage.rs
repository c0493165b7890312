//! Whether this host's own network is up: asked when a probe fails in a way that could be our fault.
//!
//! Reference targets (`[probing] references`, addresses of things that are never all down at once: the gateway, two
//! resolvers) are connected to, all together. An answer of any kind from any of them, a refusal too, proves that packets
//! come and go. None: the failures at hand are `vantage_down`, which is unknown, not down. One answer holds for
//! [`HOLDS`], so a hundred checks that fail together ask once.
//!
//! Limits: it proves the way to the references, not the one to the target; without references nothing is asked and failures stay
//! what they are. Names are not resolved here: a dead resolver must not look like a dead network.

use std::net::SocketAddr;
use std::time::Duration;

use peil_proto::sample::{FailureKind, Outcome};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

/// How long a verdict holds.
const HOLDS: Duration = Duration::from_secs(5);
/// Time a reference has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What the references said, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Up,
    Down,
}

/// See the [module](self). Shared by all probes.
pub struct Vantage {
    references: Vec<SocketAddr>,
    last: Mutex<Option<(Instant, Verdict)>>,
}

impl Vantage {
    /// Asks these.
    pub fn new(references: Vec<SocketAddr>) -> Self {
        Self { references, last: Mutex::new(None) }
    }

    /// What a probe's outcome becomes in the light of our own network: `vantage_down` when nothing at all can be reached.
    pub async fn judge(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Failed { kind, .. } if could_be_ours(kind) && self.is_down(Instant::now()).await => {
                Outcome::Failed { kind: FailureKind::VantageDown, code: 0 }
            }
            other => other,
        }
    }

    async fn is_down(&self, now: Instant) -> bool {
        if self.references.is_empty() {
            return false;
        }
        // Whoever comes while somebody asks waits for that answer.
        let mut last = self.last.lock().await;
        if let Some((at, verdict)) = *last
            && now.saturating_duration_since(at) < HOLDS
        {
            return verdict == Verdict::Down;
        }
        let verdict = self.ask().await;
        let before = last.map_or(Verdict::Up, |(_, verdict)| verdict);
        if verdict != before {
            match verdict {
                Verdict::Down => {
                    warn!(
                        references = self.references.len(),
                        "none of the reference targets answers: this host's own network is down, and failures are unknown"
                    );
                }
                Verdict::Up => info!("reference targets answer again"),
            }
        }
        *last = Some((now, verdict));
        verdict == Verdict::Down
    }

    async fn ask(&self) -> Verdict {
        let mut asked: JoinSet<bool> = self.references.iter().map(|address| answers(*address)).collect();
        while let Some(answered) = asked.join_next().await {
            if answered.unwrap_or(false) {
                return Verdict::Up;
            }
        }
        Verdict::Down
    }
}

/// Failures a dead network of our own would cause. A refusal or a wrong answer came from somewhere.
fn could_be_ours(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Timeout | FailureKind::Unreachable | FailureKind::Resolver | FailureKind::NoSuchName)
}

async fn answers(address: SocketAddr) -> bool {
    match timeout(ANSWER_MAX, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            matches!(error.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Outcome = Outcome::Failed { kind: FailureKind::Timeout, code: 0 };
    const DOWN: Outcome = Outcome::Failed { kind: FailureKind::VantageDown, code: 0 };

    /// A port of the loopback that nobody listens on: refused at once, which is an answer.
    async fn closed_port() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address")
    }

    /// Nothing can be sent there from here: the address is of a multicast group.
    fn unreachable() -> SocketAddr {
        "224.0.0.1:9".parse().expect("an address")
    }

    #[tokio::test]
    async fn f35_without_any_answer_failures_are_our_own_and_one_answer_is_enough() {
        let closed = closed_port().await;
        assert_eq!(Vantage::new(vec![unreachable()]).judge(TIMEOUT).await, DOWN);
        assert_eq!(Vantage::new(vec![unreachable(), closed]).judge(TIMEOUT).await, TIMEOUT, "refused is an answer");
        assert_eq!(Vantage::new(vec![]).judge(TIMEOUT).await, TIMEOUT, "nobody was asked");
    }

    #[tokio::test]
    async fn what_the_target_said_is_never_taken_for_our_own_trouble() {
        let vantage = Vantage::new(vec![unreachable()]);
        let refused = Outcome::Failed { kind: FailureKind::Refused, code: 0 };
        let status = Outcome::Failed { kind: FailureKind::Status, code: 503 };
        for outcome in [Outcome::Up { code: 200 }, refused, status] {
            assert_eq!(vantage.judge(outcome).await, outcome);
        }
    }

    #[tokio::test]
    async fn a_verdict_holds_for_a_while_and_is_asked_anew_after_it() {
        let vantage = Vantage::new(vec![unreachable()]);
        let start = Instant::now();
        let mut asked = Vec::new();
        for after in [Duration::ZERO, HOLDS - Duration::from_millis(1), HOLDS] {
            assert!(vantage.is_down(start + after).await);
            asked.push(vantage.last.lock().await.map(|(at, _)| at - start));
        }
        assert_eq!(asked, [Some(Duration::ZERO), Some(Duration::ZERO), Some(HOLDS)]);
    }
}
