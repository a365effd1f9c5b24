//! The chain against itself, and against what somebody does to it.

mod signed;

use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};

use super::*;

const AT: UnixMillis = UnixMillis(1_795_000_000_001);
const BOOT: &str = "9f0a";

/// A signer as the keyholder is: it signs what is later than its last, and says what that was.
struct Keyholder {
    key: SigningKey,
    last: Tip,
}

impl Keyholder {
    fn new(seed: u8) -> Self {
        Self {
            key: SigningKey::from_bytes(&[seed; 32]),
            last: Tip::GENESIS,
        }
    }

    fn public(&self) -> CheckpointKey {
        let hex = Digest(self.key.verifying_key().to_bytes()).to_string();
        CheckpointKey::parse(hex.as_bytes()).unwrap()
    }

    fn sign(&mut self, tip: Tip) -> Fields {
        assert!(tip.seq > self.last.seq, "a signer would refuse");
        let vouched = Vouched {
            tip,
            at: 5,
            signatures: tip.seq,
            before: self.last,
        };
        self.last = tip;
        let signature = self.key.sign(&checkpoint_message(&vouched)).to_bytes();
        let signature: String = signature.iter().map(|b| format!("{b:02x}")).collect();
        Fields::of("checkpoint")
            .number("of", tip.seq)
            .digest("head", Some(&tip.hash))
            .number("signed_at", 5)
            .number("signatures", tip.seq)
            .number("before", vouched.before.seq)
            .digest("before_head", Some(&vouched.before.hash))
            .text("signature", &signature)
            .text("key_id", self.public().id())
    }
}

/// A log that is being written.
struct Log {
    out: Vec<u8>,
    tip: Tip,
    at: UnixMillis,
}

impl Log {
    fn new() -> Self {
        Self::after(Tip::GENESIS)
    }

    fn after(tip: Tip) -> Self {
        Self {
            out: Vec::new(),
            tip,
            at: AT,
        }
    }

    fn add(&mut self, fields: &Fields) {
        let mark = Mark {
            journal: 0xabc,
            row: 1,
        };
        self.tip = seal(
            &mut self.out,
            self.tip,
            self.at,
            BOOT,
            Source::Row(mark),
            fields,
        );
    }

    fn operations(&mut self, count: usize) {
        for _ in 0..count {
            let id = format!("op_{}", self.tip.seq + 1);
            self.add(&Fields::of("operation").text("id", &id));
        }
    }

    fn signed(&mut self, keyholder: &mut Keyholder) {
        self.add(&keyholder.sign(self.tip));
    }

    fn lines(&self) -> Vec<Vec<u8>> {
        lines(&self.out)
    }
}

/// Ten records and a signed checkpoint after each fifth.
fn log() -> Vec<Vec<u8>> {
    let (mut log, mut keyholder) = (Log::new(), Keyholder::new(7));
    for _ in 0..2 {
        log.operations(5);
        log.signed(&mut keyholder);
    }
    log.lines()
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let lines = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec);
    lines.filter(|line| !line.is_empty()).collect()
}

/// The faults by the number of the line, those of the whole, and the sum.
fn judged(
    keys: &[CheckpointKey],
    lines: &[Vec<u8>],
) -> (BTreeMap<usize, Fault>, Vec<Fault>, Summary) {
    let mut chain = Chain::new(Some(keys));
    let found = (1..).zip(lines).filter_map(|(number, line)| {
        let fault = chain.take(line).err()?;
        Some((number, fault))
    });
    let found = found.collect();
    (found, chain.end(), chain.summary().clone())
}

fn faults(lines: &[Vec<u8>]) -> (BTreeMap<usize, Fault>, Summary) {
    let (found, _, summary) = judged(&[Keyholder::new(7).public()], lines);
    (found, summary)
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

fn unsigned(tip: Tip, why: &str) -> Fields {
    Fields::of("checkpoint")
        .number("of", tip.seq)
        .digest("head", Some(&tip.hash))
        .text("unsigned", why)
}

#[test]
fn a_chain_that_nobody_touched_has_no_fault() {
    let (faults, summary) = faults(&log());
    assert_eq!(faults, BTreeMap::new());
    assert_eq!(
        (summary.records, summary.first, summary.signed),
        (12, Some(1), 2)
    );
    assert_eq!(summary.covered.unwrap().tip.seq, 11);
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
    let tip = |seq, byte| Tip {
        seq,
        hash: Digest([byte; 32]),
    };
    let message = checkpoint_message(&Vouched {
        tip: tip(0x0102, 9),
        at: 3,
        signatures: 4,
        before: tip(0x0101, 8),
    });
    let mut expected = b"priorgate audit checkpoint v2\0".to_vec();
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]);
    expected.extend_from_slice(&[9; 32]);
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4]);
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 1]);
    expected.extend_from_slice(&[8; 32]);
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
    let mut mine = Log::new();
    for line in log() {
        let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let fields = match read["signature"].as_str() {
            Some(signature) => Fields::of("checkpoint")
                .number("of", mine.tip.seq)
                .digest("head", Some(&mine.tip.hash))
                .number("signed_at", 5)
                .number("signatures", mine.tip.seq)
                .number("before", 0)
                .digest("before_head", Some(&GENESIS))
                .text("signature", signature)
                .text("key_id", read["key_id"].as_str().unwrap()),
            None => Fields::of("operation").text("id", "mine"),
        };
        mine.add(&fields);
    }
    let found = faults(&mine.lines()).0;
    assert_eq!(
        found,
        BTreeMap::from([(6, Fault::Forged), (12, Fault::Forged)])
    );
}

#[test]
fn signatures_that_were_taken_away_leave_their_records_uncovered() {
    let mut log = log();
    let mut bare = Log::after(Line::parse(&log[10]).unwrap().tip);
    bare.add(&unsigned(bare.tip, "no key"));
    log[11] = bare.lines()[0].clone();
    let (faults, summary) = faults(&log);
    assert_eq!(faults, BTreeMap::new());
    assert_eq!(
        (summary.covered.unwrap().tip.seq, summary.unsigned),
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
fn a_log_does_not_begin_at_a_false_beginning() {
    let first = String::from_utf8(log()[0].clone()).unwrap();
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
