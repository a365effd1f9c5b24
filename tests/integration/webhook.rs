//! What is handed to the shop, against the Standard Webhooks specification's own library.

use std::time::{SystemTime, UNIX_EPOCH};

use priorgate::policy::webhook::{WebhookSecret, sign};
use standardwebhooks::Webhook;

#[test]
fn what_we_sign_the_public_library_verifies_with_either_secret() {
    let texts = [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    ];
    let secrets = texts.map(|text| WebhookSecret::parse(text).unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_secs().cast_signed();
    let body = br#"{"status":"APPROVED"}"#;
    let mut headers = http::HeaderMap::new();
    headers.insert("webhook-id", "priorbank_1a2b".parse().unwrap());
    headers.insert("webhook-timestamp", now.to_string().parse().unwrap());
    let signature = sign(&secrets, "priorbank_1a2b", now, body);
    headers.insert("webhook-signature", signature.parse().unwrap());
    for text in texts {
        let webhook = Webhook::new(text).unwrap();
        assert!(webhook.verify(body, &headers).is_ok());
        assert!(webhook.verify(b"{}", &headers).is_err());
    }
}
