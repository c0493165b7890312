//! The answer: read with a limit after decompression, then judged.
//!
//! Kept of a body is only what the check asks about: nothing, the first [`TEXT_BYTES_MAX`] for text and patterns, or
//! [`JSON_BYTES_MAX`] for JSON. A bomb of compression is stopped where the limit of the body is reached, not where it
//! would end.

use std::io::{self, Write};

use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use peil_proto::plan::{Http, JsonWanted};
use peil_proto::sample::FailureKind;
use serde_json::Value;

use super::super::{Body, Failure};
use super::{BODY_BYTES_MAX, Trouble};

/// Bytes at the start of a body in which text is looked for. Text beyond is not found.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body that is read as JSON. A longer one is [`FailureKind::Content`].
const JSON_BYTES_MAX: usize = 1 << 20;

/// What was kept of a body.
pub(super) struct Read {
    start: Vec<u8>,
    whole: bool,
    unreadable: Option<String>,
}

/// Counts and keeps; an error when the limit is reached.
struct Keeper {
    start: Vec<u8>,
    room: usize,
    body: Body,
}

impl Write for Keeper {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = self.room.saturating_sub(self.start.len());
        self.start.extend_from_slice(&data[..data.len().min(room)]);
        self.body.bytes = self.body.bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if self.body.bytes > BODY_BYTES_MAX {
            self.body.truncated = true;
            return Err(io::Error::other("the limit of the body"));
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes the compression, if any.
enum Decoder {
    Plain(Keeper),
    Gzip(MultiGzDecoder<Keeper>),
    Deflate(ZlibDecoder<Keeper>),
}

impl Decoder {
    fn take(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(keeper) => keeper.write_all(data),
            // Flushed each time: what has come is then counted, however it is cut up.
            Self::Gzip(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
        }
    }

    fn keeper(&self) -> &Keeper {
        match self {
            Self::Plain(keeper) => keeper,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Deflate(decoder) => decoder.get_ref(),
        }
    }

    /// The end has come: is it one?
    fn finish(self) -> (Keeper, io::Result<()>) {
        let end = |keeper: io::Result<Keeper>, seen: Keeper| match keeper {
            Ok(keeper) => (keeper, Ok(())),
            Err(error) => (seen, Err(error)),
        };
        let copy = {
            let keeper = self.keeper();
            Keeper { start: keeper.start.clone(), room: keeper.room, body: keeper.body }
        };
        match self {
            Self::Plain(keeper) => (keeper, Ok(())),
            Self::Gzip(decoder) => end(decoder.finish(), copy),
            Self::Deflate(decoder) => end(decoder.finish(), copy),
        }
    }
}

/// Reads to the end or the limit.
pub(super) async fn read(response: Response<Incoming>, check: &Http, body: &mut Option<Body>) -> Result<Read, Trouble> {
    let encoding = response.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    let keeper = Keeper { start: Vec::new(), room: room_for(check), body: Body::default() };
    let (mut decoder, unreadable) = match encoding.as_deref() {
        None | Some(b"" | b"identity") => (Decoder::Plain(keeper), None),
        Some(b"gzip" | b"x-gzip") => (Decoder::Gzip(MultiGzDecoder::new(keeper)), None),
        Some(b"deflate") => (Decoder::Deflate(ZlibDecoder::new(keeper)), None),
        Some(other) => (Decoder::Plain(keeper), Some(String::from_utf8_lossy(other).escape_debug().to_string())),
    };
    let mut incoming = response.into_body();
    *body = Some(Body::default());
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let taken = decoder.take(&data);
        let so_far = decoder.keeper().body;
        *body = Some(so_far);
        match taken {
            Ok(()) => {}
            Err(_) if so_far.truncated => {
                let start = decoder.keeper().start.clone();
                return Ok(Read { start, whole: false, unreadable });
            }
            Err(error) => return Err(Trouble::Judged(not_what_it_says(&error))),
        }
    }
    let (keeper, end) = decoder.finish();
    *body = Some(keeper.body);
    match end {
        Err(error) if !keeper.body.truncated && keeper.body.bytes > 0 => Err(Trouble::Judged(not_what_it_says(&error))),
        _ => Ok(Read { start: keeper.start, whole: !keeper.body.truncated, unreadable }),
    }
}

fn not_what_it_says(error: &io::Error) -> Failure {
    Failure::judged(FailureKind::Protocol, format!("the body is not compressed as it says: {error}"))
}

fn room_for(check: &Http) -> usize {
    let text = check.contains.is_some() || check.body_matches.is_some() || check.body_lacks.is_some();
    match (check.json.is_empty(), text) {
        (false, _) => JSON_BYTES_MAX,
        (true, true) => TEXT_BYTES_MAX,
        (true, false) => 0,
    }
}

impl Read {
    /// Whether the body is what the check wants.
    pub(super) fn judge(&self, check: &Http) -> Result<(), Failure> {
        let lacks = |text: String| Err(Failure::judged(FailureKind::Content, text));
        if let Some(encoding) = self.unreadable.as_ref().filter(|_| room_for(check) > 0) {
            return lacks(format!("the body is compressed as {encoding:?}, which cannot be read here"));
        }
        let text = &self.start[..self.start.len().min(TEXT_BYTES_MAX)];
        if let Some(wanted) = &check.contains
            && !String::from_utf8_lossy(text).contains(wanted.as_str())
        {
            return lacks("the answer lacks the text it must contain".to_owned());
        }
        if let Some(wanted) = check.body_matches.as_ref().filter(|wanted| !wanted.is_match(text)) {
            return lacks(format!("the answer does not match {:?}", wanted.text()));
        }
        if let Some(unwanted) = check.body_lacks.as_ref().filter(|unwanted| unwanted.is_match(text)) {
            return lacks(format!("the answer matches {:?}", unwanted.text()));
        }
        if check.json.is_empty() {
            return Ok(());
        }
        if !self.whole || self.start.len() >= JSON_BYTES_MAX {
            return lacks(format!("the answer is too long to be read as JSON; the limit is {JSON_BYTES_MAX} bytes"));
        }
        // The position is told, the text is not: it may hold a secret.
        let value: Value = serde_json::from_slice(&self.start).map_err(|error| {
            let text = format!("the answer is not JSON: line {}, column {}", error.line(), error.column());
            Failure::judged(FailureKind::Content, text)
        })?;
        check.json.iter().try_for_each(|wanted| judge_json(&value, wanted))
    }
}

fn judge_json(value: &Value, wanted: &JsonWanted) -> Result<(), Failure> {
    let path = &wanted.path;
    let fails = |text: String| Err(Failure::judged(FailureKind::Content, text));
    let parsed = serde_json_path::JsonPath::parse(path)
        .map_err(|error| Failure::unusable(format!("json path {path:?} cannot be used: {error}")))?;
    let found = parsed.query(value).all();
    if found.is_empty() {
        return fails(format!("{path} finds nothing"));
    }
    for value in found {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if wanted.equals.as_ref().is_some_and(|equals| *equals != text) {
            return fails(format!("{path} is not {:?}", wanted.equals.as_deref().unwrap_or_default()));
        }
        if let Some(pattern) = wanted.matches.as_ref().filter(|pattern| !pattern.is_match(text.as_bytes())) {
            return fails(format!("{path} does not match {:?}", pattern.text()));
        }
    }
    Ok(())
}

/// Whether the headers are what the check wants.
pub(super) fn judge_headers(headers: &HeaderMap, check: &Http) -> Result<(), Failure> {
    for (name, pattern) in &check.header_matches {
        let values = headers.get_all(name.as_str());
        if values.iter().any(|value| pattern.is_match(value.as_bytes())) {
            continue;
        }
        let text = match values.iter().next() {
            None => format!("the answer has no header {name}"),
            Some(_) => format!("header {name} does not match {:?}", pattern.text()),
        };
        return Err(Failure::judged(FailureKind::Content, text));
    }
    Ok(())
}
