//! The chain against itself, and against what somebody does to it.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};

use super::*;
use crate::policy::signature::{Algorithm, PublicKey};

const AT: UnixMillis = UnixMillis(1_795_000_000_001);
const BOOT: &str = "9f0a";

fn secret() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public() -> PublicKey {
    let hex = Digest(secret().verifying_key().to_bytes()).to_string();
    PublicKey::parse(Algorithm::Ed25519, hex.as_bytes()).unwrap()
}

/// Ten records and a signed checkpoint after each fifth.
fn log() -> Vec<Vec<u8>> {
    let (mut out, mut tip) = (Vec::new(), Tip::GENESIS);
    for number in 1..=10_i64 {
        let mark = Mark {
            journal: 0xabc,
            row: number,
        };
        let fields = Fields::of("operation").text("id", &format!("op_{number}"));
        tip = seal(&mut out, tip, AT, BOOT, Source::Row(mark), &fields);
        if number % 5 == 0 {
            tip = seal(
                &mut out,
                tip,
                AT,
                BOOT,
                Source::After(mark),
                &checkpoint(tip),
            );
        }
    }
    lines(&out)
}

fn checkpoint(tip: Tip) -> Fields {
    let message = checkpoint_message(tip, 5, tip.seq);
    let signature = secret().sign(&message).to_bytes();
    let signature: String = signature.iter().map(|b| format!("{b:02x}")).collect();
    Fields::of("checkpoint")
        .number("of", tip.seq)
        .digest("head", Some(&tip.hash))
        .number("signed_at", 5)
        .number("signatures", tip.seq)
        .text("signature", &signature)
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let lines = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec);
    lines.filter(|line| !line.is_empty()).collect()
}

/// The faults by the number of the line.
fn faults(lines: &[Vec<u8>]) -> (BTreeMap<usize, Fault>, Summary) {
    let key = public();
    let mut chain = Chain::new(Some(&key));
    let found = (1..).zip(lines).filter_map(|(number, line)| {
        let fault = chain.take(line).err()?;
        Some((number, fault))
    });
    let found = found.collect();
    (found, chain.summary().clone())
}

/// Changes a line and makes its hash anew, as somebody would who has read the source.
fn rewrite(line: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(line).unwrap().replace(from, to);
    let body = format!("{}}}", &text[..text.len() - TAIL]);
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    let prev = read["prev"].as_str().unwrap();
    let prev = (0..32).map(|i| u8::from_str_radix(&prev[2 * i..2 * i + 2], 16).unwrap());
    let prev = Digest(prev.collect::<Vec<_>>().try_into().unwrap());
    let hash = hash(prev, body.as_bytes());
    format!("{},\"hash\":\"{hash}\"}}", &body[..body.len() - 1]).into_bytes()
}

#[test]
fn a_chain_that_nobody_touched_has_no_fault() {
    let (faults, summary) = faults(&log());
    assert_eq!(faults, BTreeMap::new());
    assert_eq!(
        (summary.records, summary.first, summary.signed),
        (12, Some(1), 2)
    );
    assert_eq!(summary.covered.unwrap().seq, 11);
    assert_eq!(summary.last.unwrap().seq, 12);
}

#[test]
fn the_bytes_of_a_record_are_those_of_the_document() {
    let mut out = Vec::new();
    let fields = Fields::of("start").text("version", "1.0");
    let tip = seal(&mut out, Tip::GENESIS, AT, BOOT, Source::NoJournal, &fields);
    let zeros = "0".repeat(64);
    let body = format!(
        "{{\"seq\":1,\"at\":\"2026-11-18T11:06:40.001Z\",\"boot\":\"9f0a\",\"journal\":null,\"after\":0,\"event\":\"start\",\
         \"version\":\"1.0\",\"prev\":\"{zeros}\"}}"
    );
    let mut sha = Sha256::new();
    sha.update([0; 32]);
    sha.update(body.as_bytes());
    let expected = Digest(sha.finalize().into());
    assert_eq!(
        tip,
        Tip {
            seq: 1,
            hash: expected
        }
    );
    let line = format!("{},\"hash\":\"{expected}\"}}\n", &body[..body.len() - 1]);
    assert_eq!(String::from_utf8(out).unwrap(), line);
}

#[test]
fn a_message_begins_with_its_domain_and_holds_what_was_agreed() {
    let tip = Tip {
        seq: 0x0102,
        hash: Digest([9; 32]),
    };
    let message = checkpoint_message(tip, 3, 4);
    let mut expected = b"priorgate audit checkpoint v1\0".to_vec();
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]);
    expected.extend_from_slice(&[9; 32]);
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4]);
    assert_eq!(message, expected);
}

#[test]
fn an_edit_is_found_where_it_is() {
    let mut log = log();
    log[2] = String::from_utf8(log[2].clone())
        .unwrap()
        .replace("op_3", "op_x")
        .into_bytes();
    assert_eq!(faults(&log).0, BTreeMap::from([(3, Fault::Edited)]));
}

#[test]
fn every_flipped_bit_is_a_fault() {
    let log = log();
    for bit in 0..log[3].len() * 8 {
        let mut changed = log.clone();
        changed[3][bit / 8] ^= 1 << (bit % 8);
        assert!(!faults(&changed).0.is_empty(), "bit {bit}");
    }
}

#[test]
fn an_edit_with_a_new_hash_breaks_the_next_link() {
    let mut log = log();
    log[2] = rewrite(&log[2], "op_3", "op_x");
    assert_eq!(faults(&log).0, BTreeMap::from([(4, Fault::Unchained)]));
}

#[test]
fn a_chain_that_was_made_anew_fails_at_the_signature() {
    let (mut out, mut tip) = (Vec::new(), Tip::GENESIS);
    for line in log() {
        let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let fields = match read["signature"].as_str() {
            Some(signature) => Fields::of("checkpoint")
                .number("of", tip.seq)
                .digest("head", Some(&tip.hash))
                .number("signed_at", 5)
                .number("signatures", tip.seq)
                .text("signature", signature),
            None => Fields::of("operation").text("id", "mine"),
        };
        tip = seal(&mut out, tip, AT, BOOT, Source::NoJournal, &fields);
    }
    let found = faults(&lines(&out)).0;
    assert_eq!(
        found,
        BTreeMap::from([(6, Fault::Forged), (12, Fault::Forged)])
    );
}

#[test]
fn signatures_that_were_taken_away_leave_their_records_uncovered() {
    let mut log = log();
    let tip = Line::parse(&log[10]).unwrap().tip;
    let mut out = Vec::new();
    let bare = Fields::of("checkpoint")
        .number("of", tip.seq)
        .digest("head", Some(&tip.hash));
    let _ = seal(&mut out, tip, AT, BOOT, Source::NoJournal, &bare);
    log[11] = lines(&out)[0].clone();
    let (faults, summary) = faults(&log);
    assert_eq!(faults, BTreeMap::new());
    assert_eq!(
        (summary.covered.unwrap().seq, summary.unsigned),
        (5, Some(12))
    );
}

#[test]
fn what_is_gone_is_named() {
    let mut log = log();
    log.drain(2..4);
    assert_eq!(faults(&log).0, BTreeMap::from([(3, Fault::Missing(3, 4))]));
    let text = Fault::Missing(3, 4).to_string();
    assert!(text.contains("records 3 to 4 are missing"), "{text}");
    assert!(
        Fault::Missing(3, 3)
            .to_string()
            .contains("record 3 is missing")
    );
}

#[test]
fn two_that_changed_places_are_found() {
    let mut log = log();
    log.swap(2, 3);
    let found = faults(&log).0;
    assert_eq!(found.get(&3), Some(&Fault::Missing(3, 3)));
    let swapped = Fault::OutOfOrder {
        found: 3,
        expected: 5,
    };
    assert_eq!(found.get(&4), Some(&swapped));
}

#[test]
fn a_log_may_begin_later_but_not_at_a_false_beginning() {
    let log = log();
    let (none, summary) = faults(&log[6..]);
    assert_eq!((none.len(), summary.first), (0, Some(7)));
    let first = String::from_utf8(log[0].clone()).unwrap();
    let other = rewrite(first.as_bytes(), &"0".repeat(64), &"1".repeat(64));
    assert_eq!(faults(&[other]).0, BTreeMap::from([(1, Fault::Unchained)]));
}

#[test]
fn what_is_no_record_is_told_and_gone_past() {
    let mut log = log();
    log.insert(3, b"{\"seq\":4".to_vec());
    log.insert(5, b"[]".to_vec());
    let found = faults(&log).0;
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [4, 6]);
    assert!(
        found
            .values()
            .all(|fault| matches!(fault, Fault::Malformed(_)))
    );
}
