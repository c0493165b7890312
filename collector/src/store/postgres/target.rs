//! Where PostgreSQL is: the URL of the settings, and how it is connected to.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::db::Error;

/// Time to reach one host. The next one of the list is tried after it.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection whose data nobody acknowledges for this long is dead, whatever the other side may think.
const UNHEARD: Duration = Duration::from_secs(10);

/// A server, or several of which one takes writes.
#[derive(Clone)]
pub struct Target {
    config: Arc<Config>,
    beside: Arc<Beside>,
}

/// What belongs to a server besides its URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// File with the password, read at each connection, so that it may be changed.
    pub password_file: Option<PathBuf>,
    /// PEM bundle to trust instead of the public roots.
    pub ca_file: Option<PathBuf>,
    /// Weaker settings of the server that the operator accepts, as `setting=value`.
    pub accepts: BTreeSet<String>,
}

/// Why a URL is no place to keep anything.
#[derive(Debug, thiserror::Error)]
#[error("is not a PostgreSQL URL: {0}; it must look like postgres://user@host/database")]
pub struct BadTarget(String);

impl Target {
    /// Reads a URL such as `postgres://peil@a,b,c/peil?target_session_attrs=read-write`. Towards another machine TLS is
    /// required unless the URL says otherwise.
    ///
    /// # Errors
    /// [`BadTarget`] with what is wrong.
    pub fn parse(url: &str, beside: Beside) -> Result<Self, BadTarget> {
        let said = |error: postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            BadTarget(cause.unwrap_or_else(|| error.to_string()))
        };
        let mut config: Config = url.parse().map_err(said)?;
        if config.get_hosts().is_empty() || config.get_dbname().is_none() {
            return Err(BadTarget("it names no host or no database".to_owned()));
        }
        let says_how = url.contains("sslmode=");
        if !says_how && !config.get_hosts().iter().all(is_this_machine) {
            config.ssl_mode(SslMode::Require);
        }
        config.connect_timeout(CONNECT).tcp_user_timeout(UNHEARD);
        Ok(Self { config: Arc::new(config), beside: Arc::new(beside) })
    }

    /// Whether a weaker setting of the server was named as accepted.
    pub(super) fn accepts(&self, setting: &str, value: &str) -> bool {
        self.beside.accepts.contains(&format!("{setting}={value}"))
    }

    /// Connects; the first host that takes the kind of session that is asked for.
    pub(super) fn client(&self) -> Result<Client, Error> {
        let mut config = Config::clone(&self.config);
        if let Some(path) = &self.beside.password_file {
            let password = std::fs::read_to_string(path).map_err(|cause| unreadable(path, &cause))?;
            config.password(password.trim_end_matches(['\r', '\n']));
        }
        let tls = tls(self.beside.ca_file.as_deref())?;
        Ok(config.connect(MakeRustlsConnect::new(tls))?)
    }
}

fn unreadable(path: &Path, cause: &dyn fmt::Display) -> Error {
    Error::File(format!("{} cannot be read: {cause}", path.display()))
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
    }
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(|cause| unreadable(path, &cause))? {
                let certificate = certificate.map_err(|cause| unreadable(path, &cause))?;
                roots.add(certificate).map_err(|cause| unreadable(path, &cause))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| Error::File(format!("TLS cannot be set up: {cause}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Without the password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        // One port for all hosts, or one for each; none is the usual one.
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts: Vec<_> = hosts.collect();
        write!(f, "postgres://{}/{}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("at", &self.to_string()).field("beside", &self.beside).finish_non_exhaustive()
    }
}
