//! `priorgate`: a localhost sidecar that owns a shop's bank identity.
//!
//! Imports go downward only (`tests/integration/layers.rs` holds that). If you are new here, read in this order:
//!
//! 1. [`policy`]: every decision, as functions of bytes and configuration.
//! 2. [`egress`]: the story of a request, top to bottom.
//! 3. [`net`], [`tls`], [`bank`]: what it is told with.
//! 4. [`gate`] and [`lifecycle`]: how the process is wired, started, reloaded and drained.

pub mod admin;
pub mod app;
pub mod audit;
pub mod bank;
pub mod callback;
pub mod cli;
pub mod config;
#[cfg(feature = "sandbox")]
pub mod demo;
pub mod egress;
pub mod gate;
pub mod harden;
pub mod journal;
pub mod keyholder;
pub mod lifecycle;
pub mod metrics;
pub mod net;
pub mod notify;
pub mod policy;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod telemetry;
pub mod tls;
