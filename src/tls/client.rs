//! The TLS handshake with the bank: our certificate shown, its certificate proven, and every way to fail told apart.
//!
//! Only the configured CA is trusted, the name is always checked, pins come on top, and resumption is off: a
//! resumption secret would stand in for the private key.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::key::SigningFailed;
use super::store::Store;
use super::trust::spki_sha256;
use crate::config::TlsVersion;
use crate::net::exchange::{certificate_alert, tls_error};
use crate::net::meter::Meter;

/// Everything that a handshake with one bank needs. Immutable: a reload builds another.
#[derive(Debug)]
pub struct TlsClient {
    config: ClientConfig,
    server_name: ServerName<'static>,
    store: Arc<Store>,
}

/// A client without its identity: what can be wrong with the rest is found before anybody is asked for a key.
#[derive(Debug)]
pub struct TlsSetup {
    config: ClientConfig,
    server_name: ServerName<'static>,
}

/// Why the configuration gives no TLS client.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The trust anchors are of no use.
    #[error("the bank's CA cannot be used")]
    Trust(#[source] rustls::client::VerifierBuilderError),
    /// The versions do not fit the provider.
    #[error("TLS cannot be configured")]
    Versions(#[source] Error),
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The bank refused our certificate inside the handshake (TLS 1.2).
    #[error("the bank refused the client certificate with the alert {0:?}")]
    CertificateRefused(AlertDescription),
    /// The keyholder had another key; the certificate that belongs to it was read, and is shown from now on.
    #[error("the key was changed during the handshake")]
    KeyChanged,
    /// Anything else on the way: reset, closed, another alert, nonsense.
    #[error("the TLS handshake failed: {0}")]
    Failed(#[source] io::Error),
    /// The handshake completed, but nobody asked for our certificate: this is not the bank's API.
    #[error("the server asked for no client certificate")]
    NotAsked,
    /// Our key did not sign.
    #[error(transparent)]
    Signing(SigningFailed),
    /// Chain, name or pin did not verify.
    #[error("the server's certificate was not accepted: {0}")]
    Untrusted(String),
}

/// The certificate's public key is none of the configured pins.
#[derive(Debug, thiserror::Error)]
#[error("its public key is none of trust.spki_sha256")]
struct PinMismatch;

impl TlsSetup {
    /// Builds it for one bank.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn new(
        min_version: TlsVersion,
        roots: RootCertStore,
        server_name: ServerName<'static>,
        pins: Vec<[u8; 32]>,
    ) -> Result<Self, TlsSetupError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = verifier(Arc::new(roots), pins, &provider).map_err(TlsSetupError::Trust)?;
        let versions: &[&rustls::SupportedProtocolVersion] = match min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(TlsSetupError::Versions)?
            // "dangerous" because it replaces the verifier: ours is webpki's with pins on top.
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            // Each handshake has a resolver of its own.
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self {
            config,
            server_name,
        })
    }

    /// The client that shows this pair.
    #[must_use]
    pub fn with_identity(self, store: Arc<Store>) -> TlsClient {
        let Self {
            config,
            server_name,
        } = self;
        TlsClient {
            config,
            server_name,
            store,
        }
    }
}

impl TlsClient {
    /// The pair that is shown now.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Shakes hands. Blocks the thread while the key signs, which gives up before `until`: call it from a blocking
    /// thread.
    ///
    /// # Errors
    /// [`HandshakeError`]; nothing of a request was sent in any case.
    pub async fn connect(
        &self,
        socket: Meter,
        until: Instant,
    ) -> Result<TlsStream<Meter>, HandshakeError> {
        let pair = self.store.current();
        let key = pair.key.for_handshake(until);
        let witness = Arc::new(ShowCertificate::new(CertifiedKey::new(
            pair.chain.clone(),
            key,
        )));
        // A copy for each handshake: a few reference counts, so that "was it asked?" is this connection's own.
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = Arc::clone(&witness) as Arc<dyn ResolvesClientCert>;
        let shaken = TlsConnector::from(Arc::new(config))
            .connect(self.server_name.clone(), socket)
            .await;
        if witness.unfit.load(Ordering::Relaxed) {
            return Err(HandshakeError::Signing(SigningFailed::new(
                "the bank accepts none of the signature schemes that this kind of key has",
            )));
        }
        let stream = match shaken.map_err(HandshakeError::from_io) {
            Err(HandshakeError::Signing(failed)) if failed.is_key_changed() => {
                self.store
                    .renew(&pair, until)
                    .map_err(HandshakeError::Signing)?;
                return Err(HandshakeError::KeyChanged);
            }
            shaken => shaken?,
        };
        if witness.asked.load(Ordering::Relaxed) {
            Ok(stream)
        } else {
            Err(HandshakeError::NotAsked)
        }
    }
}

impl HandshakeError {
    fn from_io(error: io::Error) -> Self {
        if let Some(alert) = certificate_alert(&error) {
            return Self::CertificateRefused(alert);
        }
        match tls_error(&error) {
            Some(Error::InvalidCertificate(reason)) => Self::Untrusted(describe(reason)),
            Some(Error::NoCertificatesPresented) => Self::Untrusted("it presented none".to_owned()),
            Some(Error::Other(OtherError(inner))) => match inner.downcast_ref::<SigningFailed>() {
                Some(failed) => Self::Signing(failed.clone()),
                None => Self::Failed(error),
            },
            Some(_) | None => Self::Failed(error),
        }
    }
}

/// webpki's reasons in an operator's words.
fn describe(reason: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Reason;
    match reason {
        Reason::Expired | Reason::ExpiredContext { .. } => {
            "it has expired (or this machine's clock is wrong)".to_owned()
        }
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            "it is not valid yet (or this machine's clock is wrong)".to_owned()
        }
        Reason::UnknownIssuer => "its issuer is not in trust.ca_file".to_owned(),
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => {
            "it is for another name than trust.server_name".to_owned()
        }
        Reason::Other(OtherError(inner)) => inner.to_string(),
        other => format!("{other}"),
    }
}

/// Shows our certificate whatever the server hints at, and remembers that it was asked.
#[derive(Debug)]
struct ShowCertificate {
    certified: Arc<CertifiedKey>,
    asked: AtomicBool,
    /// Our key has none of the schemes that were offered: rustls then shows no certificate at all.
    unfit: AtomicBool,
}

impl ShowCertificate {
    fn new(certified: CertifiedKey) -> Self {
        Self {
            certified: Arc::new(certified),
            asked: AtomicBool::new(false),
            unfit: AtomicBool::new(false),
        }
    }
}

impl ResolvesClientCert for ShowCertificate {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        if self.certified.key.choose_scheme(schemes).is_none() {
            self.unfit.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&self.certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn verifier(
    roots: Arc<RootCertStore>,
    pins: Vec<[u8; 32]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::client::VerifierBuilderError> {
    let chain: Arc<dyn ServerCertVerifier> =
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build()?;
    Ok(if pins.is_empty() {
        chain
    } else {
        Arc::new(Pinned { chain, pins })
    })
}

/// Chain and name first, then the pin: a pin never replaces them.
#[derive(Debug)]
struct Pinned {
    chain: Arc<dyn ServerCertVerifier>,
    pins: Vec<[u8; 32]>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let pinned = spki_sha256(end_entity).is_ok_and(|found| self.pins.contains(&found));
        if pinned {
            return Ok(verified);
        }
        let mismatch = OtherError(Arc::new(PinMismatch));
        Err(Error::InvalidCertificate(rustls::CertificateError::Other(
            mismatch,
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::server::WebPkiClientVerifier;
    use rustls::sign::SigningKey;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::super::identity;
    use super::super::key::ClientKey;
    use super::super::key::tests::DeadKey;
    use super::super::store::Pair;
    use super::*;

    /// One CA for both sides, a server on loopback that demands a client certificate, and the client's parts.
    struct World {
        roots: RootCertStore,
        server: Arc<ServerConfig>,
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
    }

    fn world() -> World {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let cert = params.signed_by(&key, &ca).unwrap();
            (
                cert.der().clone(),
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let demand = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots.clone()),
            Arc::clone(&provider),
        );
        let (cert, key) = issue("localhost");
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(demand.build().unwrap())
            .with_single_cert(vec![cert], key)
            .unwrap();
        let (cert, key) = issue("shop");
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        World {
            roots,
            server: Arc::new(server),
            chain: vec![cert],
            key,
        }
    }

    async fn shake(
        world: World,
        key: ClientKey,
        version: TlsVersion,
    ) -> Result<(), HandshakeError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(world.server);
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(socket).await;
        });
        let leaf = identity::describe(&world.chain[0]).unwrap();
        let store = Arc::new(Store::fixed(Pair {
            chain: world.chain,
            key,
            leaf,
        }));
        let name = ServerName::try_from("localhost").unwrap();
        let setup = TlsSetup::new(version, world.roots, name, vec![]).unwrap();
        let client = setup.with_identity(store);
        let (meter, _probe) = Meter::new(TcpStream::connect(addr).await.unwrap());
        client
            .connect(meter, Instant::now() + Duration::from_secs(20))
            .await
            .map(|_| ())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_key_that_does_not_sign_is_told_from_a_broken_handshake() {
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let world = world();
            let key = ClientKey::Local(Arc::new(DeadKey(Arc::clone(&world.key))));
            let failed = shake(world, key, version).await.unwrap_err();
            assert!(matches!(failed, HandshakeError::Signing(_)), "{failed}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_working_key_completes_the_handshake() {
        let world = world();
        let key = ClientKey::Local(Arc::clone(&world.key));
        shake(world, key, TlsVersion::Tls13).await.unwrap();
    }
}
