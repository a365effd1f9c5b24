//! `priorgate`: a localhost sidecar that owns a shop's bank identity.

pub mod cli;
pub mod config;
pub mod net;
pub mod policy;
