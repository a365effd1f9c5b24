//! Any bytes as a bank's public key: a key or a reason, never a panic, and never a word of it in the reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::signature::{Algorithm, Fit, PublicKey};

fuzz_target!(|data: &[u8]| {
    for algorithm in Algorithm::ALL {
        match PublicKey::parse(algorithm, data) {
            Ok(key) => {
                assert_eq!(key.algorithm(), algorithm);
                assert_ne!(key.verify(b"message", &[0; 64]), Fit::Fits);
                assert_eq!(key.verify(b"message", &[]), Fit::WrongLength);
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.len() < 500);
                let text = String::from_utf8_lossy(data);
                let mut words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() > 16);
                assert!(!words.any(|word| said.contains(word)));
            }
        }
    }
});
