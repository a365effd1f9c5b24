//! Subjects: no body brings the reader down, and whoever names one names it again when its JSON is written anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::operation::{Pointer, Subject};

fuzz_target!(|data: &[u8]| {
    let pointers = ["/a", "/b/0/c"].map(|text| Pointer::parse(text).unwrap());
    for pointers in [&pointers[..1], &pointers[..]] {
        let Ok(Some(subject)) = Subject::extract(pointers, data) else {
            continue;
        };
        let value: serde_json::Value = serde_json::from_slice(data).unwrap();
        let again = serde_json::to_vec(&value).unwrap();
        assert_eq!(Subject::extract(pointers, &again), Ok(Some(subject)));
    }
});
