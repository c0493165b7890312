//! The way to the collector, stage by stage as the uplink goes it: name, TCP, TLS with this host's certificate, its first
//! answer. No stream is opened: that would take the place of the running agent's.

use std::net::ToSocketAddrs as _;
use std::sync::Arc;

use peil_proto::time::WallClock;
use serde_json::Value;

use super::Finding;
use crate::config::Config;
use crate::enrol;
use crate::identity::{Identity, Standing};
use crate::recorder::Chain;
use crate::uplink::connect::{Timeouts, connect};

/// A clock further off than this puts samples beside their ticks.
const CLOCK_MAX_MS: u64 = 1_000;

pub(super) fn look(config: &Config, running: Option<&Value>, clock: &WallClock) -> Vec<Finding> {
    let mut findings = vec![name(&config.collector), time(running)];
    match Identity::load(&enrol::directory(&config.state_dir)) {
        Err(error) => {
            let remedy = "peil-collector token create on the collector, then peil-agent enroll --token-file - here";
            findings.push(Finding::bad("identity", Chain(&error).to_string(), remedy));
        }
        Ok(identity) => {
            findings.push(certificate(&identity, clock));
            findings.push(handshake(config, &identity, clock));
        }
    }
    findings
}

fn name(collector: &str) -> Finding {
    let authority = collector.trim_start_matches("https://");
    match authority.to_socket_addrs().map(Iterator::collect::<Vec<_>>) {
        Ok(addresses) if !addresses.is_empty() => {
            let words: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            Finding::good("dns", format!("{authority} is {}", words.join(", ")))
        }
        Ok(_) => Finding::bad(
            "dns",
            format!("{authority} has no address"),
            "correct `collector` in the settings, or the name in the DNS",
        ),
        Err(error) => Finding::bad(
            "dns",
            format!("{authority} cannot be looked up: {error}"),
            "correct `collector` in the settings, or /etc/resolv.conf",
        ),
    }
}

/// The offset is what the running agent saw when the collector welcomed it.
fn time(running: Option<&Value>) -> Finding {
    match running.and_then(|told| told["clock_ahead_ms"].as_i64()) {
        None => Finding::warning(
            "clock",
            "its offset is not known before the agent has been connected",
            "start the agent and look again",
        ),
        Some(ahead) if ahead.unsigned_abs() > CLOCK_MAX_MS => Finding::bad(
            "clock",
            format!("this host's clock is {ahead} ms ahead of the collector's"),
            "synchronise both (timedatectl set-ntp true, or chrony); samples carry this clock's time",
        ),
        Some(ahead) => Finding::good("clock", format!("{ahead} ms ahead of the collector's")),
    }
}

fn certificate(identity: &Identity, clock: &WallClock) -> Finding {
    let standing = identity.standing(clock.now());
    let found = format!("{}: {standing}", identity.agent());
    match standing {
        Standing::Good { .. } => Finding::good("identity", found),
        Standing::RenewDue { .. } => Finding::warning(
            "identity",
            found,
            "nothing while the agent is connected; if it stays so, see why it is not: peil-agent status",
        ),
        Standing::Expired { .. } => Finding::bad(
            "identity",
            found,
            "peil-agent enroll --again with a new token; what waits in the spool is kept",
        ),
        Standing::NotYet { .. } => Finding::bad("identity", found, "set the clock of this host"),
    }
}

fn handshake(config: &Config, identity: &Identity, clock: &WallClock) -> Finding {
    let tried = || -> anyhow::Result<()> {
        let tls = Arc::new(identity.client_config(clock)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connected = runtime.block_on(connect(&config.collector, tls, Timeouts::default()));
        // Name look-ups cannot be called back.
        runtime.shutdown_background();
        connected?;
        Ok(())
    };
    match tried() {
        Ok(()) => {
            Finding::good("collector", format!("{} accepts this host's certificate over TLS 1.3", config.collector))
        }
        Err(error) => Finding::bad(
            "collector",
            Chain(error.as_ref()).to_string(),
            "what the message says; records wait in the spool meanwhile",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_clock_that_is_off_is_bad_whichever_way_and_unknown_is_no_verdict() {
        let off = |ms: i64| time(Some(&json!({"clock_ahead_ms": ms}))).standing;
        assert_eq!(
            [off(-1_001), off(-1_000), off(1_000), off(1_001)],
            [Standing::Bad, Standing::Good, Standing::Good, Standing::Bad]
        );
        assert_eq!(time(None).standing, Standing::Warning);
    }

    #[test]
    fn a_name_nobody_knows_is_bad() {
        assert_eq!(name("https://127.0.0.1:7443").standing, Standing::Good);
        assert_eq!(name("https://nothing.invalid:7443").standing, Standing::Bad);
    }
}
