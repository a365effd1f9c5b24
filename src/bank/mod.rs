//! One configured bank: where it is, how it is dialled, which connections to it stand idle, and how a request is sent.
//!
//! It knows identity and trust as finished TLS material; no route, no caller, no journal.

pub mod breaker;
pub mod dial;
pub mod pool;
pub mod resolve;
pub mod send;

pub use send::{Bank, Outbound, Refused};
