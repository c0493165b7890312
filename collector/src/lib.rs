//! The collector: IN, KEEP, JUDGE, DRIVE, TELL, TRUST. Suggested reading order is the order below.

pub mod store;
pub mod snapshot;
pub mod pki;
pub mod tls;
