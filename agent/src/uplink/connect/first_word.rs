//! A stream that tells how its first read went, and is otherwise the stream it wraps.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// What came first from the other side.
#[derive(Debug)]
pub(super) enum Word {
    /// Bytes: we are welcome.
    Heard,
    /// An alert, or something that is not TLS.
    Refused(rustls::Error),
    /// The end, or a reset.
    Closed,
}

/// The wrapper; the HTTP/2 connection reads it, the one who connects waits for the word.
pub(super) struct FirstWord<S> {
    stream: S,
    tell: Option<oneshot::Sender<Word>>,
}

impl<S> FirstWord<S> {
    pub(super) fn listen(stream: S) -> (Self, oneshot::Receiver<Word>) {
        let (tell, answer) = oneshot::channel();
        (Self { stream, tell: Some(tell) }, answer)
    }
}

/// The cause of an error of a TLS stream, when it is TLS's.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstWord<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(result) = &read
            && let Some(tell) = self.tell.take()
        {
            let word = match result {
                Ok(()) if buf.filled().len() > before => Word::Heard,
                Ok(()) => Word::Closed,
                Err(error) => tls_error(error).map_or(Word::Closed, |error| Word::Refused(error.clone())),
            };
            // Nobody waits any more when the time limit was faster.
            let _ = tell.send(word);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstWord<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
