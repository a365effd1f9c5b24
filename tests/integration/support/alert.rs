//! A TLS alert of the scenario's choice, after the handshake: rustls' server half sends none but
//! `close_notify`.

use std::io::Write;
use std::net::TcpStream;

use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::crypto::cipher::{MessageEncrypter, OutboundPlainMessage};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
};

use super::bank::Session;

/// RFC 8446 section 6: every alert but the closing ones is fatal.
const FATAL: u8 = 2;

impl Session {
    /// Sends a fatal alert as the next record. The socket is given back: how it ends is up to the
    /// scenario.
    pub(crate) fn alert(self, alert: AlertDescription) -> TcpStream {
        let mut socket = self.stream.sock;
        let tls = self.stream.conn;
        let version = tls.protocol_version().unwrap();
        let suite = tls.negotiated_cipher_suite().unwrap();
        let (sequence, secrets) = tls.dangerous_extract_secrets().unwrap().tx;
        let mut encrypter = encrypter(suite, version, secrets);
        let payload = [FATAL, u8::from(alert)];
        let record = OutboundPlainMessage {
            typ: ContentType::Alert,
            version: ProtocolVersion::TLSv1_2,
            payload: payload[..].into(),
        };
        let record = encrypter.encrypt(record, sequence).unwrap();
        socket.write_all(&record.encode()).unwrap();
        socket
    }
}

fn encrypter(
    suite: SupportedCipherSuite,
    version: ProtocolVersion,
    secrets: ConnectionTrafficSecrets,
) -> Box<dyn MessageEncrypter> {
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
        panic!("{suite:?} is not the suite that both ends prefer");
    };
    match version {
        ProtocolVersion::TLSv1_3 => cipher_suite::TLS13_AES_256_GCM_SHA384
            .tls13()
            .unwrap()
            .aead_alg
            .encrypter(key, iv),
        // RFC 5288 section 3: four bytes of salt, eight of explicit nonce.
        _ => {
            let SupportedCipherSuite::Tls12(suite) = suite else {
                panic!("{suite:?} is no suite of TLS 1.2");
            };
            let (salt, explicit) = iv.as_ref().split_at(4);
            suite.aead_alg.encrypter(key, salt, explicit)
        }
    }
}
