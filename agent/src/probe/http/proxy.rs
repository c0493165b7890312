//! The way out through an HTTP proxy: reach it, and for `https` have it dig a tunnel (CONNECT, RFC 9110 §9.3.6).
//!
//! What goes wrong up to and at the proxy is this host's way out and not the target ([`FailureKind::VantageDown`],
//! [`FailureKind::Permission`]); only a proxy that says it could not reach the target speaks about the target.

use peil_proto::plan::{Family, split_address};
use peil_proto::sample::FailureKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::dial::{CONNECT_MAX, Deadline, Endpoint, Stream, dial};
use super::super::location::Location;
use super::super::{Failure, Hop, Phase, ProbeContext};
use super::request::Asking;

/// Bytes of the proxy's answer to CONNECT.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Connects to the proxy.
pub(super) async fn reach(
    proxy: &str,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<Stream, Failure> {
    let address = proxy.strip_prefix("http://").unwrap_or(proxy).trim_end_matches('/');
    let Some((host, port)) = split_address(address) else {
        return Err(Failure::unusable("the proxy is not http://host:port"));
    };
    dial(Endpoint { host, port, family }, ctx, deadline, hop).await.map_err(|failure| {
        let kind = if failure.kind.is_about_target() { FailureKind::VantageDown } else { failure.kind };
        Failure { kind, text: format!("proxy: {}", failure.text), ..failure }
    })
}

/// Has the proxy connect to the target.
pub(super) async fn tunnel(
    mut stream: Stream,
    to: &Location,
    asking: &Asking,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<Stream, Failure> {
    let authority =
        format!("{}:{}", if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() }, to.port);
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(value) = asking.proxy_authorization() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let dig = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        read_head(&mut stream).await
    };
    let (took, answer) = deadline.within(CONNECT_MAX, dig).await;
    hop.phases.connect = hop.phases.connect.map(|before| before.saturating_add(took));
    let fail = |kind, text: String| Err(Failure::during(Phase::Connect, kind, text));
    match answer.transpose().map(Option::flatten) {
        Ok(Some(200..=299)) => Ok(stream),
        Ok(Some(status @ 502..=504)) => {
            fail(FailureKind::Unreachable, format!("the proxy could not reach {authority}: status {status}"))
        }
        Ok(Some(status)) => fail(FailureKind::Permission, format!("the proxy refuses: status {status}")),
        Ok(None) => fail(FailureKind::VantageDown, "the proxy did not answer as one".to_owned()),
        Err(error) => fail(FailureKind::VantageDown, format!("proxy: {error}")),
    }
}

/// The status of the answer; byte by byte, so that nothing of what follows in the tunnel is taken.
async fn read_head(stream: &mut Stream) -> std::io::Result<Option<u16>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Ok(None);
        }
        head.push(stream.read_u8().await?);
    }
    Ok(status_of(&head))
}

/// The status in `HTTP/1.x NNN …`.
fn status_of(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_proxy_is_read_or_not_there() {
        assert_eq!(status_of(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status_of(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        for junk in [&b""[..], b"HTTP/1.1 ", b"HTTP/1.1 2x0", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 -20"] {
            assert_eq!(status_of(junk), None);
        }
    }
}
