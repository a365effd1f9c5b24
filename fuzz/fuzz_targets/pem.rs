//! Any bytes as a private key's file: a key or a reason, never a panic, and never a byte of it in the reason.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use priorgate::tls::pem::parse_private_key;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = parse_private_key(bytes, Path::new("k")) {
        assert!(error.to_string().len() < 400);
    }
});
