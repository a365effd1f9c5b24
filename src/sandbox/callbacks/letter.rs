//! A callback as bytes: the notification, its signature, and what a fault does to either.
//!
//! Owns the fields of the JSON body, what exactly is signed, and the headers. A letter is made
//! once; every attempt sends the same one. Knows nothing of queues or sockets.

use std::time::{Duration, SystemTime};

use base64ct::{Base64, Encoding as _};
use serde::Serialize;

use super::fault::CallbackFault;
use super::key::{KeyError, Signer};
use crate::sandbox::ledger::{Refund, Session};
use crate::sandbox::money::Money;

/// The header that carries the signature.
const SIGNATURE: &str = "X-Signature";
/// Older than any tolerance that a shop would configure.
const STALE: Duration = Duration::from_secs(365 * 86_400);

/// The body of a callback. What an unknown session cannot say is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Notification {
    pub(super) event_id: String,
    pub(super) session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_ref: Option<String>,
    pub(super) status: String,
    /// The sum of the order, also in a refund's callback.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_id: Option<String>,
    /// How much this refund gave back.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_amount: Option<Money>,
    /// How much all refunds so far gave back.
    #[serde(skip_serializing_if = "Option::is_none")]
    refunded: Option<Money>,
}

impl Notification {
    /// What is told of a session, and of its latest refund where that is the news.
    pub(super) fn of(session: &Session, status: &str, refund: Option<&Refund>) -> Self {
        Self {
            event_id: String::new(),
            session_id: session.session_id.clone(),
            order_ref: Some(session.order_ref.clone()),
            status: status.to_owned(),
            amount: Some(session.amount),
            currency: Some(session.currency.clone()),
            refund_id: refund.map(|refund| refund.refund_id.clone()),
            refund_amount: refund.map(|refund| refund.amount),
            refunded: refund.map(|_| session.refunded),
        }
    }

    /// What is told of a session that the ledger does not have.
    pub(super) fn unknown(session_id: String, status: String) -> Self {
        Self {
            session_id,
            status,
            ..Self::default()
        }
    }
}

/// The keys of the bank.
pub(super) struct Keys {
    /// The bank's.
    pub(super) own: Signer,
    /// One that nobody trusts.
    pub(super) wrong: Signer,
    /// The header of the timestamp; with one, `<timestamp>.<body>` is signed.
    pub(super) timestamp: Option<String>,
}

/// What is sent, but for the request line and `Host`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Letter {
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Letter {
    /// Writes and signs.
    pub(super) fn new(
        keys: &Keys,
        notification: &Notification,
        fault: Option<CallbackFault>,
        now: SystemTime,
    ) -> Result<Self, KeyError> {
        // These types have no key that is not text, so this does not fail.
        let signed = serde_json::to_vec(notification).map_err(|_| KeyError)?;
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        let mut message = Vec::new();
        if let Some(name) = &keys.timestamp {
            let then = match fault {
                Some(CallbackFault::Stale) => now.checked_sub(STALE).unwrap_or(now),
                _ => now,
            };
            let since = then.duration_since(SystemTime::UNIX_EPOCH);
            let timestamp = since.unwrap_or_default().as_secs().to_string();
            message.extend_from_slice(timestamp.as_bytes());
            message.push(b'.');
            headers.push((name.clone(), timestamp));
        }
        message.extend_from_slice(&signed);
        let mut sign = |signer: &Signer| {
            let signature = Base64::encode_string(&signer.sign(&message)?);
            headers.push((SIGNATURE.to_owned(), signature));
            Ok::<(), KeyError>(())
        };
        match fault {
            Some(CallbackFault::NoSignature) => {}
            Some(CallbackFault::WrongKey) => sign(&keys.wrong)?,
            Some(CallbackFault::TwoSignatures) => {
                sign(&keys.own)?;
                sign(&keys.wrong)?;
            }
            _ => sign(&keys.own)?,
        }
        let body = match fault {
            Some(CallbackFault::ChangedByte) => changed(signed),
            Some(CallbackFault::ReEncoded) => {
                serde_json::to_vec_pretty(notification).map_err(|_| KeyError)?
            }
            _ => signed,
        };
        Ok(Self { headers, body })
    }
}

/// The body with its last digit another one: still JSON, and worth something else.
fn changed(mut body: Vec<u8>) -> Vec<u8> {
    match body.iter_mut().rfind(|byte| byte.is_ascii_digit()) {
        Some(b'9') | None => {
            // No digit that goes up: the case of a letter does as well, and a key has letters.
            if let Some(letter) = body.iter_mut().rfind(|byte| byte.is_ascii_alphabetic()) {
                *letter ^= 0x20;
            }
        }
        Some(digit) => *digit += 1,
    }
    body
}

#[cfg(test)]
mod tests {
    use super::super::key::CallbackAlgorithm;
    use super::*;

    fn keys(timestamp: Option<&str>) -> Keys {
        let signer = || Signer::generate(CallbackAlgorithm::Ed25519).unwrap();
        Keys {
            own: signer(),
            wrong: signer(),
            timestamp: timestamp.map(str::to_owned),
        }
    }

    fn notification() -> Notification {
        Notification {
            event_id: "e-1".to_owned(),
            session_id: "s-1".to_owned(),
            status: "APPROVED".to_owned(),
            amount: Some(Money::from_minor(14_990)),
            ..Notification::default()
        }
    }

    #[test]
    fn a_letter_is_the_same_each_time_but_for_its_fault() {
        let keys = keys(None);
        let now = SystemTime::now();
        let letter = |fault| Letter::new(&keys, &notification(), fault, now).unwrap();
        let plain = letter(None);
        let body = r#"{"event_id":"e-1","session_id":"s-1","status":"APPROVED","amount":"149.90"}"#;
        assert_eq!(String::from_utf8_lossy(&plain.body), body);
        assert_eq!(letter(Some(CallbackFault::Doubled)), plain);
        let changed = letter(Some(CallbackFault::ChangedByte));
        assert_eq!(changed.headers, plain.headers);
        assert!(changed.body.ends_with(b"\"149.91\"}"));
        let again = letter(Some(CallbackFault::ReEncoded));
        assert_eq!(again.headers, plain.headers);
        assert_ne!(again.body, plain.body);
        let value =
            |letter: &Letter| serde_json::from_slice::<serde_json::Value>(&letter.body).unwrap();
        assert_eq!(value(&again), value(&plain));
    }

    #[test]
    fn a_changed_body_differs_in_one_byte_and_stays_json() {
        for body in [r#"{"a":"1"}"#, r#"{"a":"9"}"#, r#"{"a":"x"}"#] {
            let other = changed(body.as_bytes().to_vec());
            let differing = body.bytes().zip(&other).filter(|(one, two)| one != *two);
            assert_eq!((differing.count(), other.len()), (1, body.len()));
            serde_json::from_slice::<serde_json::Value>(&other).unwrap();
        }
    }

    #[test]
    fn a_timestamp_is_part_of_what_is_signed_and_a_stale_one_is_a_year_old() {
        let keys = keys(Some("X-Timestamp"));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        for (fault, timestamp) in [
            (None, "2000000000"),
            (Some(CallbackFault::Stale), "1968464000"),
        ] {
            let letter = Letter::new(&keys, &notification(), fault, now).unwrap();
            assert_eq!(letter.headers[1], ("X-Timestamp".into(), timestamp.into()));
            let mut message = format!("{timestamp}.").into_bytes();
            message.extend_from_slice(&letter.body);
            let signature = Base64::encode_string(&keys.own.sign(&message).unwrap());
            assert_eq!(letter.headers[2], ("X-Signature".into(), signature));
        }
    }
}
