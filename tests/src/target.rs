//! Something to watch: a small HTTP server on a port of its own, with a switch.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

use crate::port::Port;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nalive\n";

/// Answers every request with `alive`; for a check of kind `tcp` it is a port that accepts. While stopped, connections are
/// refused.
pub struct Target {
    port: Port,
    serving: Option<Serving>,
}

struct Serving {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Target {
    /// A running one.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start() -> anyhow::Result<Self> {
        let mut target = Self { port: Port::reserve()?, serving: None };
        target.resume()?;
        Ok(target)
    }

    /// Starts it again, on the same port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.port.address()).context("the target cannot listen")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // One after another: a probe takes microseconds here, and one that went away must not end the server.
                let _ = answer(stream);
            }
        });
        self.serving = Some(Serving { stop, thread });
        Ok(())
    }

    /// From now on connections are refused.
    pub fn stop(&mut self) {
        let Some(Serving { stop, thread }) = self.serving.take() else { return };
        stop.store(true, Ordering::SeqCst);
        // Wakes the thread out of `accept`.
        let _ = TcpStream::connect(self.port.address());
        let _ = thread.join();
    }

    /// `http://127.0.0.1:port/`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.port.address())
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.port.address().to_string()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&chunk[..read]),
        }
    }
    stream.write_all(ANSWER)
}
