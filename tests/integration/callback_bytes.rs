//! Any bytes, in any pieces: what the shop gets is what the bank signed.

use std::io::Write;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64ct::{Base64, Encoding};
use priorgate::sandbox::CallbackAlgorithm;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::callbacks::{PATH, setup};
use crate::support::client::{Target, post};
use crate::support::pki::replace;
use crate::support::sandbox::SandboxBank;
use crate::support::shop::Shop;
use crate::support::until;

/// A body, and where the request that carries it is cut: shares of its length.
fn cases() -> impl Strategy<Value = (Vec<u8>, Vec<f64>)> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(any::<u8>(), 8_000..70_000),
        // What a parser, a shell or an encoder would change.
        prop::collection::vec(
            prop::sample::select(b"{}[]\"\\\r\n\t \0\xef\xbb\xbf\xff0".as_slice()),
            0..300
        ),
    ];
    (bytes, prop::collection::vec(0.0..1.0, 0..6))
}

#[test]
fn any_bytes_in_any_pieces_reach_the_shop_as_they_are_and_changed_ones_do_not() {
    let bank = SandboxBank::with_callbacks(CallbackAlgorithm::Ed25519);
    let shop = Shop::open();
    let setup = setup(&bank, shop.addr(), CallbackAlgorithm::Ed25519);
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = Base64::encode_string(pair.public_key().as_ref());
    replace(&setup.path().join("bank-callback.pem"), &key);
    let gate = setup.start();
    let socket = Target::Unix(gate.path().join("callback.sock"));
    let mut number = 0_u32;
    let config = Config {
        cases: 60,
        failure_persistence: None,
        ..Config::default()
    };
    let play = |(body, cuts): (Vec<u8>, Vec<f64>)| {
        // The same bytes twice are a repeat: each case is another event.
        number += 1;
        let body = [&body[..], &number.to_be_bytes()].concat();
        let signature = Base64::encode_string(pair.sign(&body).as_ref());
        let header = format!("X-Signature: {signature}\r\n");
        let request = post(PATH, &header, &body);
        let mut cuts: Vec<usize> = cuts
            .iter()
            .map(|cut| (cut * request.len() as f64) as usize)
            .collect();
        cuts.push(request.len());
        cuts.sort_unstable();
        let before = shop.count();
        let mut caller = socket.connect();
        let mut from = 0;
        for cut in cuts {
            caller.write_all(&request[from..cut]).unwrap();
            from = cut;
            std::thread::park_timeout(Duration::from_millis(2));
        }
        prop_assert_eq!(caller.answer().status, 200);
        until("it is delivered", || shop.count() == before + 1);
        let delivery = shop.deliveries().pop().unwrap();
        prop_assert!(delivery.body == body, "the shop got other bytes");
        let session = delivery.header("priorgate-session");
        prop_assert_eq!(session, "unknown");
        for at in [0, body.len() / 2, body.len() - 1] {
            let mut forged = body.clone();
            forged[at] ^= 1;
            prop_assert_eq!(socket.post(PATH, &header, &forged).status, 503);
        }
        prop_assert_eq!(shop.count(), before + 1);
        Ok(())
    };
    let play = std::cell::RefCell::new(play);
    let mut runner = TestRunner::new(config);
    runner
        .run(&cases(), |case| (play.borrow_mut())(case))
        .unwrap();
}
