//! Sockets and HTTP/1.1 framing, both ways. It knows bytes, deadlines and bounds; no bank, no route, no meaning.

pub mod accept;
pub mod body;
pub mod clock;
pub mod denials;
pub mod exchange;
pub mod guard;
pub mod ids;
pub mod inherit;
pub mod listen;
pub mod meter;
pub mod peer;
pub mod presence;
pub mod respond;
pub mod serve;
pub mod sockdiag;
pub mod wire;
