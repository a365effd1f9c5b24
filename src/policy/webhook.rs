//! What the gate says to the shop and the shop says back: Standard Webhooks signatures (HMAC-SHA256), so that ten lines of
//! PHP can tell a delivery of ours from anybody else's, and we can tell the shop's acknowledgement from a page that
//! happens to answer 200.
//!
//! Follows the Standard Webhooks specification 1.0 (symmetric signatures, `v1`); the acknowledgement is ours.

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::operation::Digest;
use super::secret::Secret;

/// The specification's bounds for a secret, in bytes.
const SECRET_MIN: usize = 24;
const SECRET_MAX: usize = 64;
const PREFIX: &str = "whsec_";

/// A secret that is shared with one shop for one callback.
#[derive(Clone, Debug)]
pub struct WebhookSecret(Secret);

/// Why a text is no secret. Nothing of it is repeated.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SecretError {
    /// It does not start with `whsec_`.
    #[error("expected `whsec_` and base64, as `priorgate keygen deliver` writes it")]
    Form,
    /// Too short or too long.
    #[error("expected {SECRET_MIN} to {SECRET_MAX} bytes behind `whsec_`")]
    Length,
}

impl WebhookSecret {
    /// Reads `whsec_<base64>`.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretError::Form)?;
        let bytes = Base64::decode_vec(encoded).map_err(|_| SecretError::Form)?;
        let secret = Secret::new(bytes);
        if (SECRET_MIN..=SECRET_MAX).contains(&secret.expose().len()) {
            Ok(Self(secret))
        } else {
            Err(SecretError::Length)
        }
    }

    /// Whether both are one secret.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.matches(other.0.expose())
    }

    fn mac(&self, parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
        // HMAC takes a key of any length; the type cannot say so.
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose()).ok()?;
        parts.iter().for_each(|part| mac.update(part));
        Some(mac)
    }

    fn sign(&self, parts: &[&[u8]]) -> String {
        let mac = self.mac(parts);
        mac.map_or_else(String::new, |mac| {
            Base64::encode_string(&mac.finalize().into_bytes())
        })
    }
}

/// The value of `webhook-id`, made of what the event is, so that it stays the same over attempts, restarts and restored
/// journals: the shop tells repeats by it, and people find the event.
#[must_use]
pub fn delivery_id(source: &str, event: &str, body_hash: &Digest) -> String {
    let parts = [source.as_bytes(), event.as_bytes(), &body_hash.0];
    let name = Digest::of("priorgate delivery", &parts).to_string();
    let hex: String = name.chars().take(32).collect();
    format!("{source}_{hex}")
}

/// The value of `webhook-signature`: one for each secret, so that a shop that knows only the old or only the new one can
/// verify during a rotation.
#[must_use]
pub fn sign(secrets: &[WebhookSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let signatures: Vec<String> = secrets
        .iter()
        .map(|secret| format!("v1,{}", secret.sign(&parts)))
        .collect();
    signatures.join(" ")
}

/// The value of `Priorgate-Ack` that the shop answers a delivery with: `<id>,<base64>`.
#[must_use]
pub fn acknowledgement(secret: &WebhookSecret, id: &str, timestamp: i64) -> String {
    let timestamp = timestamp.to_string();
    let parts: [&[u8]; 4] = [b"ack.", id.as_bytes(), b".", timestamp.as_bytes()];
    format!("{id},{}", secret.sign(&parts))
}

/// Whether an acknowledgement is of this delivery, this attempt, and this shop: any of its secrets will do.
#[must_use]
pub fn is_acknowledged(secrets: &[WebhookSecret], id: &str, timestamp: i64, value: &[u8]) -> bool {
    let Some(given) = str::from_utf8(value)
        .ok()
        .and_then(|value| value.split_once(','))
        .filter(|(named, _)| *named == id)
        .and_then(|(_, encoded)| Base64::decode_vec(encoded).ok())
    else {
        return false;
    };
    let timestamp = timestamp.to_string();
    let parts: [&[u8]; 4] = [b"ack.", id.as_bytes(), b".", timestamp.as_bytes()];
    // All of them are tried, in constant time each: which one fits is nobody's business.
    secrets.iter().fold(false, |found, secret| {
        let fits = secret
            .mac(&parts)
            .is_some_and(|mac| mac.verify_slice(&given).is_ok());
        found | fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn secrets(texts: &[&str]) -> Vec<WebhookSecret> {
        texts
            .iter()
            .map(|text| WebhookSecret::parse(text).unwrap())
            .collect()
    }

    #[test]
    fn the_same_event_has_the_same_name_and_another_body_another() {
        let id = |event, hash| delivery_id("priorbank", event, &Digest([hash; 32]));
        assert_eq!(id("e1", 1), id("e1", 1));
        assert_ne!(id("e1", 1), id("e1", 2));
        assert_ne!(id("e1", 1), id("e2", 1));
        let named = id("e1", 1);
        assert_eq!(named.strip_prefix("priorbank_").unwrap().len(), 32);
    }

    #[test]
    fn the_specifications_own_vector_is_met() {
        let signature = sign(
            &secrets(&[OLD]),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_acknowledgement_is_of_one_attempt_and_one_shop() {
        let both = secrets(&[OLD, NEW]);
        let ack = acknowledgement(&both[1], "priorbank_1", 100);
        let good = |id: &str, timestamp, value: &str| {
            is_acknowledged(&both, id, timestamp, value.as_bytes())
        };
        assert!(good("priorbank_1", 100, &ack));
        assert!(!good("priorbank_2", 100, &ack));
        assert!(!good("priorbank_1", 101, &ack));
        assert!(!is_acknowledged(
            &both[..1],
            "priorbank_1",
            100,
            ack.as_bytes()
        ));
        for value in [
            "",
            "priorbank_1",
            "priorbank_1,",
            "priorbank_1,!!",
            &ack[..ack.len() - 1],
        ] {
            assert!(!good("priorbank_1", 100, value), "{value}");
        }
        assert!(!is_acknowledged(&[], "priorbank_1", 100, ack.as_bytes()));
        // Nor does the signature of a delivery pass for one.
        let signature = sign(&both, "ack", 100, b"");
        assert!(!good("ack", 100, &signature.replace("v1,", "ack,")));
    }

    #[test]
    fn a_secret_has_its_form_and_is_not_repeated() {
        assert_eq!(
            WebhookSecret::parse("hunter2").unwrap_err(),
            SecretError::Form
        );
        assert_eq!(
            WebhookSecret::parse("whsec_!").unwrap_err(),
            SecretError::Form
        );
        assert_eq!(
            WebhookSecret::parse("whsec_aGk=").unwrap_err(),
            SecretError::Length
        );
        let long = format!("whsec_{}", "A".repeat(88));
        assert_eq!(
            WebhookSecret::parse(&long).unwrap_err(),
            SecretError::Length
        );
        assert!(!format!("{:?}", WebhookSecret::parse(OLD).unwrap()).contains("MfKQ"));
    }
}
