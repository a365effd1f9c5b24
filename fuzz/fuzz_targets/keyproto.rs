//! Any packet, on either side: a message that is written back the same, or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use priorgate::policy::keyproto::{Answer, Request};

fuzz_target!(|packet: &[u8]| {
    if let Ok((id, request)) = Request::decode(packet) {
        assert_eq!(request.encode(id), packet);
        assert!(Answer::decode(packet).is_err());
    }
    if let Ok((id, answer)) = Answer::decode(packet) {
        assert_eq!(answer.encode(id), packet);
    }
});
