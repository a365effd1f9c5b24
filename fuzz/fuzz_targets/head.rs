//! A raw request head: never a panic, and a scan in pieces says what a scan in one piece says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::head::{Rules, Scanner, Verdict, judge};

const RULES: Rules = Rules { max_bytes: 4096, max_headers: 16 };

fuzz_target!(|data: &[u8]| {
    let whole = judge(data, &RULES);
    let mut scanner = Scanner::default();
    let mut last = Verdict::Incomplete;
    for end in 1..=data.len() {
        last = scanner.scan(&data[..end], &RULES);
        if !matches!(last, Verdict::Incomplete) {
            break;
        }
    }
    match (&whole, &last) {
        (Verdict::Accept(a), Verdict::Accept(b)) => {
            assert_eq!(a, b);
            assert!(a.head_len <= data.len() && a.head_len <= RULES.max_bytes);
            assert!(data[..a.head_len].ends_with(b"\r\n\r\n"));
        }
        (Verdict::Refuse(_), Verdict::Refuse(_)) | (Verdict::Incomplete, Verdict::Incomplete) => {}
        _ => panic!("{whole:?} in one piece, {last:?} byte by byte"),
    }
});
