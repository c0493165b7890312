//! A way to the server that breaks where a test wants it to: before or after any message of the client.
//!
//! Speaks just enough of the protocol (version 3, <https://www.postgresql.org/docs/current/protocol-message-formats.html>)
//! to tell one message from the next; understands no TLS. "Before" means that the server never saw the message; "after"
//! means that the server has done what it says, and the client never hears of it. One cut for each time it is armed;
//! connections that come later go through.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A server that has not answered by then will not.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a client asks before it may speak TLS.
const TLS_WANTED: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Where the connection breaks; messages are counted from 0, from when it was armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server does not get this message.
    Before(usize),
    /// The server has answered this message, and the answer is lost.
    After(usize),
}

impl Cut {
    fn at(self) -> usize {
        match self {
            Self::Before(at) | Self::After(at) => at,
        }
    }
}

/// Stands before a server on a port of its own, for as long as the process runs.
pub struct Proxy {
    port: u16,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    heard: Vec<String>,
    cut: Option<Cut>,
}

impl Proxy {
    /// Before the server on this port.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let plan = Arc::<Mutex<Plan>>::default();
        let shared = plan.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let plan = shared.clone();
                std::thread::spawn(move || {
                    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { return };
                    // Messages go one by one; none of them may wait for the one before it to be acknowledged.
                    let _ = client.set_nodelay(true);
                    let _ = server.set_nodelay(true);
                    // However it ends, both sides see it.
                    let _ = carry(&client, &server, &plan);
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, plan }
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on messages are counted anew, and the connection that sends this one breaks.
    pub fn arm(&self, cut: Cut) {
        *locked(&self.plan) = Plan { heard: Vec::new(), cut: Some(cut) };
    }

    /// Takes back a cut that has not happened. The message at which one did: its letter and, where it has any, its SQL.
    pub fn disarm(&self) -> Option<String> {
        let mut plan = locked(&self.plan);
        match plan.cut.take() {
            Some(_) => None,
            None => plan.heard.last().cloned(),
        }
    }
}

fn locked(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries messages to the server until the connection ends or is cut.
fn carry(client: &TcpStream, server: &TcpStream, plan: &Mutex<Plan>) -> std::io::Result<()> {
    let muted = Arc::<Mutex<bool>>::default();
    let (ready, answered) = mpsc::channel();
    let (mut from, mut to, mute) = (server.try_clone()?, client.try_clone()?, muted.clone());
    let (tls_asked, tls) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = answer(&mut from, &mut to, &mute, &ready, &tls);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut client, mut server, mut started) = (client, server, false);
    loop {
        let message = Message::read(&mut client, started)?;
        let asks_for_tls = !started && message.bytes.get(4..8) == Some(&TLS_WANTED);
        if asks_for_tls {
            let _ = tls_asked.send(());
        } else {
            started = true;
        }
        match due(plan, &message) {
            None => server.write_all(&message.bytes)?,
            Some(Cut::Before(_)) => return Ok(()),
            Some(Cut::After(_)) => {
                *muted.lock().unwrap_or_else(PoisonError::into_inner) = true;
                while answered.try_recv().is_ok() {}
                server.write_all(&message.bytes)?;
                if message.is_answered() {
                    let _ = answered.recv_timeout(PATIENCE);
                }
                return Ok(());
            }
        }
    }
}

/// Notes the message; the cut when it is at this one.
fn due(plan: &Mutex<Plan>, message: &Message) -> Option<Cut> {
    let mut plan = locked(plan);
    let cut = plan.cut?;
    plan.heard.push(message.name());
    if plan.heard.len() <= cut.at() {
        return None;
    }
    plan.cut = None;
    Some(cut)
}

/// Carries answers back, and tells when the server is ready for the next question.
fn answer(
    from: &mut TcpStream,
    to: &mut TcpStream,
    muted: &Mutex<bool>,
    ready: &Sender<()>,
    tls: &Receiver<()>,
) -> std::io::Result<()> {
    loop {
        let mut kind = [0];
        from.read_exact(&mut kind)?;
        let mut bytes = kind.to_vec();
        // The answer to the wish for TLS is this one byte.
        if tls.try_recv().is_err() {
            bytes.extend(Message::read(from, false)?.bytes);
        }
        let is_muted = *muted.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_muted {
            to.write_all(&bytes)?;
        }
        if kind == *b"Z" {
            let _ = ready.send(());
        }
    }
}

/// One message: its letter, but for the first of a connection, its length, and what it says.
struct Message {
    kind: Option<u8>,
    bytes: Vec<u8>,
}

impl Message {
    fn read(from: &mut impl Read, with_letter: bool) -> std::io::Result<Self> {
        let mut bytes = vec![0; if with_letter { 5 } else { 4 }];
        from.read_exact(&mut bytes)?;
        let head = bytes.len();
        let length = u32::from_be_bytes([bytes[head - 4], bytes[head - 3], bytes[head - 2], bytes[head - 1]]);
        let rest = usize::try_from(length).unwrap_or(0).saturating_sub(4);
        bytes.resize(head + rest, 0);
        from.read_exact(&mut bytes[head..])?;
        Ok(Self { kind: with_letter.then(|| bytes[0]), bytes })
    }

    /// Whether the server says "ready" after it.
    fn is_answered(&self) -> bool {
        matches!(self.kind, None | Some(b'Q' | b'S'))
    }

    fn name(&self) -> String {
        let text = |from: usize| {
            let rest = self.bytes.get(from..).unwrap_or_default();
            String::from_utf8_lossy(rest.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
        };
        match self.kind {
            None => "start".to_owned(),
            Some(b'Q') => format!("Q {}", text(5)),
            // The name of the statement, then its SQL.
            Some(b'P') => format!("P {}", text(5 + text(5).len() + 1)),
            Some(kind) => char::from(kind).to_string(),
        }
    }
}
