//! `websocket`: opens a WebSocket; up when the server agrees and, when asked, its first message matches. Options:
//! `peil_proto::plan::WebSocket`.
//!
//! HTTP/1.1 only, no extensions (a server that uses one anyway is a `protocol` failure), no redirects. Pings that come
//! before the message are answered. What is read before the message: at most [`INBOX_BYTES_MAX`].

mod frame;

use data_encoding::BASE64;
use peil_proto::plan::{Family, WebSocket};
use peil_proto::sample::FailureKind;

use super::dial::{Deadline, Endpoint, Session, dial};
use super::dialogue::for_people;
use super::location::Location;
use super::talk::{Talk, Trouble};
use super::tls::judge;
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext};
use frame::{MESSAGE_BYTES_MAX, Opcode};

pub(super) const KIND: Kind = Kind {
    name: "websocket",
    about: "opens a WebSocket and expects a message",
    example: "wss://chat.example.org/socket",
    phases: &Phase::ALL,
};

/// Bytes of the answer to the handshake.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of it.
const HEADERS_MAX: usize = 64;
/// Frames looked at before the message: pings and pieces.
const FRAMES_MAX: usize = 100;
/// Bytes held at once.
const INBOX_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// What RFC 6455 has a server put behind our key before it hashes it.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(super) async fn run(check: &WebSocket, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.url.clone(), ..Hop::default() };
    let end = open(check, family, ctx, deadline, &mut hop).await;
    let end = end.and_then(|()| judge(&hop, &check.tls, ctx)).map(|()| 0);
    Observation::from_end(vec![hop], None, end)
}

async fn open(
    check: &WebSocket,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<(), Failure> {
    let url = check.http_url().ok_or_else(|| Failure::unusable("the URL must begin with ws:// or wss://"))?;
    let to = Location::parse(&url).map_err(|why| Failure::unusable(format!("the URL {why}")))?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| Failure::unusable(format!("no random number: {error}")))?;
    let key = BASE64.encode(&nonce);
    let request = request(check, &to, &key, ctx)?;
    let session = || Session::prepare(&to.host, &check.tls, vec![b"http/1.1".to_vec()], ctx);
    let session = to.secure.then(session).transpose()?;
    let mut stream = dial(Endpoint { host: &to.host, port: to.port, family }, ctx, deadline, hop).await?;
    if let Some(session) = session {
        stream = session.start(stream, deadline, hop).await?;
    }
    let mut talk = Talk::on(stream);
    let mut status = None;
    let end = deadline.allows(converse(check, &mut talk, &request, &key, &mut status)).await;
    let phase = talk.note(hop);
    hop.status = status;
    end.unwrap_or_else(|| Err(Trouble::timeout())).map_err(|trouble| trouble.during(phase))
}

fn request(check: &WebSocket, to: &Location, key: &str, ctx: &ProbeContext) -> Result<Vec<u8>, Failure> {
    let agent = concat!("peil-agent/", env!("CARGO_PKG_VERSION"));
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {agent}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
        to.path,
        to.authority()
    )
    .into_bytes();
    if let Some(name) = &check.subprotocol {
        request.extend_from_slice(format!("Sec-WebSocket-Protocol: {name}\r\n").as_bytes());
    }
    for (name, secret) in &check.secret_headers {
        let secret = ctx.secrets.read(secret)?;
        if secret.bytes().iter().any(u8::is_ascii_control) {
            return Err(Failure::unusable(format!("the value of header {name:?} cannot be sent")));
        }
        request.extend_from_slice(format!("{name}: ").as_bytes());
        request.extend_from_slice(secret.bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    Ok(request)
}

async fn converse(
    check: &WebSocket,
    talk: &mut Talk,
    request: &[u8],
    key: &str,
    status: &mut Option<u16>,
) -> Result<(), Trouble> {
    talk.send(request).await?;
    let mut inbox = Vec::new();
    let head = loop {
        if let Some(head) = read_head(&inbox)? {
            break head;
        }
        if inbox.len() > HEAD_BYTES_MAX {
            return Err(Trouble::protocol("the head of the answer does not end"));
        }
        if talk.hear(&mut inbox).await? == 0 {
            return Err(Trouble::closed());
        }
    };
    *status = Some(head.status);
    judge_head(&head, check, key)?;
    inbox.drain(..head.length);
    if let Some(text) = &check.send {
        talk.send(&frame::from_client(Opcode::Text, text.as_bytes(), mask(key))).await?;
    }
    if let Some(wanted) = &check.expect {
        let message = message(talk, &mut inbox, mask(key)).await?;
        if !wanted.is_match(&message) {
            let text = format!("a message that does not match: {:?}", for_people(&message));
            return Err(Trouble::judged(FailureKind::Content, text));
        }
    }
    // Politeness, as far as it goes: 1000, going away normally.
    let _ = talk.send(&frame::from_client(Opcode::Close, &[0x03, 0xe8], mask(key))).await;
    Ok(())
}

/// Masks hide nothing; they keep proxies from taking a message for a request. Ours come from the key, which is random.
fn mask(key: &str) -> [u8; 4] {
    key.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// The first message, put together from its pieces.
async fn message(talk: &mut Talk, inbox: &mut Vec<u8>, mask: [u8; 4]) -> Result<Vec<u8>, Trouble> {
    let mut message = Vec::new();
    for _ in 0..FRAMES_MAX {
        let (last, opcode, payload) = loop {
            if let Some((frame, used)) = frame::first(inbox).map_err(Trouble::protocol)? {
                let owned = (frame.last, frame.opcode, frame.payload.to_vec());
                inbox.drain(..used);
                break owned;
            }
            if inbox.len() > INBOX_BYTES_MAX {
                return Err(Trouble::protocol("a frame does not end"));
            }
            if talk.hear(inbox).await? == 0 {
                return Err(Trouble::closed());
            }
        };
        match opcode {
            Opcode::Ping => talk.send(&frame::from_client(Opcode::Pong, &payload, mask)).await?,
            Opcode::Pong => {}
            Opcode::Close => return Err(Trouble::new(FailureKind::Closed, "the server closed the WebSocket")),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                message.extend_from_slice(&payload);
                if message.len() > MESSAGE_BYTES_MAX {
                    return Err(Trouble::protocol("a message over 64 KiB"));
                }
                if last {
                    return Ok(message);
                }
            }
        }
    }
    Err(Trouble::protocol(format!("{FRAMES_MAX} frames and no message")))
}

/// What the answer to the handshake says.
struct Head {
    status: u16,
    length: usize,
    upgrade: bool,
    accept: Option<Vec<u8>>,
    subprotocol: Option<Vec<u8>>,
    extensions: bool,
}

/// The head in `bytes`; `None` while it is not whole.
fn read_head(bytes: &[u8]) -> Result<Option<Head>, Trouble> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Trouble::protocol(format!("the answer is not HTTP: {error}"))),
    };
    let value = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value.trim_ascii().to_vec())
    };
    Ok(Some(Head {
        status: response.code.unwrap_or(0),
        length,
        upgrade: value("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")),
        accept: value("Sec-WebSocket-Accept"),
        subprotocol: value("Sec-WebSocket-Protocol"),
        extensions: value("Sec-WebSocket-Extensions").is_some(),
    }))
}

fn judge_head(head: &Head, check: &WebSocket, key: &str) -> Result<(), Trouble> {
    if head.status != 101 {
        return Err(Trouble::judged(FailureKind::Status, format!("the server answers with status {}", head.status)));
    }
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    let accepts = head.accept.as_deref() == Some(BASE64.encode(hash.as_ref()).as_bytes());
    if !head.upgrade || !accepts || head.extensions {
        return Err(Trouble::protocol("the server does not open a WebSocket as the standard says"));
    }
    match &check.subprotocol {
        Some(wanted) if head.subprotocol.as_deref() != Some(wanted.as_bytes()) => {
            Err(Trouble::protocol(format!("the server did not agree on {wanted:?}")))
        }
        _ => Ok(()),
    }
}
