//! Frames of a WebSocket (RFC 6455 §5): bytes to values and the other way. The bytes are a stranger's.

/// Bytes of a message that is looked at. A longer one is refused.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn code(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// A frame from a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) last: bool,
    pub(super) opcode: Opcode,
    pub(super) payload: &'a [u8],
}

/// The first frame in `bytes` and its length; `None` while it is not whole.
///
/// # Errors
/// What it does against the protocol.
pub(super) fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, &'static str> {
    let (Some(one), Some(two)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
    if one & 0x70 != 0 {
        return Err("a frame uses an extension nobody agreed on");
    }
    let opcode = Opcode::from_code(one & 15).ok_or("a frame of a kind that does not exist")?;
    if two & 0x80 != 0 {
        return Err("a frame of a server must not be masked");
    }
    let (head, length) = match two & 0x7f {
        126 => match bytes.get(2..4) {
            Some(part) => (4, usize::from(u16::from_be_bytes([part[0], part[1]]))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|part| part.try_into().ok()) {
            Some(part) => (10, usize::try_from(u64::from_be_bytes(part)).unwrap_or(usize::MAX)),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    if length > MESSAGE_BYTES_MAX {
        return Err("a message over 64 KiB");
    }
    if matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) && (length > 125 || one & 0x80 == 0) {
        return Err("a control frame that is long or in pieces");
    }
    let payload = bytes.get(head..head + length);
    Ok(payload.map(|payload| (Frame { last: one & 0x80 != 0, opcode, payload }, head + length)))
}

/// A whole message in one frame, masked as a client must.
pub(super) fn from_client(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode.code()];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&u64::try_from(payload.len()).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_server_are_read_as_the_standard_shows_them() {
        let hello = Frame { last: true, opcode: Opcode::Text, payload: b"Hello" };
        assert_eq!(first(b"\x81\x05Hello!"), Ok(Some((hello, 7))));
        assert_eq!(first(b"\x81\x05Hell"), Ok(None));
        assert_eq!(first(b"\x81\x7e\x01"), Ok(None));
        for broken in [
            &b"\xc1\x00"[..],
            b"\x83\x00",
            b"\x81\x85aaaahello",
            b"\x89\x7e\x00\x7e",
            b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            first(broken).expect_err("refused");
        }
    }

    #[test]
    fn frames_of_a_client_are_masked() {
        assert_eq!(
            from_client(Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d]),
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
        );
        assert_eq!(from_client(Opcode::Text, &[0; 200], [0; 4])[..4], [0x81, 0xfe, 0, 200]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Ok(Some((frame, used))) = first(&bytes) {
                proptest::prop_assert!(used <= bytes.len() && frame.payload.len() < used);
            }
        }
    }
}
