//! What somebody does who can write the file and ask the signer, but has no key; and what a crash does.

use super::*;

fn all(keyholders: &[&Keyholder], lines: &[Vec<u8>]) -> Vec<Fault> {
    let keys: Vec<_> = keyholders.iter().map(|each| each.public()).collect();
    let (found, ends, _) = judged(&keys, lines);
    found.into_values().chain(ends).collect()
}

fn upto(lines: &[Vec<u8>], count: usize) -> Log {
    let mut log = Log::after(Line::parse(&lines[count - 1]).unwrap().tip);
    log.out = lines[..count].join(&b'\n');
    log.out.push(b'\n');
    log
}

#[test]
fn a_past_that_was_rewritten_behind_the_signers_back_is_found_at_its_next_signature() {
    let (mut log, mut keyholder) = (Log::new(), Keyholder::new(7));
    for _ in 0..3 {
        log.operations(5);
        log.signed(&mut keyholder);
    }
    assert_eq!(all(&[&keyholder], &log.lines()), []);
    // Cut back to record 3, and on from there until the signer signs again.
    let mut cut = upto(&log.lines(), 3);
    cut.operations(20);
    cut.signed(&mut keyholder);
    assert_eq!(all(&[&keyholder], &cut.lines()), [Fault::Rewritten(17)]);
    // Cut back to a signature, which is left in its place.
    let mut cut = upto(&log.lines(), 6);
    cut.operations(20);
    let mut again = Keyholder {
        last: log.tip,
        ..Keyholder::new(7)
    };
    again.last = Tip {
        seq: 17,
        hash: Line::parse(&log.lines()[16]).unwrap().tip.hash,
    };
    cut.signed(&mut again);
    assert_eq!(all(&[&again], &cut.lines()), [Fault::Rewritten(17)]);
    // A whole history of somebody's own.
    let mut forged = Log::new();
    forged.operations(40);
    let mut again = Keyholder {
        last: again.last,
        ..Keyholder::new(7)
    };
    forged.signed(&mut again);
    assert!(matches!(
        all(&[&again], &forged.lines())[..],
        [Fault::Rewritten(_)]
    ));
}

#[test]
fn a_signer_that_has_forgotten_is_told_from_one_that_begins() {
    let (mut log, mut keyholder) = (Log::new(), Keyholder::new(7));
    log.operations(5);
    log.signed(&mut keyholder);
    log.operations(5);
    log.signed(&mut Keyholder::new(7));
    assert_eq!(all(&[&keyholder], &log.lines()), [Fault::Rewritten(0)]);
}

#[test]
fn a_signature_whose_answer_was_lost_is_no_fault() {
    let (mut log, mut keyholder) = (Log::new(), Keyholder::new(7));
    log.operations(5);
    log.signed(&mut keyholder);
    log.operations(3);
    // Signed and remembered, and then the gate died.
    let _ = keyholder.sign(log.tip);
    log.operations(4);
    log.signed(&mut keyholder);
    assert_eq!(all(&[&keyholder], &log.lines()), []);
    // The first one of all.
    let (mut log, mut keyholder) = (Log::new(), Keyholder::new(7));
    log.operations(3);
    let _ = keyholder.sign(log.tip);
    log.operations(4);
    log.signed(&mut keyholder);
    assert_eq!(all(&[&keyholder], &log.lines()), []);
}

#[test]
fn what_the_signer_had_refused_is_a_fault_wherever_it_stands() {
    let (mut log, mut keyholder) = (Log::new(), Keyholder::new(7));
    log.operations(5);
    log.signed(&mut keyholder);
    let refused = crate::policy::keyproto::Refused::NotLater.to_string();
    log.add(&unsigned(log.tip, &refused));
    log.operations(5);
    log.signed(&mut keyholder);
    assert_eq!(all(&[&keyholder], &log.lines()), [Fault::CutBack]);
}

#[test]
fn more_than_a_healthy_log_leaves_unsigned_is_a_fault_and_less_is_not() {
    let (mut log, mut keyholder) = (Log::new(), Keyholder::new(7));
    log.operations(5);
    log.signed(&mut keyholder);
    log.operations(300);
    assert_eq!(all(&[&keyholder], &log.lines()), []);
    log.operations(1);
    let tail = |records, seconds| [Fault::Tail { records, seconds }];
    assert_eq!(all(&[&keyholder], &log.lines()), tail(301, 0));
    log.signed(&mut keyholder);
    assert_eq!(all(&[&keyholder], &log.lines()), []);
    // A long pause is none: only how long a record waits for its signature.
    log.at = UnixMillis(AT.0 + 86_400_000);
    log.operations(1);
    log.at = UnixMillis(log.at.0 + 120_000);
    log.operations(1);
    assert_eq!(all(&[&keyholder], &log.lines()), []);
    log.at = UnixMillis(log.at.0 + 1_000);
    log.operations(1);
    assert_eq!(all(&[&keyholder], &log.lines()), tail(3, 121));
}

#[test]
fn a_beginning_that_is_gone_needs_a_signed_record_of_its_end() {
    let ended = |last: u64| Fields::of("ended").number("first", 1).number("last", last);
    let (mut log, mut keyholder) = (Log::new(), Keyholder::new(7));
    log.operations(5);
    log.signed(&mut keyholder);
    log.operations(5);
    log.add(&ended(6));
    // Not signed yet.
    assert_eq!(all(&[&keyholder], &log.lines()[6..]), [Fault::Beginning(6)]);
    log.signed(&mut keyholder);
    assert_eq!(all(&[&keyholder], &log.lines()), []);
    assert_eq!(all(&[&keyholder], &log.lines()[6..]), []);
    // More is gone than was ended, or less.
    assert_eq!(all(&[&keyholder], &log.lines()[7..]), [Fault::Beginning(7)]);
    assert_eq!(all(&[&keyholder], &log.lines()[5..]), [Fault::Beginning(5)]);
    // A beginning of somebody's own, just before where the signer is.
    let mut mine = Log::after(Tip {
        seq: 11,
        hash: GENESIS,
    });
    mine.add(&ended(11));
    mine.operations(5);
    mine.signed(&mut keyholder);
    let found = all(&[&keyholder], &mine.lines());
    assert_eq!(found, [Fault::Rewritten(12), Fault::Beginning(11)]);
}

#[test]
fn a_key_that_took_anothers_place_goes_on_and_the_old_one_does_not_come_back() {
    let (mut log, mut old) = (Log::new(), Keyholder::new(7));
    log.operations(5);
    log.signed(&mut old);
    let mut new = Keyholder {
        last: old.last,
        ..Keyholder::new(8)
    };
    log.operations(5);
    log.signed(&mut new);
    for keys in [[&old, &new], [&new, &old]] {
        assert_eq!(all(&keys, &log.lines()), []);
    }
    assert_eq!(all(&[&old], &log.lines()), [Fault::OtherKey]);
    assert_eq!(all(&[&new], &log.lines()), [Fault::OtherKey]);
    log.operations(5);
    let mut stolen = Keyholder {
        last: new.last,
        ..Keyholder::new(7)
    };
    log.signed(&mut stolen);
    assert_eq!(all(&[&old, &new], &log.lines()), [Fault::ReplacedKey]);
}
