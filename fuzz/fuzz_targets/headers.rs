//! The header rules over any names and values: nothing that is refused or ours ever reaches the other side.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use priorgate::policy::headers;

fuzz_target!(|lines: Vec<(Vec<u8>, Vec<u8>)>| {
    let mut map = HeaderMap::new();
    for (name, value) in lines.iter().take(64) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    let judged = headers::judge(&map, &[], true);
    for name in headers::towards_bank(&map, &[], &[]).keys() {
        assert!(!name.as_str().starts_with("priorgate-") && name != "authorization" && name != "cookie");
        assert!(!name.as_str().contains('_'));
    }
    if judged.is_ok() {
        assert!(!map.contains_key("origin") && !map.contains_key("forwarded"));
    }
    for name in headers::towards_caller(map).keys() {
        assert!(!name.as_str().starts_with("priorgate-") && name != "set-cookie" && name != "connection");
    }
});
