//! What somebody does who can write the audit log and ask its signer, and what a file may hold that nobody ever wrote:
//! both verifiers come to the same.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use priorgate::audit::verify::verify;
use priorgate::policy::chain::{CheckpointKey, Fields, Line, Mark, Source, Tip, seal};
use priorgate::policy::operation::UnixMillis;
use sha2::{Digest as _, Sha256};

use crate::support::audit::{Keys, ours, python};

const AT: UnixMillis = UnixMillis(1_795_000_000_001);
/// What a line ends with: the member with its hash.
const TAIL: usize = 75;

/// A log that is made by hand, with the signer's help.
struct Log<'k> {
    keys: &'k Keys,
    out: Vec<u8>,
    tip: Tip,
}

impl<'k> Log<'k> {
    fn new(keys: &'k Keys) -> Self {
        Self {
            keys,
            out: Vec::new(),
            tip: Tip::GENESIS,
        }
    }

    fn add(&mut self, fields: &Fields) {
        let source = Source::Row(Mark { journal: 1, row: 1 });
        self.tip = seal(&mut self.out, self.tip, AT, "boot", source, fields);
    }

    fn operations(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            self.add(&Fields::of("operation").text("id", "op_\u{e9}\"1"));
        }
        self
    }

    /// A checkpoint as the gate writes it, signed or refused.
    fn checkpoint(&mut self) -> &mut Self {
        let signed = self.keys.sign(self.tip);
        let fields = Fields::of("checkpoint")
            .number("of", self.tip.seq)
            .digest("head", Some(&self.tip.hash));
        let fields = match signed {
            Ok(signed) => {
                let hex: String = signed
                    .signature
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect();
                fields
                    .number("signed_at", signed.vouched.at)
                    .number("signatures", signed.vouched.signatures)
                    .number("before", signed.vouched.before.seq)
                    .digest("before_head", Some(&signed.vouched.before.hash))
                    .text("signature", &hex)
                    .text("key_id", &signed.key_id)
            }
            Err(refused) => fields.text("unsigned", &refused.to_string()),
        };
        self.add(&fields);
        self
    }

    fn lines(&self) -> Vec<Vec<u8>> {
        let lines = self.out.split_inclusive(|b| *b == b'\n');
        lines.map(<[u8]>::to_vec).collect()
    }

    /// Back to the first so many records.
    fn cut(&mut self, count: usize) -> &mut Self {
        let lines = self.lines();
        self.out = lines[..count].concat();
        let last = &lines[count - 1];
        self.tip = Line::parse(&last[..last.len() - 1]).unwrap().tip;
        self
    }
}

struct Place {
    _dir: tempfile::TempDir,
    keys: Keys,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            keys: Keys::make(dir.path()),
            file: dir.path().join("audit.jsonl"),
            _dir: dir,
        }
    }

    fn judged(&self, bytes: &[u8], anchors: &[String]) -> (bool, String) {
        std::fs::write(&self.file, bytes).unwrap();
        let files = std::slice::from_ref(&self.file);
        let ours = ours(Some(&self.keys.public), files, anchors);
        let python = python(&self.keys.public, files, anchors);
        assert_eq!(ours.good, python.good, "{}\n{}", ours.text, python.text);
        (ours.good, format!("{}\n{}", ours.text, python.text))
    }

    fn bad(&self, bytes: &[u8], words: &str) {
        let (good, said) = self.judged(bytes, &[]);
        assert!(!good && said.matches(words).count() >= 2, "{words}: {said}");
    }
}

#[test]
fn a_history_that_was_rewritten_is_not_good_although_its_end_is_signed() {
    let place = Place::new();
    let mut log = Log::new(&place.keys);
    for _ in 0..5 {
        log.operations(9).checkpoint();
    }
    assert!(place.judged(&log.out, &[]).0);
    // The gate writes on after a cut, and the signer refuses until the new branch is longer than the old one.
    log.cut(3).operations(9).checkpoint();
    place.bad(&log.out, "cut back");
    log.operations(60).checkpoint();
    place.bad(&log.out, "cut back");
    // A gate that somebody has taken over keeps the refusal to itself.
    let mut forged = Log::new(&place.keys);
    forged
        .operations(100)
        .checkpoint()
        .operations(9)
        .checkpoint();
    place.bad(&forged.out, "rewritten");
}

#[test]
fn thousands_of_records_after_the_last_signature_are_not_good() {
    let place = Place::new();
    let mut log = Log::new(&place.keys);
    log.operations(9).checkpoint().operations(300);
    assert!(place.judged(&log.out, &[]).0);
    log.operations(2_700);
    place.bad(&log.out, "3000 records");
}

#[test]
fn a_beginning_that_was_deleted_is_not_good_and_what_was_noted_of_it_is_missed() {
    let place = Place::new();
    let mut log = Log::new(&place.keys);
    log.operations(9).checkpoint().operations(9).checkpoint();
    let anchor = {
        let mut first = Log::new(&place.keys);
        first.out.clone_from(&log.out);
        first.cut(5);
        format!("{}:{}", first.tip.seq, first.tip.hash)
    };
    assert!(place.judged(&log.out, std::slice::from_ref(&anchor)).0);
    place.bad(&log.lines()[10..].concat(), "records 1 to 10 are not here");
    // Its end is on record: good, but not to somebody who has noted what was there.
    log.add(&Fields::of("ended").number("first", 1).number("last", 10));
    log.operations(2).checkpoint();
    let rest = log.lines()[10..].concat();
    assert!(place.judged(&rest, &[]).0);
    let (good, said) = place.judged(&rest, &[anchor]);
    assert!(
        !good && said.matches("record 5 was noted").count() == 2,
        "{said}"
    );
    // Another record 5 than was noted.
    let other = format!("5:{}", "ab".repeat(32));
    assert!(!place.judged(&log.out, &[other]).0);
}

#[test]
fn a_set_aside_file_has_the_name_of_its_first_record() {
    let place = Place::new();
    let mut log = Log::new(&place.keys);
    log.operations(9).checkpoint();
    for (name, expected) in [
        ("audit.jsonl.0000000000000001", true),
        ("audit.jsonl.0000000000000002", false),
    ] {
        let file = place.file.with_file_name(name);
        std::fs::write(&file, &log.out).unwrap();
        let files = [file];
        assert_eq!(ours(Some(&place.keys.public), &files, &[]).good, expected);
        assert_eq!(python(&place.keys.public, &files, &[]).good, expected);
    }
}

#[test]
fn the_auditors_program_steers_no_terminal_and_takes_no_file_for_an_anchor() {
    let place = Place::new();
    // A name of 64 characters, and a line that turns the terminal green.
    let file = place.file.with_file_name("a".repeat(64));
    std::fs::write(&file, "{\"hash\":\"\u{1b}[32m\"}\n\u{1b}[2J\n").unwrap();
    let said = python(&place.keys.public, &[file], &[]);
    assert!(
        !said.good && said.text.contains(":2: no record"),
        "{}",
        said.text
    );
    assert!(!said.text.contains('\u{1b}'));
}

/// What each mutant is to the auditor's program, which runs them all in one process: starting it each time takes longer
/// than its work.
fn python_verdicts(key: &Path, files: &[PathBuf]) -> Vec<bool> {
    const DRIVER: &str = "import contextlib, io, runpy, sys\n\
        for file in sys.stdin.read().split('\\n')[:-1]:\n\
        \x20   sys.argv = [sys.argv[0], sys.argv[1], file]\n\
        \x20   try:\n\
        \x20       with contextlib.redirect_stdout(io.StringIO()): runpy.run_path(sys.argv[0], run_name='__main__')\n\
        \x20   except SystemExit as end: print(end.code)\n";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audit_verify.py");
    let driver = format!("import sys; sys.argv = sys.argv[1:]\n{DRIVER}");
    let mut child = Command::new("python3")
        .args(["-c", &driver])
        .args([&script, key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut names = child.stdin.take().unwrap();
    for file in files {
        writeln!(names, "{}", file.display()).unwrap();
    }
    drop(names);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().map(|code| code == "0").collect()
}

/// xorshift: a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// What is put into a record, whose hash is then made anew: what two readers of JSON may see in two ways.
const PIECES: [&[u8]; 40] = [
    b",\"x\":1",
    b",\"x\":\"y\"",
    b",\"x\":true",
    b",\"x\":-7",
    b",\"x\":\"\\u00e9\\\"\\\\\"",
    b",\"x\":\"\\ud800\"",
    b",\"x\":null",
    b",\"x\":false",
    b",\"x\":1.0",
    b",\"x\":1e5",
    b",\"x\":-0",
    b",\"x\":007",
    b",\"x\":NaN",
    b",\"x\":Infinity",
    b",\"x\":123456789012345678",
    b",\"x\":1234567890123456789",
    b",\"x\":18446744073709551616",
    b",\"x\":\"\\u0041\"",
    b",\"x\":\"\\n\"",
    b",\"x\":\"\\/\"",
    b",\"x\":\"\\u00E9\"",
    b",\"x\":'y'",
    b",\"x\":[]",
    b",\"x\":{}",
    b",\"x\":[[[[[[[[",
    b",\"x\":1,\"x\":1",
    b",\"x\":1,\"x\":2",
    b",\"seq\":1",
    b",\"hash\":\"\"",
    b",\"\\u0073eq\":1",
    b",\"x\": 1",
    b" ",
    b"\r",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc3\xa9",
    b"\t",
    b",",
    b"/**/",
];

/// A record with its hash made anew.
fn sealed(body: &[u8], prev: &[u8; 32]) -> Vec<u8> {
    let mut sha = Sha256::new();
    sha.update(prev);
    sha.update([body, b"}"].concat());
    let hash: String = sha.finalize().iter().map(|b| format!("{b:02x}")).collect();
    [body, format!(",\"hash\":\"{hash}\"}}\n").as_bytes()].concat()
}

fn mutant(lines: &[Vec<u8>], prev: &[u8; 32], number: usize, random: &mut Random) -> Vec<u8> {
    let mut lines = lines.to_vec();
    let (any, last) = (random.below(lines.len()), lines.len() - 1);
    // The last record is behind the last signature, and whoever can write the file can make it anew.
    let body = lines[last][..lines[last].len() - 1 - TAIL].to_vec();
    let put = |at: usize, piece: &[u8]| sealed(&[&body[..at], piece, &body[at..]].concat(), prev);
    match number % 12 {
        0 => {
            let at = random.below(lines[any].len());
            lines[any][at] ^= 1 << random.below(8);
        }
        1 => drop(lines.remove(any)),
        2 => {
            let other = random.below(lines.len());
            lines.swap(any, other);
        }
        3 => {
            let mut all = lines.concat();
            all.truncate(random.below(all.len()));
            return all;
        }
        4 => lines.truncate(any),
        5 => lines.insert(random.below(lines.len()), lines[any].clone()),
        6 => {
            let piece = PIECES[random.below(PIECES.len())];
            let at = random.below(lines[any].len());
            lines[any].splice(at..at, piece.iter().copied());
        }
        7 => {
            let length = [100, 16_100, 16_500, 70_000][random.below(4)];
            let long = format!(",\"x\":\"{}\"", "a".repeat(length));
            let at = body.len() - 74;
            lines[last] = put(at, long.as_bytes());
        }
        8 => drop(lines.drain(..any)),
        // Before `prev`, where a member may stand; and anywhere.
        9 | 10 => {
            lines[last] = put(
                body.len() - 74,
                PIECES[(number / 12 * 2 + number % 2) % PIECES.len()],
            )
        }
        _ => {
            lines[last] = put(
                random.below(body.len() + 1),
                PIECES[random.below(PIECES.len())],
            )
        }
    }
    lines.concat()
}

#[test]
fn both_verifiers_come_to_the_same_over_five_hundred_mutants() {
    let place = Place::new();
    let mut log = Log::new(&place.keys);
    log.operations(9)
        .checkpoint()
        .operations(5)
        .checkpoint()
        .operations(3);
    let lines = log.lines();
    let before = &lines[lines.len() - 2];
    let prev = Line::parse(&before[..before.len() - 1]).unwrap().tip.hash.0;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut mutants: Vec<Vec<u8>> = (0..492)
        .map(|number| mutant(&lines, &prev, number, &mut random))
        .collect();
    let text = String::from_utf8(log.out.clone()).unwrap();
    mutants.push(Vec::new());
    mutants.push(b"\n".to_vec());
    mutants.push(text.replace('\n', "\r\n").into_bytes());
    mutants.push(format!("\u{feff}{text}").into_bytes());
    mutants.push(format!("{text}\n").into_bytes());
    mutants.push(format!("{text}\0").into_bytes());
    mutants.push(text.trim_end().as_bytes().to_vec());
    mutants.push([text.as_bytes(), &[b'['; 200_000], b"\n"].concat());
    mutants.push(
        text.replace("\"signed_at\":", "\"signed_at\":-")
            .into_bytes(),
    );
    let files: Vec<PathBuf> = (0..mutants.len())
        .map(|number| place.file.with_file_name(format!("mutant-{number}")))
        .collect();
    for (file, bytes) in files.iter().zip(&mutants) {
        std::fs::write(file, bytes).unwrap();
    }
    let theirs = python_verdicts(&place.keys.public, &files);
    assert_eq!(theirs.len(), files.len());
    let public = CheckpointKey::parse(&std::fs::read(&place.keys.public).unwrap()).unwrap();
    let keys = [public];
    let mut good = 0;
    for (file, theirs) in files.iter().zip(theirs) {
        let report = verify(std::slice::from_ref(file), Some(&keys), &[], &mut |_, _| {}).unwrap();
        let also = report.is_good(true);
        good += usize::from(also);
        let bytes = std::fs::read(file).unwrap();
        let last = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(400)..]).into_owned();
        assert_eq!(
            also,
            theirs,
            "{}: {:?}\n{last}",
            file.display(),
            report.findings
        );
    }
    // Members that nobody knows are allowed, and cuts behind the last signature cannot be seen.
    let bad = files.len() - good;
    assert!(good >= 20 && bad >= 400, "{good} good, {bad} not");
}
