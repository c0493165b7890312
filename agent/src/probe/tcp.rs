//! `tcp`: connects to `host:port`; up when the connection is accepted.
//!
//! Nothing is sent or read, so a port behind a proxy or load balancer that accepts for a dead backend is up
//! here. Deliberately absent (yet): a dialogue of send and expect.

use peil_proto::plan::{CheckKind, split_address};

use super::dial::{Deadline, Endpoint, dial};
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "tcp",
    about: "connects to host:port",
    example: "tcp://db.example.org:5432",
    phases: &[Phase::Resolve, Phase::Connect],
    read_target: |text| {
        let address = text.strip_prefix("tcp://").unwrap_or(text);
        split_address(address).map(|_| CheckKind::Tcp { address: address.to_owned() })
    },
};

pub(super) async fn run(address: &str, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: address.to_owned(), ..Hop::default() };
    let end = match split_address(address) {
        Some((host, port)) => dial(&Endpoint { host, port, tls: None }, ctx, deadline, &mut hop).await.map(|_| 0),
        None => Err(Failure::unusable(format!("address {address:?} is not host:port"))),
    };
    Observation::from_end(vec![hop], None, end)
}
