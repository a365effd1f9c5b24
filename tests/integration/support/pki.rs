//! Certificates of one scenario: two CAs, servers of every kind, clients by name.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) cert: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server certificate for a DNS name.
    pub(crate) fn server(&self, name: &str) -> Issued {
        self.issue(name, |_| {})
    }

    /// A server certificate that ended in 2001.
    pub(crate) fn expired_server(&self, name: &str) -> Issued {
        self.issue(name, |params| {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        })
    }

    /// A client certificate with this common name.
    pub(crate) fn client(&self, name: &str) -> Issued {
        self.issue(name, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// A client certificate that ends so long after 1970.
    #[cfg(feature = "sandbox")]
    pub(crate) fn client_until(&self, name: &str, end: std::time::Duration) -> Issued {
        self.issue(name, |params| {
            params.not_after = date_time_ymd(1970, 1, 1) + end;
        })
    }

    /// The same for a key of the scenario's own.
    pub(crate) fn client_for(&self, name: &str, key: &KeyPair) -> rcgen::Certificate {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(key, &self.0).unwrap()
    }

    fn issue(&self, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Issued { cert, key }
    }
}

impl Issued {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.cert.der().clone()
    }

    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    /// Writes both files by rename, the way an administrator does.
    pub(crate) fn write(&self, dir: &Path, name: &str) {
        replace(&dir.join(format!("{name}.crt")), &self.cert.pem());
        replace(&dir.join(format!("{name}.key")), &self.key.serialize_pem());
    }
}

/// Writes a file beside `path` and renames it into place.
pub(crate) fn replace(path: &Path, text: &str) {
    let mut new: PathBuf = path.to_owned();
    new.as_mut_os_string().push(".new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}
