//! A connection on which both sides talk, for kinds that speak a protocol of their own: what is sent, what comes, when
//! it began, and what went wrong.
//!
//! Phases: `first_byte` is the time until the peer said its first byte, `transfer` the rest, without a handshake of
//! TLS in the middle (that is `tls`).

use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::dial::{Deadline, Session, Stream, failure_kind_of_io};
use super::{Failure, Hop, Phase};

/// Bytes read at once.
const PIECE_BYTES: usize = 4 << 10;

/// What went wrong in a conversation, before it is known in which phase.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: FailureKind,
    pub(super) text: String,
    /// The conversation itself went well; what was said is not what must be.
    pub(super) judged: bool,
}

impl Trouble {
    pub(super) fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), judged: false }
    }

    pub(super) fn judged(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { judged: true, ..Self::new(kind, text) }
    }

    fn of_io(error: &std::io::Error) -> Self {
        Self::new(failure_kind_of_io(error, FailureKind::Closed), error.to_string())
    }

    pub(super) fn closed() -> Self {
        Self::new(FailureKind::Closed, "the peer closed the connection")
    }

    pub(super) fn timeout() -> Self {
        Self::new(FailureKind::Timeout, "no answer as expected before the deadline")
    }

    pub(super) fn protocol(text: impl Into<String>) -> Self {
        Self::new(FailureKind::Protocol, text)
    }

    pub(super) fn during(self, phase: Phase) -> Failure {
        if self.judged { Failure::judged(self.kind, self.text) } else { Failure::during(phase, self.kind, self.text) }
    }
}

/// A conversation under way.
pub(super) struct Talk {
    /// Away only while TLS begins.
    stream: Option<Stream>,
    began: Instant,
    first: Option<Instant>,
    /// Time that belongs to the TLS phase.
    tls: Micros,
}

impl Talk {
    /// Begins to talk on an open stream.
    pub(super) fn on(stream: Stream) -> Self {
        Self { stream: Some(stream), began: Instant::now(), first: None, tls: Micros::ZERO }
    }

    fn stream(&mut self) -> Result<&mut Stream, Trouble> {
        self.stream.as_mut().ok_or_else(Trouble::closed)
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let stream = self.stream()?;
        let sent = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        sent.await.map_err(|error| Trouble::of_io(&error))
    }

    /// Puts what comes next behind `inbox`; 0 when the peer closed.
    pub(super) async fn hear(&mut self, inbox: &mut Vec<u8>) -> Result<usize, Trouble> {
        let mut piece = [0; PIECE_BYTES];
        let read = self.stream()?.read(&mut piece).await.map_err(|error| Trouble::of_io(&error))?;
        if read > 0 {
            self.first.get_or_insert_with(Instant::now);
        }
        inbox.extend_from_slice(&piece[..read]);
        Ok(read)
    }

    /// Reads until `inbox` holds at least `length` bytes.
    pub(super) async fn hear_at_least(&mut self, length: usize, inbox: &mut Vec<u8>) -> Result<(), Trouble> {
        while inbox.len() < length {
            if self.hear(inbox).await? == 0 {
                return Err(Trouble::closed());
            }
        }
        Ok(())
    }

    /// Goes over to TLS. What is left of `inbox` was said in front of it, and must not be.
    pub(super) async fn start_tls(
        &mut self,
        session: Session,
        unread: usize,
        deadline: Deadline,
        hop: &mut Hop,
    ) -> Result<(), Trouble> {
        if unread > 0 {
            return Err(Trouble::protocol("the peer went on talking in front of TLS"));
        }
        let stream = self.stream.take().ok_or_else(Trouble::closed)?;
        let begun = session.start(stream, deadline, hop).await;
        self.tls = hop.phases.tls.unwrap_or(Micros::ZERO);
        self.stream = Some(begun.map_err(|failure| Trouble::new(failure.kind, failure.text))?);
        Ok(())
    }

    /// Notes the phases as they stand now, and tells which one it is.
    pub(super) fn note(&self, hop: &mut Hop) -> Phase {
        let waited = self.first.map_or_else(|| self.began.elapsed(), |at| at.duration_since(self.began));
        hop.phases.first_byte = Some(Micros::from_duration(waited));
        if self.stream.is_none() {
            return Phase::Tls;
        }
        let Some(first) = self.first else { return Phase::FirstByte };
        let Micros(rest) = Micros::from_duration(first.elapsed());
        hop.phases.transfer = Some(Micros(rest.saturating_sub(self.tls.0)));
        Phase::Transfer
    }
}
