//! `grpc`: asks a service for its health (`grpc.health.v1.Health`).
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `address` | `host:port` | required |
//! | `service` | name of the service to ask about | empty: the server as a whole |
//! | `call` | `check`, or `watch` (the first message of the stream is judged) | `check` |
//! | `plaintext` | true: no TLS | false |
//! | `bearer_file` | secret: a token in the metadata | none |
//! | `server_name`, `ca_file`, `cert_days_min`, `client_cert_file`, … | see [`TlsOptions`] | |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! Fails with: everything `tls` fails with, `protocol` (not gRPC), `status` (not SERVING, or a status of gRPC other
//! than OK, which is the code of the sample: 5 unknown service, 12 no health service).

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, SecretRef, TlsOptions, address_problem};
use crate::settings::Fields;

/// Options of a `grpc` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// `host:port`; IPv6 in brackets.
    pub address: String,
    /// Service to ask about; empty for the server.
    pub service: String,
    /// Which call.
    pub call: GrpcCall,
    /// Without TLS.
    pub plaintext: bool,
    /// Token for bearer authentication.
    pub bearer_file: Option<SecretRef>,
    /// How TLS is spoken.
    pub tls: TlsOptions,
    /// Which addresses are used.
    pub family: Family,
}

/// How health is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrpcCall {
    /// One question, one answer.
    #[default]
    Check,
    /// A stream; its first message.
    Watch,
}

impl Options for Grpc {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        let mut found: Vec<_> = address_problem(&self.address).into_iter().chain(self.tls.problems()).collect();
        found.extend(self.bearer_file.iter().filter_map(|secret| secret.problem("bearer_file")));
        if self.service.len() > 1_024 {
            found.push("service is over 1024 bytes".to_owned());
        }
        if self.plaintext && self.tls != TlsOptions::default() {
            found.push("options of TLS mean nothing with plaintext".to_owned());
        }
        if self.plaintext && self.bearer_file.is_some() {
            found.push("bearer_file is not sent in plaintext".to_owned());
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let address = fields.need_str("address");
        let calls = [("check", GrpcCall::Check), ("watch", GrpcCall::Watch)];
        let read = Self {
            address: String::new(),
            service: fields.str_or("service", ""),
            call: fields.word_or("call", &calls, GrpcCall::default()),
            plaintext: fields.bool_or("plaintext", false),
            bearer_file: SecretRef::read(fields, "bearer_file"),
            tls: TlsOptions::read(fields),
            family: Family::read(fields),
        };
        Some(Self { address: address?, ..read })
    }
}
