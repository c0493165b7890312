//! `tls`: connects to `host:port`, shakes hands and judges the certificate.
//!
//! Up when the handshake ends well on our side and the certificate has enough days left. With TLS 1.3 a
//! server that wants a client certificate says so only after our side has finished, so such a server is up
//! here; an `http` check sees the refusal. No ALPN is sent: the check is of the door, not of what is behind.

use peil_proto::plan::{CheckKind, split_address};

use super::certificate::too_short;
use super::dial::{Deadline, Endpoint, TlsWanted, dial};
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext, Trust};

pub(super) const KIND: Kind = Kind {
    name: "tls",
    about: "connects, shakes hands and judges the certificate",
    example: "tls://mail.example.org:465",
    phases: &[Phase::Resolve, Phase::Connect, Phase::Tls],
    read_target: |text| {
        let address = text.strip_prefix("tls://")?;
        let kind =
            CheckKind::Tls { address: address.to_owned(), server_name: None, ca_file: None, cert_days_min: None };
        split_address(address).map(|_| kind)
    },
};

pub(super) async fn run(
    address: &str,
    server_name: Option<&str>,
    trust: Trust<'_>,
    ctx: &ProbeContext,
    deadline: Deadline,
) -> Observation {
    let mut hop = Hop { target: address.to_owned(), ..Hop::default() };
    let end = match split_address(address) {
        Some((host, port)) => {
            let tls = TlsWanted { server_name: server_name.unwrap_or(host), ca_file: trust.ca_file, alpn: None };
            let endpoint = Endpoint { host, port, tls: Some(tls) };
            // The session is dropped right here: what counts is in `hop`.
            dial(&endpoint, ctx, deadline, &mut hop).await.map(drop)
        }
        None => Err(Failure::unusable(format!("address {address:?} is not host:port"))),
    };
    let end = end.and_then(|()| match too_short(hop.tls.as_ref(), trust.cert_days_min, ctx.clock.now()) {
        Some(failure) => Err(failure),
        None => Ok(0),
    });
    Observation::from_end(vec![hop], None, end)
}
