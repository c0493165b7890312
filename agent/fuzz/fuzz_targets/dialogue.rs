//! What a peer says in a dialogue comes to the same however it is cut up, ends when it is too much, and prints safely.
//!
//! The first byte says where the rest is cut in two. The output of plug-ins, which is read by lines too, is fed the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peil_agent::probe::dialogue::{Ear, Heard, LINE_BYTES_MAX};
use peil_agent::probe::exec::perfdata;
use peil_proto::plan::Pattern;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let cut = usize::from(cut).min(bytes.len());
    let (wanted, fail) = (Pattern::new("^2[0-9]+ (?P<word>.*)$"), Pattern::new("^[45]"));
    let listen = |pieces: &[&[u8]]| {
        let mut ear = Ear::default();
        for piece in pieces {
            ear.hear(piece);
            let heard = ear.listen(&wanted, Some(&fail), false);
            if heard != Heard::More {
                return (heard, ear.fill("${word}"));
            }
        }
        (ear.listen(&wanted, Some(&fail), true), ear.fill("${word}"))
    };
    let whole = listen(&[bytes]);
    assert_eq!(whole, listen(&[&bytes[..cut], &bytes[cut..]]));
    if let (Heard::Refusal(text), _) = &whole {
        assert!(!text.chars().any(char::is_control));
    }
    if bytes.len() > LINE_BYTES_MAX && !bytes.contains(&b'\n') {
        assert_eq!(whole.0, Heard::TooMuch);
    }
    let _ = perfdata::split(&String::from_utf8_lossy(bytes));
});
