//! Decisions without IO, clock or async: bytes and configuration in, a typed verdict out.
//!
//! Everything here can be tested with a table and fuzzed without a runtime. Nothing here may import another layer.

pub mod caller;
pub mod chain;
pub mod denial;
pub mod event;
pub mod head;
pub mod headers;
pub mod keyproto;
pub mod operation;
pub mod outcome;
pub mod problem;
pub mod route;
pub mod schedule;
pub mod secret;
pub mod signature;
pub mod signing;
pub mod sockdiag;
pub mod status;
pub mod units;
pub mod webhook;
