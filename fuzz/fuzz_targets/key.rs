//! Idempotency keys: quoted and bare are one key, and what is taken can be written in a header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::operation::Key;

fuzz_target!(|data: &[u8]| {
    if let Ok(key) = Key::parse(data)
        && !data.starts_with(b"\"")
    {
        let quoted = [b"\"", data, b"\""].concat();
        assert_eq!(Key::parse(&quoted), Ok(key));
        assert!(data.iter().all(u8::is_ascii_graphic));
    }
});
