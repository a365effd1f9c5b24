//! An audit log as a scenario sees it: its records, its files, a key pair, and both verifiers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use ed25519_dalek::{Signer, SigningKey};
use priorgate::audit::{CheckpointSigner, SignedCheckpoint, Unsigned, files_of};
use priorgate::policy::chain::{CheckpointKey, Tip, Vouched, checkpoint_message};
use priorgate::policy::keyproto::Refused;
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

/// A key pair made by the program, and what its signer remembers.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) public: PathBuf,
    seed: [u8; 32],
    pub(crate) last: Arc<Mutex<(Tip, u64)>>,
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
            last: Arc::new(Mutex::new((Tip::GENESIS, 0))),
        }
    }

    /// As the keyholder signs, which refuses what is not later.
    pub(crate) fn sign(&self, tip: Tip) -> Result<SignedCheckpoint, Refused> {
        let mut last = self.last.lock().unwrap();
        let (before, count) = *last;
        if tip.seq <= before.seq {
            return Err(Refused::NotLater);
        }
        *last = (tip, count + 1);
        let vouched = Vouched {
            tip,
            at: 1_795_000_000_000 + count,
            signatures: count + 1,
            before,
        };
        let public = std::fs::read(&self.public).unwrap();
        let signature = SigningKey::from_bytes(&self.seed).sign(&checkpoint_message(&vouched));
        Ok(SignedCheckpoint {
            vouched,
            signature: signature.to_bytes(),
            key_id: CheckpointKey::parse(&public).unwrap().id().to_owned(),
        })
    }

    /// Stands in for the keyholder.
    pub(crate) fn signer(&self) -> CheckpointSigner {
        let keys = self.clone();
        Box::new(move |tip| {
            keys.sign(tip).map_err(|refused| match refused {
                Refused::NotLater => Unsigned::Behind(refused.to_string()),
                other => Unsigned::Other(other.to_string()),
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

/// The same with several keys.
pub(crate) fn ours_by(keys: &[&Path], files: &[PathBuf]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
    command.args(["audit", "verify"]).args(files);
    for key in keys {
        command.arg("--public-key").arg(key);
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
