//! The YAML of `callbacks`, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Limits, Listen, Timeouts};
use crate::config::scalar::{
    AnswerType, BankName, BodyPointer, CallbackPath, FilePath, Header, KeyAlgorithm, Moment, Name,
    Span,
};

/// Notifications of a bank: how they are verified, and where they go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// A label in records, commands and deliveries.
    pub name: BankName,
    /// Where nginx passes them on to.
    pub listen: Vec<Listen>,
    /// The exact path.
    pub path: CallbackPath,
    /// How a notification proves that it is the bank's.
    pub signature: Signature,
    /// What in it says which event it is.
    #[serde(default)]
    pub event: Event,
    /// What happens to contradictions.
    pub transitions: Option<Transitions>,
    /// Content types that are taken; any by default.
    pub content_types: Option<Vec<AnswerType>>,
    /// Deadlines.
    pub timeouts: Option<Timeouts>,
    /// Bounds.
    pub limits: Option<Limits>,
    /// What the bank wants to hear.
    pub answer: Option<Answer>,
    /// Where events go.
    pub deliver: Deliver,
}

/// How a notification proves that it is the bank's.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The header that holds it.
    pub header: Header,
    /// How it is written.
    pub encoding: Option<Encoding>,
    /// What stands before it.
    #[serde(default)]
    pub prefix: String,
    /// Several signatures in one header.
    pub list: Option<List>,
    /// What is signed: `body`, `body-sha256`, `header:NAME`, `method`, `path`, `text:LITERAL`, one after the other.
    pub message: Option<Vec<String>>,
    /// A signed time, and how old it may be.
    pub timestamp: Option<Timestamp>,
    /// The bank's public keys.
    pub keys: Vec<Key>,
    /// The status for a well-formed signature that no key verifies.
    pub on_mismatch: Option<u32>,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// RFC 4648 section 4.
    Base64,
    /// RFC 4648 section 5.
    Base64url,
    /// RFC 4648 section 8.
    Hex,
}

/// Several signatures in one header, one of which may match.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// What stands between them.
    pub separator: String,
    /// What ours start with.
    #[serde(default)]
    pub prefix: String,
}

/// A signed time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// The header that holds it.
    pub header: Header,
    /// How it is written.
    pub unit: Unit,
    /// How far it may be from now.
    pub tolerance: Span,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Milliseconds since 1970.
    Ms,
    /// RFC 3339.
    Rfc3339,
    /// Seconds since 1970.
    S,
}

/// A public key of the bank.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its name in records and deliveries.
    pub id: Name,
    /// The only algorithm that it is used with.
    pub algorithm: KeyAlgorithm,
    /// Its file.
    pub file: FilePath,
    /// From when.
    pub not_before: Option<Moment>,
    /// Until when.
    pub not_after: Option<Moment>,
}

/// What in a notification says which event it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// `body-sha256`, JSON pointers into the body, or signed headers (`header:NAME`).
    pub id: Option<Vec<String>>,
    /// What groups the events of one order.
    pub session: Option<BodyPointer>,
    /// What it says.
    pub status: Option<BodyPointer>,
    /// The bank's words, where they differ from ours.
    #[serde(default)]
    pub statuses: Vec<StatusWord>,
}

/// A word of the bank's.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusWord {
    /// As the bank says it.
    pub bank: String,
    /// What it means.
    pub means: String,
}

/// What happens to contradictions.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Transitions {
    /// What would re-pay or un-pay an order waits for a person.
    Hold,
    /// Everything is delivered, marked.
    Pass,
}

/// What the bank wants to hear.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// A 2xx.
    pub status: Option<u32>,
    /// JSON, or any text.
    pub body: Option<String>,
}

/// Where events go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deliver {
    /// `http://` and a loopback address, path and query; or a path, with `unix`.
    pub url: String,
    /// A Unix socket instead of the URL's address.
    pub unix: Option<FilePath>,
    /// The `Host` header.
    pub host: Option<String>,
    /// Files with `whsec_…`: every one signs.
    #[serde(default)]
    pub secret_files: Vec<FilePath>,
    /// What counts as an acknowledgement.
    pub ack: Option<Ack>,
    /// For one attempt.
    pub timeout: Option<Span>,
    /// Deliveries at a time.
    pub concurrency: Option<u32>,
    /// Pauses between attempts; the last one repeats.
    pub retry: Option<Vec<Span>>,
    /// How long a refused head holds the next event of its session back.
    pub max_head_wait: Option<Span>,
    /// How long nothing of a session is tried after a time-out: PHP may still be at it.
    pub after_timeout: Option<Span>,
    /// When somebody is told.
    pub alarm_after: Option<Span>,
    /// When it ends.
    pub expire_after: Option<Span>,
}

/// What counts as an acknowledgement.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// `Priorgate-Ack` with the delivery's id.
    Header,
    /// `Priorgate-Ack` with a signature over this attempt.
    Signed,
    /// Any 2xx.
    Status,
}
