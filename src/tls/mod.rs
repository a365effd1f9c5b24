//! TLS material and the handshake with the bank: what is trusted, who we are, how the key signs.

pub mod client;
pub mod identity;
pub mod key;
pub mod keyholder;
pub mod pem;
pub mod secretfile;
pub mod store;
pub mod trust;
