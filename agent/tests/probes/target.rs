//! Servers to probe. Each listens on a port of its own and ends when it is dropped.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A listening server; its connections are served until it is dropped.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    visits: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Target {
    /// Serves every connection with `serve`.
    pub(crate) async fn serving<F, W>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        Self::on("127.0.0.1:0", serve).await
    }

    pub(crate) async fn on<F, W>(bind: &str, serve: F) -> Self
    where
        F: Fn(TcpStream) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(bind).await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        let visits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&visits);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve(socket));
            }
        });
        Self { address, visits, _serving: serving }
    }

    /// Answers every request on a connection of its own with these bytes, then closes.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::serving(move |mut socket| {
            let answer = Arc::clone(&answer);
            async move { reply(&mut socket, &answer).await }
        })
        .await
    }

    /// The same behind TLS.
    pub(crate) async fn answering_over_tls(acceptor: TlsAcceptor, answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::serving(move |socket| {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            async move {
                if let Ok(mut session) = acceptor.accept(socket).await {
                    reply(&mut session, &answer).await;
                }
            }
        })
        .await
    }

    /// Accepts, then neither reads nor writes.
    pub(crate) async fn silent() -> Self {
        Self::serving(|socket| async move {
            std::future::pending::<()>().await;
            drop(socket);
        })
        .await
    }

    /// Sends `start`, then one `byte` every few milliseconds for ever.
    pub(crate) async fn dripping(start: &'static str, byte: u8) -> Self {
        Self::serving(move |mut socket| async move {
            read_head(&mut socket).await;
            if socket.write_all(start.as_bytes()).await.is_err() {
                return;
            }
            let mut rhythm = tokio::time::interval(Duration::from_millis(5));
            loop {
                rhythm.tick().await;
                if socket.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    /// Sends `start`, then `piece` over and over as fast as it is taken.
    pub(crate) async fn pouring(start: &'static str, piece: impl Into<Vec<u8>>) -> Self {
        let piece: Arc<[u8]> = piece.into().into();
        Self::serving(move |mut socket| {
            let piece = Arc::clone(&piece);
            async move {
                read_head(&mut socket).await;
                let mut sent = socket.write_all(start.as_bytes()).await;
                while sent.is_ok() {
                    sent = socket.write_all(&piece).await;
                }
            }
        })
        .await
    }

    /// Answers with the whole request head as the body.
    pub(crate) async fn echoing() -> Self {
        Self::on("127.0.0.1:0", echo).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections accepted so far.
    pub(crate) fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

pub(crate) async fn echo(mut socket: TcpStream) {
    let head = read_head(&mut socket).await;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
    let _ = socket.write_all(answer.as_bytes()).await;
}

/// Reads a request, writes `answer` and closes in an orderly way.
pub(crate) async fn reply(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &[u8]) {
    read_head(stream).await;
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

/// Reads up to the blank line after the head.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A port of the loopback on which nobody listens.
pub(crate) async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    listener.local_addr().expect("has an address")
}
