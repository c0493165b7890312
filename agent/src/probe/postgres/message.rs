//! Messages of PostgreSQL's protocol 3.0: bytes to values and the other way. The bytes are a stranger's.

/// Bytes of a message that is read. A longer one is refused: nothing that is asked for is long.
const MESSAGE_BYTES_MAX: usize = 32 << 10;

/// The question for TLS.
pub(super) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];

/// A message of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The number at its beginning.
    pub(super) fn number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.body.get(..4)?.try_into().ok()?))
    }
}

/// The first message in `bytes` and its length; `None` while it is not whole.
///
/// # Errors
/// Why it is none.
pub(super) fn next(bytes: &[u8]) -> Result<Option<(Message, usize)>, &'static str> {
    let Some(head) = bytes.get(..5) else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).unwrap_or(usize::MAX);
    if !head[0].is_ascii_alphabetic() || !(4..=MESSAGE_BYTES_MAX).contains(&length) {
        return Err("the answer is not PostgreSQL's protocol");
    }
    let body = bytes.get(5..1 + length);
    Ok(body.map(|body| (Message { kind: head[0], body: body.to_vec() }, 1 + length)))
}

/// What a client says first.
pub(super) fn startup(user: &str, database: Option<&str>) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    let names =
        [Some(("user", user)), database.map(|name| ("database", name)), Some(("application_name", "peil-agent"))];
    for (key, value) in names.into_iter().flatten() {
        body.extend_from_slice(key.as_bytes());
        body.push(0);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &body].concat()
}

/// A message of a client.
pub(super) fn of(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// A message of a client that holds one text.
pub(super) fn with_text(kind: u8, text: &[u8]) -> Vec<u8> {
    of(kind, &[text, b"\0"].concat())
}

/// SQLSTATE and text of an error: fields of one letter and a text each.
pub(super) fn error_text(body: &[u8]) -> (String, String) {
    let (mut state, mut text) = (String::new(), String::new());
    for field in body.split(|byte| *byte == 0) {
        let Some((letter, value)) = field.split_first() else { continue };
        let value = || String::from_utf8_lossy(value).into_owned();
        match letter {
            b'C' => state = value().chars().filter(char::is_ascii_alphanumeric).take(5).collect(),
            b'M' => text = value(),
            _ => {}
        }
    }
    (state, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_when_they_are_whole() {
        let ready = Message { kind: b'Z', body: b"I".to_vec() };
        assert_eq!(next(b"Z\0\0\0\x05IR"), Ok(Some((ready, 6))));
        assert_eq!(next(b"Z\0\0\0\x05"), Ok(None));
        assert!(next(b"HTTP/1.1 400").is_err() && next(b"R\0\0\0\x03").is_err());
        assert_eq!(error_text(b"SFATAL\0C57P03\0Mstarting up\0\0"), ("57P03".to_owned(), "starting up".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            if let Ok(Some((message, used))) = next(&bytes) {
                proptest::prop_assert!(used <= bytes.len());
                let _ = (message.number(), error_text(&message.body));
            }
        }
    }
}
