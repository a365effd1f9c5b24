//! PEM files: certificates by the library, private keys by a reader whose every buffer is wiped.
//!
//! The library's reader leaves lines of the key in freed memory. Here each buffer has its final size before the first
//! byte of the key is in it, so none grows and leaves a copy behind.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
    SubjectPublicKeyInfoDer,
};
use zeroize::{Zeroize, Zeroizing};

/// An RSA-8192 key is under 8 KiB of PEM; a chain of certificates rarely above 16.
const FILE_MAX: usize = 64 << 10;
/// How the label of every kind of private key ends, an encrypted one's as well.
const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";

/// What is wrong with a PEM file. Never a byte of it.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// A certificate lies where a key is expected.
    #[error("{}: holds a certificate, not a private key; exchange cert_file and key_file?", path.display())]
    CertificateNotKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate as DER, or PKCS#12.
    #[error(
        "{0}: is binary (DER or PKCS#12), not PEM; convert it: openssl x509 -inform DER -in {0} -out NEW.crt, or openssl pkcs12 -in {0} -nokeys -out NEW.crt",
        path.display()
    )]
    CertificateDer {
        /// The file.
        path: PathBuf,
    },
    /// A key as DER, or PKCS#12.
    #[error(
        "{0}: is binary (DER or PKCS#12), not PEM; convert it: openssl pkcs12 -in {0} -nodes -nocerts -out NEW.key, or openssl pkey -inform DER -in {0} -out NEW.key",
        path.display()
    )]
    Der {
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted.
    #[error(
        "{0}: the private key is encrypted and nobody is there to type a passphrase; decrypt it: openssl pkey -in {0} -out NEW.key",
        path.display()
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// A private key in a file that the process without keys reads.
    #[error(
        "{0}: holds a private key, and this file is read by the process that must never have one; write the certificates \
         alone: openssl x509 -in {0} -out NEW.crt (the key into the file of key_file), and take a new key if others \
         could read this one",
        path.display()
    )]
    KeyBeside {
        /// The file.
        path: PathBuf,
    },
    /// No certificate in it.
    #[error("{}: holds no certificate (no BEGIN CERTIFICATE line)", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No private key in it.
    #[error("{}: holds no private key (no BEGIN PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY line)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// More than one private key.
    #[error("{}: holds more than one private key; keep the one that belongs to the certificate", path.display())]
    SeveralKeys {
        /// The file.
        path: PathBuf,
    },
    /// Broken PEM.
    #[error("{}: is damaged PEM ({what})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
    },
    /// Too large.
    #[error("{}: is larger than {FILE_MAX} bytes; is this the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl PemError {
    /// Whether it is only that this user may not read the file.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Reads every certificate of a PEM file, in order.
///
/// # Errors
/// [`PemError`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let bytes = read_public(path)?;
    let path = || path.to_owned();
    if bytes.first() == Some(&0x30) {
        return Err(PemError::CertificateDer { path: path() });
    }
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|_| PemError::Damaged {
        path: path(),
        what: "a certificate",
    })?;
    if found.is_empty() {
        Err(PemError::NoCertificate { path: path() })
    } else {
        Ok(found)
    }
}

/// Reads the first public key of a PEM file.
///
/// # Errors
/// [`PemError`].
pub fn public_key(path: &Path) -> Result<SubjectPublicKeyInfoDer<'static>, PemError> {
    let bytes = read_public(path)?;
    SubjectPublicKeyInfoDer::from_pem_slice(&bytes).map_err(|_| PemError::Damaged {
        path: path.to_owned(),
        what: "no BEGIN PUBLIC KEY section",
    })
}

/// Reads a file for a process that has no keys. One with a key in it goes no further than this buffer: the library, which
/// decodes whatever section it finds, never sees it.
///
/// # Errors
/// [`PemError`].
pub fn read_public(path: &Path) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let bytes = read(path)?;
    if bytes
        .windows(PRIVATE_KEY.len())
        .any(|part| part == PRIVATE_KEY)
    {
        return Err(PemError::KeyBeside {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// Reads the one private key of a PEM file: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// [`PemError`].
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let bytes = read(path)?;
    parse_private_key(&bytes, path)
}

/// Reads a whole file into a buffer that is wiped and never grows.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let mut buffer = Zeroizing::new(vec![0_u8; FILE_MAX]);
    let mut filled = 0;
    let unreadable = |source| PemError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    loop {
        let free = buffer.get_mut(filled..).unwrap_or_default();
        if free.is_empty() {
            return Err(PemError::TooLarge {
                path: path.to_owned(),
            });
        }
        match file.read(free) {
            Ok(0) => break,
            Ok(n) => filled = filled.saturating_add(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    // Shrinks the length, not the allocation: nothing is copied.
    buffer.truncate(filled);
    Ok(buffer)
}

/// Finds the one private key in the bytes of a PEM file; `path` is for the error.
///
/// # Errors
/// [`PemError`].
pub fn parse_private_key(bytes: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let path = || path.to_owned();
    let damaged = |what| PemError::Damaged { path: path(), what };
    if bytes.first() == Some(&0x30) {
        return Err(PemError::Der { path: path() });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let mut found = None;
    let mut certificate = false;
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after
            .split_once("-----")
            .ok_or_else(|| damaged("a BEGIN line"))?;
        let (body, after) = after
            .split_once("-----END ")
            .ok_or_else(|| damaged("no END line"))?;
        rest = after;
        match label {
            "CERTIFICATE" => certificate = true,
            "ENCRYPTED PRIVATE KEY" => return Err(PemError::Encrypted { path: path() }),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                if body.contains("ENCRYPTED") {
                    return Err(PemError::Encrypted { path: path() });
                }
                if found.is_some() {
                    return Err(PemError::SeveralKeys { path: path() });
                }
                if !after
                    .strip_prefix(label)
                    .is_some_and(|end| end.starts_with("-----"))
                {
                    return Err(damaged("the END line does not fit the BEGIN line"));
                }
                found = Some((label, body));
            }
            // Parameters of EC keys, and whatever else tools write beside the key.
            _ => {}
        }
    }
    match found {
        Some((label, body)) => decode(label, body).ok_or_else(|| damaged("the base64 of the key")),
        None if certificate => Err(PemError::CertificateNotKey { path: path() }),
        None => Err(PemError::NoKey { path: path() }),
    }
}

/// Decodes the base64 lines into a buffer of exactly the key's size, which the key then owns.
fn decode(label: &str, body: &str) -> Option<PrivateKeyDer<'static>> {
    let mut packed = Zeroizing::new(Vec::with_capacity(body.len()));
    packed.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let text = std::str::from_utf8(&packed).ok()?;
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    let size = (text.len() / 4).checked_mul(3)?.checked_sub(padding)?;
    let mut der = vec![0_u8; size];
    match Base64::decode(text, &mut der) {
        Ok(decoded) if decoded.len() == size => {}
        Ok(_) | Err(_) => {
            der.zeroize();
            return None;
        }
    }
    Some(match label {
        "RSA PRIVATE KEY" => PrivatePkcs1KeyDer::from(der).into(),
        "EC PRIVATE KEY" => PrivateSec1KeyDer::from(der).into(),
        _ => PrivatePkcs8KeyDer::from(der).into(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;

    fn key(text: &str) -> Result<PrivateKeyDer<'static>, PemError> {
        parse_private_key(text.as_bytes(), Path::new("k"))
    }

    fn pem() -> String {
        rcgen::KeyPair::generate().unwrap().serialize_pem()
    }

    #[test]
    fn a_key_reads_the_same_as_by_the_library() {
        for text in [
            pem(),
            pem().replace('\n', "\r\n"),
            format!("# a comment\n{}\nrest", pem()),
        ] {
            let library = PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(key(&text).unwrap().secret_der(), library.secret_der());
        }
    }

    #[test]
    fn what_is_no_plain_key_says_what_it_is() {
        let encrypted = pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert!(matches!(key(&encrypted), Err(PemError::Encrypted { .. })));
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert!(matches!(key(legacy), Err(PemError::Encrypted { .. })));
        let certificate = pem().replace("PRIVATE KEY", "CERTIFICATE");
        assert!(matches!(
            key(&certificate),
            Err(PemError::CertificateNotKey { .. })
        ));
        assert!(matches!(
            key(&format!("{0}{0}", pem())),
            Err(PemError::SeveralKeys { .. })
        ));
        assert!(matches!(key("hello"), Err(PemError::NoKey { .. })));
        assert!(matches!(key("\x30\x01"), Err(PemError::Der { .. })));
        assert!(matches!(
            key(&pem().replace("-----END", "-----")),
            Err(PemError::Damaged { .. })
        ));
        let broken = "-----BEGIN PRIVATE KEY-----\nA*AA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(key(broken), Err(PemError::Damaged { .. })));
    }

    #[test]
    fn a_binary_file_names_the_command_for_what_it_should_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bank.cer");
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::default();
        std::fs::write(&path, params.self_signed(&key).unwrap().der()).unwrap();
        let told = certificates(&path).unwrap_err().to_string();
        assert!(told.contains("openssl x509 -inform DER"), "{told}");
        std::fs::write(&path, key.serialize_der()).unwrap();
        let told = private_key(&path).unwrap_err().to_string();
        assert!(told.contains("openssl pkey -inform DER"), "{told}");
    }

    #[test]
    fn a_key_beside_a_certificate_or_a_public_key_is_refused_whatever_kind_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("both.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::default();
        let certificate = params.self_signed(&key).unwrap().pem();
        let public = key.public_key_pem();
        for label in [
            "PRIVATE KEY",
            "RSA PRIVATE KEY",
            "EC PRIVATE KEY",
            "ENCRYPTED PRIVATE KEY",
        ] {
            let private = pem().replace("PRIVATE KEY", label);
            for text in [
                format!("{certificate}{private}"),
                format!("{private}{certificate}"),
            ] {
                std::fs::write(&path, text).unwrap();
                let error = certificates(&path).unwrap_err();
                assert!(matches!(error, PemError::KeyBeside { .. }), "{error}");
                assert!(error.to_string().contains("openssl x509 -in"), "{error}");
            }
            std::fs::write(&path, format!("{public}{private}")).unwrap();
            assert!(matches!(public_key(&path), Err(PemError::KeyBeside { .. })));
        }
        std::fs::write(&path, &public).unwrap();
        assert_eq!(
            &*public_key(&path).unwrap(),
            key.subject_public_key_info().as_slice()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", body in "[A-Za-z0-9+/=\n]{0,200}") {
            let _ = key(&text);
            let _ = key(&format!("-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----"));
        }
    }
}
