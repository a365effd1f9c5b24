//! `priorgate keygen`: makes a secret of the kind that a file of the configuration wants. It never writes over one.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use clap::Subcommand;
use ed25519_dalek::SigningKey;
use rustls::crypto::aws_lc_rs::default_provider;
use zeroize::Zeroizing;

use super::{OK, PROBLEM, complain};

/// RFC 8410: a PKCS#8 of an Ed25519 key is this and 32 bytes.
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// And a SubjectPublicKeyInfo is this and 32 bytes.
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// What is made.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// A key pair for the audit log: audit.key_file and audit.public_key_file
    ///
    /// Give the public key to whoever verifies the log, before they need it.
    Audit {
        /// Where the private key goes
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Where the public key goes, which the gate must be able to read [default: beside the
        /// private one, with .pub instead of .key]
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
    },
    /// A secret for deliveries: deliver.secret_files, and the same in the shop
    Deliver {
        /// Where it goes
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// A token for callers on TCP: token_files, and the same in the caller
    Token {
        /// Where it goes
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Makes it. Gives the exit code.
pub(super) fn run(command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let made = match command {
        Command::Audit { file, public_key } => audit(file, public_key.as_deref(), err),
        Command::Deliver { file } => random().and_then(|bytes| {
            let text = Zeroizing::new(format!("whsec_{}\n", Base64::encode_string(&*bytes)));
            save(file, text.as_bytes(), 0o600).map(|()| vec![file.clone()])
        }),
        Command::Token { file } => random().and_then(|bytes| {
            let text = Zeroizing::new(format!("{}\n", Base64UrlUnpadded::encode_string(&*bytes)));
            save(file, text.as_bytes(), 0o600).map(|()| vec![file.clone()])
        }),
    };
    match made {
        Ok(files) => {
            for file in files {
                let _ = writeln!(out, "{}", file.display());
            }
            OK
        }
        Err(message) => {
            complain(err, &message);
            PROBLEM
        }
    }
}

fn audit(file: &Path, public: Option<&Path>, err: &mut dyn Write) -> Result<Vec<PathBuf>, String> {
    let public_file = public.map_or_else(|| file.with_extension("pub"), Path::to_owned);
    if public_file == file {
        return Err("name the private key's file, as in audit.key".to_owned());
    }
    // Before either is made: half a pair is in the way of the next attempt.
    for path in [file, &public_file] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(format!(
                "{} is there already: move it away, or name another",
                path.display()
            ));
        }
    }
    let seed = random()?;
    let public = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    let mut der = Zeroizing::new(Vec::with_capacity(PKCS8.len() + 32));
    der.extend_from_slice(&PKCS8);
    der.extend_from_slice(&*seed);
    let private = Zeroizing::new(pem("PRIVATE KEY", &der));
    // The public one first: where its directory is missing nothing secret was made.
    let public = pem("PUBLIC KEY", &[&SPKI[..], &public].concat());
    save(&public_file, public.as_bytes(), 0o644)?;
    // Whatever the umask: it is no secret, and of no use where nobody reads it.
    let _ = fs::set_permissions(&public_file, Permissions::from_mode(0o644));
    save(file, private.as_bytes(), 0o600)?;
    let directory = public_file
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    let closed = fs::metadata(directory).is_ok_and(|found| found.mode() & 0o001 == 0);
    if closed {
        let _ = writeln!(
            err,
            "{} lets no other user in: copy {} to where the gate can read it, beside its configuration, and name the copy in \
             audit.public_key_file",
            directory.display(),
            public_file.display()
        );
    }
    Ok(vec![file.to_owned(), public_file])
}

fn pem(label: &str, der: &[u8]) -> String {
    // Both are shorter than a line of PEM.
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        Base64::encode_string(der)
    )
}

fn random() -> Result<Zeroizing<[u8; 32]>, String> {
    let mut bytes = Zeroizing::new([0; 32]);
    default_provider()
        .secure_random
        .fill(&mut *bytes)
        .map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(bytes)
}

fn save(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| format!("cannot make {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::chain::{CheckpointKey, Tip, Vouched, checkpoint_message};
    use crate::policy::webhook::WebhookSecret;
    use ed25519_dalek::Signer;
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;

    fn make(command: &Command) -> (u8, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(command, &mut out, &mut err);
        (code, String::from_utf8([out, err].concat()).unwrap())
    }

    #[test]
    fn an_audit_key_signs_what_its_public_key_verifies_and_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("audit.key");
        let command = Command::Audit {
            file: file.clone(),
            public_key: None,
        };
        assert_eq!(make(&command).0, OK);
        let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_file(&file).unwrap() else {
            panic!("not PKCS#8");
        };
        let seed: [u8; 32] = der.secret_pkcs8_der()[16..].try_into().unwrap();
        let vouched = Vouched {
            tip: Tip::GENESIS,
            at: 1,
            signatures: 1,
            before: Tip::GENESIS,
        };
        let message = checkpoint_message(&vouched);
        let signature = SigningKey::from_bytes(&seed).sign(&message).to_bytes();
        let public = fs::read(dir.path().join("audit.pub")).unwrap();
        let public = CheckpointKey::parse(&public).unwrap();
        assert!(public.fits(&vouched, &signature));
        let (code, said) = make(&command);
        assert_eq!(code, PROBLEM);
        assert!(said.contains("audit.key"), "{said}");
        assert_eq!(fs::read(&file).unwrap().len(), 119);
    }

    #[test]
    fn half_a_pair_is_never_made_and_a_closed_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (file, elsewhere) = (
            dir.path().join("audit.key"),
            dir.path().join("elsewhere.pub"),
        );
        let command = |public_key| Command::Audit {
            file: file.clone(),
            public_key,
        };
        fs::write(dir.path().join("audit.pub"), "another's").unwrap();
        let (code, said) = make(&command(None));
        assert!(
            code == PROBLEM && said.contains("audit.pub is there"),
            "{said}"
        );
        assert!(!file.exists());
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let (code, said) = make(&command(Some(elsewhere.clone())));
        assert!(code == OK && said.contains("copy"), "{said}");
        assert!(file.exists() && elsewhere.exists());
    }

    #[test]
    fn secrets_are_of_the_form_that_their_readers_want() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, token) = (dir.path().join("deliver"), dir.path().join("token"));
        assert_eq!(
            make(&Command::Deliver {
                file: secret.clone()
            })
            .0,
            OK
        );
        assert_eq!(
            make(&Command::Token {
                file: token.clone()
            })
            .0,
            OK
        );
        let secret = fs::read_to_string(secret).unwrap();
        assert!(WebhookSecret::parse(secret.trim()).is_ok());
        let token = fs::read_to_string(token).unwrap();
        assert_eq!(token.trim().len(), 43);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(token.trim().chars().all(plain), "{token}");
    }
}
