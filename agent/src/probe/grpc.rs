//! `grpc`: asks `grpc.health.v1.Health` for a service; up when it is SERVING. Options: `peil_proto::plan::Grpc`.
//!
//! Spoken on our own HTTP/2 connection (`http::open`) and not by a client library, so that phases, certificate facts and
//! the address policy are those of every kind. The two messages have one field each; they are read and written here.
//! `watch` judges the first message of the stream and hangs up.

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::{Request, Response, Version};
use peil_proto::plan::{Family, Grpc, GrpcCall, split_address};
use peil_proto::sample::FailureKind;

use super::dial::{Deadline, Endpoint, Session, dial};
use super::dialogue::for_people;
use super::http::{Trouble, Watch, open};
use super::tls::judge;
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "grpc",
    about: "asks a gRPC service for its health",
    example: "grpc://api.example.org:443",
    phases: &Phase::ALL,
};

/// Bytes of an answer: its message has one number.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

pub(super) async fn run(check: &Grpc, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.address.clone(), ..Hop::default() };
    let end = ask(check, family, ctx, deadline, &mut hop).await;
    let end = end.and_then(|()| judge(&hop, &check.tls, ctx)).map(|()| 0);
    Observation::from_end(vec![hop], None, end)
}

async fn ask(
    check: &Grpc,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<(), Failure> {
    let Some((host, port)) = split_address(&check.address) else {
        return Err(Failure::unusable(format!("address {:?} is not host:port", check.address)));
    };
    let request = request(check, ctx)?;
    let session = match check.plaintext {
        true => None,
        false => Some(Session::prepare(host, &check.tls, vec![b"h2".to_vec()], ctx)?),
    };
    let mut stream = dial(Endpoint { host, port, family }, ctx, deadline, hop).await?;
    if let Some(session) = session {
        stream = session.start(stream, deadline, hop).await?;
    }
    let watch = Watch::start();
    let exchange = async {
        let (mut sender, mut driver) = open(stream, true, &watch).await?;
        let response = driver.beside(sender.send(request)).await?;
        watch.head_came();
        driver.beside(answer(response, hop)).await
    };
    let end = deadline.allows(exchange).await;
    let phase = watch.note(hop);
    match end {
        Some(end) => end.map_err(|trouble| trouble.into_failure(phase)),
        None => Err(Failure::during(phase, FailureKind::Timeout, "the call did not end")),
    }
}

fn request(check: &Grpc, ctx: &ProbeContext) -> Result<Request<Full<Bytes>>, Failure> {
    let unusable = |error: String| Failure::unusable(format!("cannot call {}: {error}", check.address));
    let method = match check.call {
        GrpcCall::Check => "Check",
        GrpcCall::Watch => "Watch",
    };
    let scheme = if check.plaintext { "http" } else { "https" };
    let mut request = Request::post(format!("{scheme}://{}/grpc.health.v1.Health/{method}", check.address))
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, concat!("peil-agent/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(question(&check.service)))
        .map_err(|error| unusable(error.to_string()))?;
    if let Some(secret) = &check.bearer_file {
        let token = [b"Bearer ", ctx.secrets.read(secret)?.bytes()].concat();
        let mut value = HeaderValue::from_bytes(&token)
            .map_err(|_| Failure::unusable("the token of bearer_file cannot be sent"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

/// `HealthCheckRequest { service }` in its frame: a flag (not compressed), four bytes of length, the message.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, a string; its length in at most two bytes (problems() bounds it).
        message.put_u8(0x0a);
        let length = service.len();
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        match u8::try_from(length >> 7).unwrap_or(0) {
            0 => message.put_u8(low),
            high => message.put_slice(&[low | 0x80, high]),
        }
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(0));
    frame.put_slice(&message);
    frame.freeze()
}

async fn answer(response: Response<Incoming>, hop: &mut Hop) -> Result<(), Trouble> {
    let status = response.status().as_u16();
    let fail = |kind, text: String| Err(Trouble::Judged(Failure::judged(kind, text)));
    if status != 200 {
        hop.status = Some(status);
        return fail(FailureKind::Status, format!("the server answers with status {status} of HTTP"));
    }
    let grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if !response.headers().get(CONTENT_TYPE).is_some_and(grpc) {
        return fail(FailureKind::Protocol, "the answer is not gRPC".to_owned());
    }
    judge_status(response.headers(), hop).map_err(Trouble::Judged)?;
    let mut body = response.into_body();
    let mut inbox = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        if let Some(trailers) = frame.trailers_ref() {
            judge_status(trailers, hop).map_err(Trouble::Judged)?;
            continue;
        }
        inbox.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        match first_message(&inbox) {
            Ok(Some(message)) => return judge_health(message).map_err(Trouble::Judged),
            Ok(None) => {}
            Err(why) => return fail(FailureKind::Protocol, why.to_owned()),
        }
    }
    fail(FailureKind::Protocol, "the answer has no message".to_owned())
}

/// The status of the call, when it is in these headers or trailers and not OK.
fn judge_status(headers: &HeaderMap, hop: &mut Hop) -> Result<(), Failure> {
    let Some(status) = headers.get("grpc-status") else { return Ok(()) };
    let code = std::str::from_utf8(status.as_bytes()).ok().and_then(|text| text.parse::<u16>().ok());
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            hop.status = Some(code);
            let message = headers.get("grpc-message").map(|text| for_people(text.as_bytes())).unwrap_or_default();
            Err(Failure::judged(FailureKind::Status, format!("the call ends with status {code} {message}")))
        }
        None => Err(Failure::judged(FailureKind::Protocol, "the status of the call is not a number")),
    }
}

/// The first message in `bytes`; `None` while it is not whole.
fn first_message(bytes: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let Some(head) = bytes.get(..5) else { return Ok(None) };
    if head[0] != 0 {
        return Err("the answer is compressed although nobody asked for that");
    }
    let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).unwrap_or(usize::MAX);
    if length > ANSWER_BYTES_MAX {
        return Err("the answer is longer than an answer about health");
    }
    Ok(bytes.get(5..5 + length))
}

fn judge_health(message: &[u8]) -> Result<(), Failure> {
    match serving_status(message) {
        Some(SERVING) => Ok(()),
        Some(status) => {
            let word = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
            let word = usize::try_from(status).ok().and_then(|at| word.get(at)).copied().unwrap_or("a new word");
            Err(Failure::judged(FailureKind::Status, format!("the service says {word} ({status})")))
        }
        None => Err(Failure::judged(FailureKind::Protocol, "the answer is not about health")),
    }
}

/// Field 1 of a `HealthCheckResponse`: 0 when it is absent, `None` when the bytes are no such message.
fn serving_status(message: &[u8]) -> Option<u64> {
    let Some((tag, rest)) = message.split_first() else { return Some(0) };
    if *tag != 0x08 {
        return None;
    }
    let mut value = 0_u64;
    for (position, byte) in rest.iter().take(10).enumerate() {
        let shift = u32::try_from(position).ok()? * 7;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_framed_and_their_lengths_are_right() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("abc")[..], b"\0\0\0\0\x05\x0a\x03abc");
        let long = question(&"x".repeat(300));
        assert_eq!(&long[..8], b"\0\0\0\x01\x2f\x0a\xac\x02");
        assert_eq!(long.len(), 308);
    }

    #[test]
    fn health_is_read_from_its_message() {
        assert_eq!(first_message(b"\0\0\0\0\x02\x08\x01"), Ok(Some(&b"\x08\x01"[..])));
        assert_eq!(serving_status(b"\x08\x01"), Some(1));
        assert_eq!(serving_status(b""), Some(0), "a number at its default is not written");
        assert_eq!(serving_status(b"\x12\x01x"), None);
        assert_eq!(first_message(b"\0\0\0\0\x02\x08"), Ok(None));
        assert!(first_message(b"\x01\0\0\0\0").is_err() && first_message(b"\0\xff\0\0\0").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = serving_status(&bytes);
            if let Ok(Some(message)) = first_message(&bytes) {
                let _ = judge_health(message);
            }
        }
    }
}
