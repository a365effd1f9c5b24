//! The throw-away PKI of the sandbox bank: made at each start, trusted by nobody else.
//!
//! Owns the two certificate authorities, the bank's server certificate and the shop's client
//! certificate, and writes the shop's side of it to a directory. The keys of the authorities and of
//! the bank never leave memory. Knows nothing of TLS sessions or HTTP.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The names that the bank's server certificate is good for.
pub const SERVER_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "bank.sandbox.example"];

const DAY: Duration = Duration::from_secs(86_400);
/// Long enough that no expiry warning (30 days) fires, short enough to be worthless when found.
const LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// A certificate could not be made or a file not written.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The certificate library refused.
    #[error("cannot make the sandbox certificate for `{subject}`")]
    Make {
        /// Whose certificate it was to be.
        subject: String,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// The file system refused.
    #[error("cannot write `{}`; choose a directory that this user may write to", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A certificate with its key, as issued by one of the authorities.
pub struct Issued {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: KeyPair,
}

impl Issued {
    /// The certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PKCS#8 in DER.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// The private key, PKCS#8 in PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// Where [`Pki::write`] put the shop's files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PkiFiles {
    /// The authority that the shop trusts for the bank: `bank-ca.pem`.
    pub bank_ca: PathBuf,
    /// The authority that the bank trusts for shops: `client-ca.pem`.
    pub client_ca: PathBuf,
    /// The shop's certificate: `client.crt`.
    pub client_certificate: PathBuf,
    /// The shop's private key, readable by its owner only: `client.key`.
    pub client_key: PathBuf,
    /// The bank's own certificate, for pinning: `bank.crt`.
    pub server_certificate: PathBuf,
}

/// Two authorities, the bank's identity and the shop's identity.
pub struct Pki {
    bank_ca: Authority,
    client_ca: Authority,
    server: Issued,
    client: Issued,
    next: Issued,
}

impl Pki {
    /// Makes everything anew: ECDSA P-256 keys, valid from yesterday for 90 days.
    ///
    /// # Errors
    /// [`PkiError::Make`] when the certificate library refuses.
    pub fn generate() -> Result<Self, PkiError> {
        let bank_ca = Authority::new("Sandbox bank CA (not a bank)")?;
        let client_ca = Authority::new("Sandbox client CA (not a bank)")?;
        let server = bank_ca.issue(
            "bank.sandbox.example",
            &SERVER_NAMES,
            ExtendedKeyUsagePurpose::ServerAuth,
        )?;
        let client = client_ca.issue(
            "shop.sandbox.example",
            &[],
            ExtendedKeyUsagePurpose::ClientAuth,
        )?;
        let next = client_ca.issue(
            "next.shop.sandbox.example",
            &[],
            ExtendedKeyUsagePurpose::ClientAuth,
        )?;
        Ok(Self {
            bank_ca,
            client_ca,
            server,
            client,
            next,
        })
    }

    /// The certificate that shops trust the bank by, in DER.
    #[must_use]
    pub fn bank_ca(&self) -> CertificateDer<'static> {
        self.bank_ca.certificate.clone()
    }

    /// The certificate that shops trust the bank by, in PEM.
    #[must_use]
    pub fn bank_ca_pem(&self) -> &str {
        &self.bank_ca.certificate_pem
    }

    /// The certificate that the bank trusts shops by, in DER.
    #[must_use]
    pub fn client_ca(&self) -> CertificateDer<'static> {
        self.client_ca.certificate.clone()
    }

    /// The bank's server identity.
    #[must_use]
    pub const fn server(&self) -> &Issued {
        &self.server
    }

    /// The shop's client identity.
    #[must_use]
    pub const fn client(&self) -> &Issued {
        &self.client
    }

    /// One more client certificate under the client CA, with a key of its own: a rotation.
    ///
    /// # Errors
    /// [`PkiError::Make`] when the common name cannot be encoded.
    pub fn issue_client(&self, common_name: &str) -> Result<Issued, PkiError> {
        self.client_ca
            .issue(common_name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Writes the shop's side to `dir` (made with mode 0700 if it is missing). Each file is renamed
    /// into place, so that a reader sees an old one or a new one, never a half.
    ///
    /// # Errors
    /// [`PkiError::Write`] naming the file.
    pub fn write(&self, dir: &Path) -> Result<PkiFiles, PkiError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(dir);
        made.map_err(|source| PkiError::Write {
            path: dir.to_owned(),
            source,
        })?;
        let put = |name: &str, text: &str, mode: u32| {
            let path = dir.join(name);
            match replace(&path, text, mode) {
                Ok(()) => Ok(path),
                Err(source) => Err(PkiError::Write { path, source }),
            }
        };
        // What a rotation takes: another certificate of the shop's, with a key of its own.
        put("client-next.key", &self.next.key_pem(), 0o600)?;
        put("client-next.crt", &self.next.certificate_pem, 0o644)?;
        Ok(PkiFiles {
            bank_ca: put("bank-ca.pem", &self.bank_ca.certificate_pem, 0o644)?,
            client_ca: put("client-ca.pem", &self.client_ca.certificate_pem, 0o644)?,
            server_certificate: put("bank.crt", &self.server.certificate_pem, 0o644)?,
            client_key: put("client.key", &self.client.key_pem(), 0o600)?,
            client_certificate: put("client.crt", &self.client.certificate_pem, 0o644)?,
        })
    }
}

/// A self-signed CA and its key.
struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Make {
            subject: name.to_owned(),
            source,
        };
        let mut params = params(name, &[]).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    fn issue(
        &self,
        common_name: &str,
        alt_names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Issued, PkiError> {
        let failed = |source| PkiError::Make {
            subject: common_name.to_owned(),
            source,
        };
        let mut params = params(common_name, alt_names).map_err(failed)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key,
        })
    }
}

/// What all certificates here have in common: subject, names, lifetime.
fn params(common_name: &str, alt_names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = alt_names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.remove(DnType::CommonName);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Sandbox (not a bank)");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    if let (Some(from), Some(to)) = (
        now.checked_sub(DAY).and_then(date),
        now.checked_add(LIFETIME).and_then(date),
    ) {
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
    }
    Ok(params)
}

/// The day of a moment, in UTC. `None` when the machine's clock is before 1970 or past 9999, where
/// the library's own, boundless lifetime stays.
fn date(moment: SystemTime) -> Option<(i32, u8, u8)> {
    let date = x509_cert::der::DateTime::from_system_time(moment).ok()?;
    Some((i32::from(date.year()), date.month(), date.day()))
}

/// Writes beside the target and renames over it. The mode holds from the first byte on.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_written_key_is_readable_by_its_owner_only_and_fits_its_certificate() {
        let pki = Pki::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let files = pki.write(&dir.path().join("a/b")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&files.client_key), 0o600);
        assert_eq!(mode(&dir.path().join("a/b")), 0o700);
        let key = fs::read_to_string(&files.client_key).unwrap();
        let key = KeyPair::from_pem(&key).unwrap();
        let (_, certificate) =
            subject_and_key(&fs::read_to_string(&files.client_certificate).unwrap());
        assert_eq!(certificate, key.public_key_raw());
        let again = pki.write(&dir.path().join("a/b")).unwrap();
        assert_eq!(again, files, "a second write replaces the files");
        let names = fs::read_dir(dir.path().join("a/b")).unwrap().count();
        assert_eq!(names, 7, "no temporary file stays");
    }

    /// The subject and the raw public key of a PEM certificate.
    fn subject_and_key(pem: &str) -> (String, Vec<u8>) {
        use x509_cert::der::DecodePem as _;
        let certificate = x509_cert::Certificate::from_pem(pem).unwrap();
        let tbs = certificate.tbs_certificate();
        (
            tbs.subject().to_string(),
            tbs.subject_public_key_info()
                .subject_public_key
                .raw_bytes()
                .to_vec(),
        )
    }

    #[test]
    fn a_rotated_client_has_its_own_name_and_key() {
        let pki = Pki::generate().unwrap();
        let rotated = pki.issue_client("shop-2").unwrap();
        let (subject, key) = subject_and_key(rotated.certificate_pem());
        assert!(subject.contains("CN=shop-2"), "{subject}");
        assert_ne!(key, subject_and_key(pki.client().certificate_pem()).1);
    }

    #[test]
    fn two_starts_share_nothing() {
        let (one, two) = (Pki::generate().unwrap(), Pki::generate().unwrap());
        assert_ne!(one.bank_ca(), two.bank_ca());
        assert_ne!(one.client_ca(), two.client_ca());
    }
}
