//! Where PostgreSQL is: the URL of the settings, and how it is connected to.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
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
    /// PEM bundle to trust instead of the public roots.
    ca_file: Option<PathBuf>,
    /// Weaker settings of the server that the operator accepts, as `setting=value`.
    pub(in crate::store) accepts: Arc<BTreeSet<String>>,
    tls: Arc<ClientConfig>,
}

/// Why a URL is no place to keep anything.
#[derive(Debug, thiserror::Error)]
pub enum BadTarget {
    /// It does not say where.
    #[error("is not a PostgreSQL URL: {0}; it must look like postgres://user@host/database")]
    Url(String),
    /// The file with certificates to trust.
    #[error("names a file of authorities {path} that cannot be read: {why}")]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Target {
    /// Reads a URL such as `postgres://peil@a,b,c/peil?target_session_attrs=read-write`. A password may stand in it or
    /// in `password`; towards another machine TLS is required unless the URL says otherwise.
    ///
    /// # Errors
    /// [`BadTarget`] with what is wrong.
    pub fn parse(
        url: &str,
        password: Option<&str>,
        ca_file: Option<PathBuf>,
        accepts: BTreeSet<String>,
    ) -> Result<Self, BadTarget> {
        let said = |error: postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            BadTarget::Url(cause.unwrap_or_else(|| error.to_string()))
        };
        let mut config: Config = url.parse().map_err(said)?;
        if config.get_hosts().is_empty() || config.get_dbname().is_none() {
            return Err(BadTarget::Url("it names no host or no database".to_owned()));
        }
        if let Some(password) = password {
            config.password(password.trim_end_matches(['\r', '\n']));
        }
        if config.get_ssl_mode() == SslMode::Prefer && !config.get_hosts().iter().all(is_this_machine) {
            config.ssl_mode(SslMode::Require);
        }
        config.connect_timeout(CONNECT).tcp_user_timeout(UNHEARD);
        let tls = Arc::new(tls(ca_file.as_ref())?);
        Ok(Self { config: Arc::new(config), ca_file, accepts: Arc::new(accepts), tls })
    }

    /// Connects; the first host that takes the kind of session that is asked for.
    pub(in crate::store) fn client(&self) -> Result<Client, Error> {
        Ok(self.config.connect(MakeRustlsConnect::new(self.tls.as_ref().clone()))?)
    }
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
    }
}

fn tls(ca_file: Option<&PathBuf>) -> Result<ClientConfig, BadTarget> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let bad = |why: String| BadTarget::Authorities { path: path.clone(), why };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))? {
                let added = certificate.map_err(|error| bad(error.to_string())).map(|found| roots.add(found));
                added?.map_err(|error| bad(error.to_string()))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BadTarget::Url(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Without the password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts: Vec<_> = hosts.collect();
        write!(f, "postgres://{}/{}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("at", &self.to_string())
            .field("ca_file", &self.ca_file)
            .field("accepts", &self.accepts)
            .finish_non_exhaustive()
    }
}
