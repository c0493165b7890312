//! A TCP balancer on loopback: each connection goes to one of the collectors that answer, chosen by turns.
//!
//! What stands between agents and several collectors in production. It knows nothing of what it carries; when a
//! collector dies its connections break, and the next ones go to another. All of them can be cut at once, which makes
//! agents change collectors in the middle of a batch.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs until dropped.
pub struct Balancer {
    address: SocketAddr,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
    _accepting: JoinSet<()>,
}

impl Balancer {
    /// In front of these addresses.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(collectors: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port")?;
        let address = listener.local_addr()?;
        let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, collectors, cut.clone()));
        Ok(Self { address, cut, _accepting: accepting })
    }

    /// `https://localhost:port` for agents.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Breaks every connection there is.
    pub fn cut_all(&self) {
        let mut cut = self.cut.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut *cut).cancel();
    }
}

async fn accept(listener: TcpListener, collectors: Vec<SocketAddr>, cut: Arc<std::sync::Mutex<CancellationToken>>) {
    let mut first = 0;
    // They end with this task, or when they are cut; those that ended are cleared away as new ones come.
    let mut connections = JoinSet::new();
    while let Ok((mut agent, _)) = listener.accept().await {
        first += 1;
        let order: Vec<_> = (0..collectors.len()).map(|step| collectors[(first + step) % collectors.len()]).collect();
        let cut = cut.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        connections.spawn(async move {
            let Some(mut collector) = connected(&order).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut agent, &mut collector) => {}
                () = cut.cancelled() => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connected(order: &[SocketAddr]) -> Option<TcpStream> {
    for address in order {
        if let Ok(stream) = TcpStream::connect(address).await {
            return Some(stream);
        }
    }
    None
}
