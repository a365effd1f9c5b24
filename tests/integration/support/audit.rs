//! An audit log as a scenario sees it: its records, its files, a key pair, and both verifiers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ed25519_dalek::{Signer, SigningKey};
use priorgate::audit::{CheckpointSigner, SignedCheckpoint, files_of};
use priorgate::policy::chain::checkpoint_message;
use serde_json::Value;

/// The records of all files, oldest first.
pub(crate) fn records(log: &Path) -> Vec<Value> {
    let mut all = Vec::new();
    for file in files_of(log).unwrap() {
        let text = std::fs::read_to_string(file).unwrap();
        // The last line may be being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        all.extend(
            whole
                .lines()
                .map(|line| serde_json::from_str(line).unwrap()),
        );
    }
    all
}

/// Those of one event.
pub(crate) fn of(log: &Path, event: &str) -> Vec<Value> {
    let mut all: Vec<Value> = records(log);
    all.retain(|record| record["event"] == event);
    all
}

/// A key pair made by the program.
pub(crate) struct Keys {
    pub(crate) public: PathBuf,
    seed: [u8; 32],
}

impl Keys {
    pub(crate) fn make(dir: &Path) -> Self {
        let private = dir.join("audit.key");
        let output = Command::new(env!("CARGO_BIN_EXE_priorgate"))
            .args(["keygen", "audit"])
            .arg(&private)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let pem = std::fs::read_to_string(&private).unwrap();
        let base64 = pem.lines().nth(1).unwrap();
        let der = <base64ct::Base64 as base64ct::Encoding>::decode_vec(base64).unwrap();
        Self {
            public: dir.join("audit.pub"),
            seed: der[16..].try_into().unwrap(),
        }
    }

    /// Stands in for the keyholder.
    pub(crate) fn signer(&self) -> CheckpointSigner {
        let key = SigningKey::from_bytes(&self.seed);
        let mut signatures = 0;
        Box::new(move |tip| {
            signatures += 1;
            let at = 1_795_000_000_000 + signatures;
            let message = checkpoint_message(tip, at, signatures);
            Ok(SignedCheckpoint {
                at,
                signatures,
                signature: key.sign(&message).to_bytes(),
                key_id: "0011223344556677".to_owned(),
            })
        })
    }
}

/// What a verifier said.
pub(crate) struct Said {
    pub(crate) good: bool,
    pub(crate) text: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        assert!(!text.contains("Traceback"), "{text}");
        Self {
            good: output.status.success(),
            text,
        }
    }
}

/// `priorgate audit verify`.
pub(crate) fn ours(key: Option<&Path>, files: &[PathBuf], anchors: &[String]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
    command.args(["audit", "verify"]).args(files);
    match key {
        Some(key) => command.arg("--public-key").arg(key),
        None => command.arg("--no-key"),
    };
    for anchor in anchors {
        command.args(["--anchor", anchor]);
    }
    Said::of(&command.output().unwrap())
}

/// The auditor's own.
pub(crate) fn python(key: &Path, files: &[PathBuf], anchors: &[String]) -> Said {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audit_verify.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(key).args(files).args(anchors);
    Said::of(&command.output().unwrap())
}
