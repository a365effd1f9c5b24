//! The kernel's answer about a socket: never a panic, and a uid only out of a whole answer about the very connection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::sockdiag::{Question, Verdict};

fuzz_target!(|data: &[u8]| {
    let v4 = Question {
        caller: ([127, 0, 0, 1], 40_000).into(),
        ours: ([127, 0, 0, 1], 9_180).into(),
        sequence: 7,
    };
    let v6 = Question {
        caller: (std::net::Ipv6Addr::LOCALHOST, 40_000).into(),
        ours: (std::net::Ipv6Addr::LOCALHOST, 9_180).into(),
        sequence: 7,
    };
    for question in [v4, v6] {
        let Verdict::Caller(uid) = question.judge(data) else {
            continue;
        };
        assert!(data.len() >= 88 && data[..4] == (data.len() as u32).to_ne_bytes());
        assert_eq!(data[8..12], 7_u32.to_ne_bytes(), "another question's answer");
        assert_eq!(data[17], 1, "not established");
        assert_eq!(data[20..24], question.encode()[24..28], "other ports");
        assert_eq!(data[80..84], uid.to_ne_bytes());
        assert_ne!(data[84..88], [0; 4], "nobody's");
    }
});
