//! Durations and sizes: what parses formats back to the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::units::{format_duration, parse_duration, parse_size};

fuzz_target!(|text: &str| {
    if let Ok(value) = parse_duration(text) {
        assert_eq!(parse_duration(&format_duration(value)), Ok(value));
    }
    let _ = parse_size(text);
});
