//! What systemd is told: ready, stopping, and that we are alive. The protocol is one datagram of `KEY=value` lines to the
//! socket named in the environment (sd_notify(3)); without that variable nothing is sent.
//!
//! The watchdog is fed by the runtime that also schedules the probes: a runtime that hangs probes nothing, and a restart is
//! right. It does not ask the spool: a disk that hangs must not stop the probing.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Sends `state`, such as `READY=1`. False when nobody wants to know, or the socket is not there.
pub fn notify(state: &str) -> bool {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return false };
    send(&socket.to_string_lossy(), state).is_ok()
}

fn send(socket: &str, state: &str) -> io::Result<usize> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
}

/// How often the watchdog is fed: half of what systemd allows. `None` when there is none, or it is another process's.
pub fn watchdog_every() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(|usec| Duration::from_micros(usec / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_arrives_whole_at_a_path_and_at_an_abstract_name() {
        let place = tempfile::tempdir().expect("directory");
        let path = place.path().join("notify");
        let at_path = UnixDatagram::bind(&path).expect("bound");
        let name = format!("peil-test-{}", std::process::id());
        let at_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("bound");
        let mut bytes = [0; 64];
        for (socket, address) in [(at_path, path.display().to_string()), (at_name, format!("@{name}"))] {
            send(&address, "READY=1").expect("sent");
            let got = socket.recv(&mut bytes).expect("received");
            assert_eq!(&bytes[..got], b"READY=1");
        }
        assert!(send(&place.path().join("nobody").display().to_string(), "READY=1").is_err());
    }
}
