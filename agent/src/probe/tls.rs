//! `tls`: connects to `host:port`, shakes hands and judges the certificate. Options: `peil_proto::plan::Tls`.
//!
//! Up when the handshake ends well on our side, the version and one of the offered protocols are agreed, and the
//! certificate has enough days left. With TLS 1.3 a server that wants a client certificate says so only after our side
//! has finished, so such a server is up here; an `http` check sees the refusal.

use peil_proto::plan::{Family, Tls, TlsOptions, split_address};
use peil_proto::sample::FailureKind;

use super::certificate::too_short;
use super::dial::{Deadline, Endpoint, Session, dial};
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "tls",
    about: "connects, shakes hands and judges the certificate",
    example: "tls://mail.example.org:465",
    phases: &[Phase::Resolve, Phase::Connect, Phase::Tls],
};

pub(super) async fn run(check: &Tls, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.address.clone(), ..Hop::default() };
    let end = shake_hands(check, family, ctx, deadline, &mut hop).await;
    let end = end.and_then(|()| judge(&hop, &check.tls, ctx)).map(|()| 0);
    Observation::from_end(vec![hop], None, end)
}

async fn shake_hands(
    check: &Tls,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<(), Failure> {
    let Some((host, port)) = split_address(&check.address) else {
        return Err(Failure::unusable(format!("address {:?} is not host:port", check.address)));
    };
    let alpn = check.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    let session = Session::prepare(host, &check.tls, alpn, ctx)?;
    let stream = dial(Endpoint { host, port, family }, ctx, deadline, hop).await?;
    // The session is dropped right here: what counts is in `hop`.
    session.start(stream, deadline, hop).await?;
    let agreed = hop.tls.as_ref().and_then(|tls| tls.agreed.as_ref()).and_then(|agreed| agreed.alpn.as_ref());
    if check.alpn.is_empty() || agreed.is_some() {
        return Ok(());
    }
    Err(Failure::judged(FailureKind::Tls, format!("none of {} was agreed", check.alpn.join(", "))))
}

/// What must hold beside a handshake that ended well.
pub(super) fn judge(hop: &Hop, wanted: &TlsOptions, ctx: &ProbeContext) -> Result<(), Failure> {
    too_short(hop.tls.as_ref(), wanted, ctx.clock.now()).map_or(Ok(()), Err)
}
