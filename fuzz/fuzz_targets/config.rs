//! Any text as a configuration: a verdict, never a panic, and every mistake says something.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use priorgate::config::check::parse;

fuzz_target!(|text: &str| {
    if let Err(error) = parse(Path::new("/fuzz/config.yaml"), text) {
        assert!(!error.mistakes.is_empty());
        assert!(error.mistakes.iter().all(|mistake| !mistake.message.is_empty()));
    }
});
