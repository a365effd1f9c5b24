//! Any bytes as what is to be signed: only the two shapes of a TLS client, told by another way of looking at them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::signing::{Lowest, Shape, Verdict, judge};

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (scheme, old, message) = input;
    let lowest = if old { Lowest::Tls12 } else { Lowest::Tls13 };
    if let Verdict::Sign(shape) = judge(message, scheme, lowest) {
        assert_ne!(scheme & 0xff00, 0x0200, "SHA-1");
        match shape {
            Shape::Tls13 => {
                assert!(matches!(message.len(), 130 | 146));
                assert!(message[..64].iter().all(|byte| *byte == b' '));
                assert_eq!(&message[64..98], b"TLS 1.3, client CertificateVerify\0");
            }
            Shape::Tls12 => {
                assert!(old && message[0] == 1 && message[1] == 0);
                let (mut at, mut types) = (0, Vec::new());
                while at < message.len() {
                    types.push(message[at]);
                    let length = message[at + 1..at + 4].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                    at += 4 + length;
                }
                assert_eq!(at, message.len());
                types.retain(|kind| *kind != 22);
                assert_eq!(types, [1, 2, 11, 12, 13, 14, 11, 16]);
            }
        }
    }
});
