//! Patterns against paths: an accepted pattern matches itself, and overlap is symmetric.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::route::PathPattern;

fuzz_target!(|texts: (&str, &str)| {
    let (Ok(a), Ok(b)) = (PathPattern::parse(texts.0), PathPattern::parse(texts.1)) else {
        return;
    };
    assert_eq!(a.overlaps(&b), b.overlaps(&a));
    if !texts.0.contains('{') {
        assert!(a.matches(texts.0));
        assert_eq!(a.overlaps(&b), b.matches(texts.0));
    }
});
