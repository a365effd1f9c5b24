//! What touches the sockets of callers.

pub mod guard;
