//! Settings and a signature's header: never a panic, no more candidates than allowed, and one text for each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::signature::field::CANDIDATES_MAX;
use priorgate::policy::signature::{Encoding, Field, List};

fuzz_target!(|input: (u8, &str, Option<(char, &str)>, &[u8])| {
    let (encoding, prefix, list, value) = input;
    let encoding = Encoding::ALL[usize::from(encoding) % Encoding::ALL.len()];
    let list = list.map(|(separator, prefix)| List { separator, prefix: prefix.to_owned() });
    let lone = list.is_none();
    if let Some(bytes) = encoding.decode(value) {
        // Whatever is cut off or added makes it other bytes or none.
        let longer = [value, b"A"].concat();
        assert_ne!(encoding.decode(&longer).as_ref(), Some(&bytes));
        if let Some((_, shorter)) = value.split_last() {
            let padded = encoding == Encoding::Base64Url && value.ends_with(b"=");
            assert!(padded || encoding.decode(shorter).as_ref() != Some(&bytes));
        }
    }
    let Ok(field) = Field::new(encoding, prefix, list) else {
        return;
    };
    if let Ok(candidates) = field.read(value) {
        assert!((1..=CANDIDATES_MAX).contains(&candidates.len()));
        assert!(candidates.iter().all(|bytes| !bytes.is_empty() && bytes.len() <= value.len()));
        assert!(!lone || candidates.len() == 1 && value.starts_with(prefix.as_bytes()));
    }
});
