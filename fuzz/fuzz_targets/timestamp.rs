//! Any text as a timestamp: never a panic, and no timestamp is the beginning of another in its unit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::signature::Unit;

fuzz_target!(|data: &[u8]| {
    for unit in Unit::ALL {
        let Some(at) = unit.read(data) else {
            continue;
        };
        assert!(data.is_ascii() && data.len() <= 35);
        for end in 0..data.len() {
            assert!(unit.read(&data[..end]).is_none(), "{:?} in {}", data.escape_ascii(), unit.as_str());
        }
        match unit {
            Unit::Seconds => assert_eq!((at.0 / 1000).to_string().as_bytes(), data),
            Unit::Millis => assert_eq!(at.0.to_string().as_bytes(), data),
            Unit::Rfc3339 => assert!(at.0 >= -86_400_000),
        }
    }
});
