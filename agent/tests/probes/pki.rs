//! Certificates for the tests: a root, an intermediate, and leaves with one thing wrong.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A root whose certificate stands in a file, and an intermediate it signed.
pub(crate) struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

/// A certificate with its key, and what is sent along.
pub(crate) struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::with_intermediate_until(4000)
    }

    /// The same with an intermediate that ends at the beginning of `year`.
    pub(crate) fn with_intermediate_until(year: i32) -> Self {
        let root = CertifiedIssuer::self_signed(authority("Peil test root"), key()).expect("a root");
        let mut params = authority("Peil test intermediate");
        params.not_after = date_time_ymd(year, 1, 1);
        let intermediate = CertifiedIssuer::signed_by(params, key(), &root).expect("an intermediate");
        let pki = Self { root, intermediate, dir: tempfile::tempdir().expect("a directory") };
        std::fs::write(pki.dir.path().join("root.pem"), pki.root.pem()).expect("writes");
        pki
    }

    /// The file with the root.
    pub(crate) fn ca_file(&self) -> String {
        self.dir.path().join("root.pem").display().to_string()
    }

    /// A file with this leaf as the only trust.
    pub(crate) fn file_of(&self, leaf: &Leaf) -> String {
        let path = self.dir.path().join("own.pem");
        let body = data_encoding::BASE64.encode(&leaf.chain[0]);
        std::fs::write(&path, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"))
            .expect("writes");
        path.display().to_string()
    }

    /// A leaf of the root, sent alone.
    pub(crate) fn leaf(&self, params: CertificateParams) -> Leaf {
        let key = key();
        let certificate = params.signed_by(&key, &self.root).expect("a leaf");
        Leaf { chain: vec![certificate.der().clone()], key }
    }

    /// A leaf of the intermediate; `complete` sends the intermediate along.
    pub(crate) fn leaf_of_intermediate(&self, params: CertificateParams, complete: bool) -> Leaf {
        let key = key();
        let certificate = params.signed_by(&key, &self.intermediate).expect("a leaf");
        let intermediate: &Certificate = self.intermediate.as_ref();
        let chain = [certificate.der(), intermediate.der()].into_iter().take(if complete { 2 } else { 1 });
        Leaf { chain: chain.cloned().collect(), key }
    }
}

impl Leaf {
    /// Signed by its own key; `ca` makes it call itself a CA, as `openssl req -x509` does.
    pub(crate) fn self_signed(mut params: CertificateParams, ca: bool) -> Self {
        let key = key();
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let certificate = params.self_signed(&key).expect("a leaf");
        Self { chain: vec![certificate.der().clone()], key }
    }

    /// The server's side of TLS with this leaf.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_for(rustls::DEFAULT_VERSIONS)
    }

    /// The same, speaking only these versions.
    pub(crate) fn acceptor_for(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsAcceptor {
        let config = self.builder(versions).with_no_client_auth();
        self.finish(config)
    }

    /// The same, agreeing on one of these protocols only.
    pub(crate) fn acceptor_agreeing_on(&self, alpn: &[&str]) -> TlsAcceptor {
        let mut config = self.config(self.builder(rustls::DEFAULT_VERSIONS).with_no_client_auth());
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Chain and key as two PEM files in `dir`.
    pub(crate) fn files_in(&self, dir: &std::path::Path) -> (String, String) {
        let body = data_encoding::BASE64.encode(&self.chain[0]);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let (chain, key) = (dir.join("client.pem"), dir.join("client.key"));
        std::fs::write(&chain, pem).expect("writes");
        std::fs::write(&key, self.key.serialize_pem()).expect("writes");
        (chain.display().to_string(), key.display().to_string())
    }

    /// The same, asking for a client certificate of `pki`'s root.
    pub(crate) fn acceptor_that_wants_a_client_certificate(&self, pki: &Pki) -> TlsAcceptor {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(pki.root.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("a verifier");
        self.finish(self.builder(rustls::DEFAULT_VERSIONS).with_client_cert_verifier(verifier))
    }

    fn builder(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier> {
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
    }

    fn finish(
        &self,
        builder: rustls::ConfigBuilder<rustls::ServerConfig, rustls::server::WantsServerCert>,
    ) -> TlsAcceptor {
        let mut config = self.config(builder);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    fn config(
        &self,
        builder: rustls::ConfigBuilder<rustls::ServerConfig, rustls::server::WantsServerCert>,
    ) -> rustls::ServerConfig {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        builder.with_single_cert(self.chain.clone(), key).expect("a server")
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// Valid for the loopback address, from 2020 to 2120.
pub(crate) fn good() -> CertificateParams {
    named("127.0.0.1")
}

/// Valid for `name`, from 2020 to 2120.
pub(crate) fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("params");
    params.distinguished_name.push(rcgen::DnType::CommonName, "Peil test leaf");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

/// Ended in 2021.
pub(crate) fn expired() -> CertificateParams {
    let mut params = good();
    params.not_after = date_time_ymd(2021, 1, 1);
    params
}

/// Begins in 2110.
pub(crate) fn not_yet_valid() -> CertificateParams {
    let mut params = good();
    params.not_before = date_time_ymd(2110, 1, 1);
    params
}
