//! A real PostgreSQL for tests: made, started, killed, replicated and promoted.
//!
//! Assumes Debian's layout (`/usr/lib/postgresql/VERSION/bin`) or programs on the path, and util-linux' `setpriv`. A
//! server that cannot be had is a panic that says what to install: no test is passed over in silence.
//!
//! What a server leaves behind is removed when its handle goes; of a process that was killed, when the next one starts.

pub mod proxy;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Far beyond what a start takes; a server that is not there by then will not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// The one user of the database, who needs no password on loopback.
const USER: &str = "peil";
const DATABASE: &str = "peil";

/// How careful a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// As in production: what it committed survives a kill.
    Durable,
    /// Without `fsync`: quick, for tests that do not kill it.
    Quick,
}

/// A running (or killed) server and its directory.
pub struct Server {
    dir: PathBuf,
    port: u16,
    running: Mutex<Option<Child>>,
}

/// The server that all tests of this process share; it goes with the process.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(Care::Quick, &[]))
}

impl Server {
    /// Makes a new cluster with these further settings (`name=value`) and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start, with what it said.
    pub fn start(care: Care, settings: &[&str]) -> Self {
        let dir = own_directory();
        let data = dir.join("data");
        run(as_owner("initdb")
            .args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(&data));
        let server = Self { port: free_port(), dir, running: Mutex::new(None) };
        let mut conf = format!(
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nmax_connections = 200\n\
             shared_buffers = 64MB\nwal_level = replica\nmax_wal_senders = 8\nhot_standby = on\nwal_keep_size = 512MB\n",
            server.port,
            server.dir.display()
        );
        if care == Care::Quick {
            conf.push_str("fsync = off\nfull_page_writes = off\nsynchronous_commit = off\n");
        }
        for setting in settings {
            let (name, value) = setting.split_once('=').expect("name=value");
            let _ = writeln!(conf, "{name} = '{value}'");
        }
        append(&data.join("postgresql.conf"), &conf);
        append(&data.join("pg_hba.conf"), "host all,replication all 127.0.0.1/32 trust\n");
        server.launch();
        server.sql("postgres", &format!("CREATE DATABASE {DATABASE}"));
        server
    }

    /// URL of the database all tests share.
    pub fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// URL of a schema of the caller's own, empty.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn fresh_schema(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql(DATABASE, &format!("CREATE SCHEMA {name}"));
        format!("{}?options=-csearch_path%3D{name}", self.url())
    }

    /// Process id of the postmaster; `None` while it is down.
    pub fn pid(&self) -> Option<u32> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id)
    }

    /// Port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL with `psql`; its rows, unaligned.
    ///
    /// # Panics
    /// When it fails, with what the server said.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let output = run(Command::new(program("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                USER,
                "-d",
                database,
                "-c",
                sql,
            ])
            .args(["-p", &self.port.to_string()]));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// SIGKILL to the whole server, as a crash of the machine would (but for what the kernel still writes).
    pub fn kill(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = running.take() {
            // `setpriv` became the postmaster; its children notice that it is gone and end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after a kill; what it had committed is there.
    ///
    /// # Panics
    /// When it does not start.
    pub fn launch(&self) {
        let _ = std::fs::remove_file(self.dir.join("data/postmaster.pid"));
        let mut command = as_owner("postgres");
        command.arg("-D").arg(self.dir.join("data")).stdin(Stdio::null());
        let log = std::fs::File::create(self.dir.join("log")).expect("a log");
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let child = spawn_from_a_lasting_thread(command);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        self.wait_until_it_answers();
    }

    /// A line that decides before all others who is let in and how, as in `pg_hba.conf`; in force when this returns.
    ///
    /// # Panics
    /// When the server does not take it.
    pub fn admit(&self, line: &str) {
        let path = self.dir.join("data/pg_hba.conf");
        let before = std::fs::read_to_string(&path).expect("readable");
        std::fs::write(&path, format!("{line}\n{before}")).expect("written");
        self.reload();
    }

    /// From now on it speaks TLS with this certificate and key, both PEM.
    ///
    /// # Panics
    /// When the server does not take them.
    pub fn speak_tls(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.dir.join("data").join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
            if rustix::process::geteuid().is_root() {
                chown(&path, Some(id_of("passwd")), Some(id_of("group"))).expect("given away");
            }
        }
        self.sql("postgres", "ALTER SYSTEM SET ssl = on");
        self.reload();
    }

    /// Reads its settings again; they are in force when this returns.
    fn reload(&self) {
        let when = || self.sql("postgres", "SELECT pg_conf_load_time()");
        let before = when();
        self.sql("postgres", "SELECT pg_reload_conf()");
        let started = Instant::now();
        while when() == before {
            assert!(started.elapsed() < PATIENCE, "PostgreSQL does not read its settings again");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A streaming replica, on a port of its own, that applies what this server commits.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn replica(&self) -> Self {
        self.replica_on(free_port())
    }

    /// A streaming replica on the port of a server that is gone.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn replica_on(&self, port: u16) -> Self {
        let dir = own_directory();
        let data = dir.join("data");
        run(as_owner("pg_basebackup")
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                USER,
                "-p",
                &self.port.to_string(),
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
                "-D",
            ])
            .arg(&data));
        let here = format!("port = {port}\nunix_socket_directories = '{}'\n", dir.display());
        append(&data.join("postgresql.conf"), &here);
        let replica = Self { dir, port, running: Mutex::new(None) };
        replica.launch();
        replica
    }

    /// Makes a replica the primary.
    ///
    /// # Panics
    /// When it does not become one.
    pub fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote(true, 60)"), "t", "the replica was not promoted");
    }

    fn wait_until_it_answers(&self) {
        let started = Instant::now();
        loop {
            let asked = Command::new(program("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .expect("pg_isready runs");
            if asked.success() {
                return;
            }
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let ended = self.running.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(Child::try_wait);
            assert!(matches!(ended, Some(Ok(None))), "PostgreSQL ended: {}", log());
            assert!(started.elapsed() < PATIENCE, "PostgreSQL does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A child gets its signal when the *thread* that made it ends, and a test's thread ends with the test: so one thread
/// makes them all and lasts as long as the process.
fn spawn_from_a_lasting_thread(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static MAKER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let maker = MAKER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, made) = mpsc::channel();
    maker.send((command, answer)).expect("the thread lasts");
    made.recv().expect("answers").expect("PostgreSQL can be started")
}

/// `name` of PostgreSQL, run as somebody who may run it, and ended with us.
fn as_owner(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.arg(program(name)).current_dir("/").env("LC_ALL", "C.UTF-8");
    command
}

/// The newest version installed.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            let path = entry.path().join("bin").join(name);
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            path.exists().then_some((version, path))
        })
        .max();
    newest.map_or_else(|| PathBuf::from(name), |(_, path)| path)
}

/// A new directory of the server's owner; those of processes that are gone are removed first.
fn own_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = std::env::temp_dir();
    for entry in std::fs::read_dir(&base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix("peil-postgres-")?.split('-').next()?.parse().ok());
        if owner.is_some_and(|pid: u32| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let dir = base.join(format!("peil-postgres-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).expect("ours");
    if rustix::process::geteuid().is_root() {
        chown(&dir, Some(id_of("passwd")), Some(id_of("group"))).expect("given away");
    }
    dir
}

/// The number of the user or group `postgres`.
fn id_of(file: &str) -> u32 {
    let file = std::fs::File::open(format!("/etc/{file}")).expect("there");
    let line = BufReader::new(file).lines().map_while(Result::ok).find(|line| line.starts_with("postgres:"));
    let number = line.as_deref().and_then(|line| line.split(':').nth(2)?.parse().ok());
    number.expect("no user postgres: apt-get install postgresql (tests/run does)")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

fn append(path: &Path, text: &str) {
    let before = std::fs::read_to_string(path).unwrap_or_default();
    std::fs::write(path, before + text).expect("written");
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let hint = "PostgreSQL and setpriv are there: apt-get install postgresql util-linux (tests/run does)";
    let output = output.expect(hint);
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
