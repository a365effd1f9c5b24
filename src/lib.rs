//! `priorgate`: a localhost sidecar that owns a shop's bank identity.

pub mod admin;
pub mod bank;
pub mod cli;
pub mod config;
pub mod egress;
pub mod net;
pub mod notify;
pub mod policy;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod telemetry;
pub mod tls;
