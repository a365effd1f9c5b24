//! What `callbacks …` mean: which events of the bank a command may see and change, and the bodies that no key verified.
//!
//! The events are the journal's; the rejected bodies are in the gate's memory only and come through a [`RejectedFn`]. What
//! each command needs of whoever asks is in [`commands`](super::commands). The command line uses the same types, the same
//! checks and the same reading.

use std::future::Future;
use std::sync::Arc;

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::books::{Books, Peer, ReadError, SHOWN_MAX, bad, change, cut, reason};
use super::commands::Refusal;
use crate::journal::inbox::EventId;
use crate::journal::read::{Depth, EventFilter, EventState, LIST_MAX};
use crate::journal::{JournalError, Reader};
use crate::net::clock::unix_millis;
use crate::policy::operation::UnixMillis;

/// Events that a list shows, if nobody says.
pub const LIST_DEFAULT: u32 = 50;
/// Bytes of a rejected body that are given, if there are no more of them than [`REJECTED`]; of more, so much less of each.
const REJECTED_MAX: usize = 256 << 10;
/// Bytes of a rejected body up to which it is given as text, too: JSON may make six of each.
const REJECTED_TEXT_MAX: usize = 16 << 10;
/// Bodies that are kept for one callback.
const REJECTED: usize = 16;

/// A notification that was well-formed and that no key verified. No `Debug`: a bank's body may be in it.
#[derive(Clone)]
pub struct RejectedBody {
    /// When it came, in milliseconds since 1970.
    pub at: i64,
    /// The callback's name in the configuration.
    pub source: String,
    /// Why it was rejected.
    pub reason: String,
    /// The signature's headers and those of the message template, nothing else.
    pub headers: Vec<(String, String)>,
    /// Byte for byte.
    pub body: Vec<u8>,
}

/// How the gate is asked for the first and last ones that it rejected, one callback's after the other's, oldest first.
pub type RejectedFn = Arc<dyn Fn() -> Vec<RejectedBody> + Send + Sync>;

/// `callbacks.list`: all of what is given must fit. No `Debug`: a session is in it.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// In one of these states; in any, if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    /// Only those of which something is still to become.
    pub open: bool,
    /// Of this callback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of this session, as the body names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Received before this time, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_before: Option<i64>,
    /// Received at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_after: Option<i64>,
    /// Older than this event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// At most so many, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// An event: by its number, or by the `webhook-id` that the shop knows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Which {
    /// As in a list.
    Number(i64),
    /// As in the shop's log.
    Delivery(String),
}

/// `callbacks.show`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Show {
    /// The event.
    pub id: Which,
    /// With its body: for operators.
    #[serde(default)]
    pub body: bool,
}

impl Which {
    /// As the audit log names it.
    pub(super) fn about(&self) -> String {
        match self {
            Self::Number(number) => format!("callback {number}"),
            Self::Delivery(delivery) => delivery.clone(),
        }
    }
}

/// `callbacks.retry`, `callbacks.release` and `callbacks.drop`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The event.
    pub id: i64,
    /// Why.
    pub reason: String,
}

/// What a person may do to an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Deed {
    Retry,
    Release,
    Drop,
}

/// The callbacks commands.
#[derive(Clone)]
pub(super) struct Callbacks {
    books: Books,
    rejected: Option<RejectedFn>,
}

impl Deed {
    /// As the journal writes it down.
    const fn done(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Release => "released",
            Self::Drop => "dropped",
        }
    }

    /// What it can be done to.
    const fn needs(self) -> &'static str {
        match self {
            Self::Retry => "only one that is dead, head or waiting can be retried",
            Self::Release => "only one that is held can be released",
            Self::Drop => "only one that is waiting, head, held or dead can be dropped",
        }
    }
}

impl Callbacks {
    pub(super) fn new(books: Books, rejected: Option<RejectedFn>) -> Self {
        Self { books, rejected }
    }

    pub(super) fn with(self, books: Books) -> Self {
        Self { books, ..self }
    }

    pub(super) async fn list(&self, asked: List, operator: bool) -> Result<Value, Refusal> {
        let depth = Depth {
            subject: operator,
            body: false,
        };
        self.books
            .read(move |reader| list(reader, &asked, depth))
            .await
    }

    pub(super) async fn show(&self, asked: Show, operator: bool) -> Result<Value, Refusal> {
        let depth = Depth {
            subject: operator,
            body: operator && asked.body,
        };
        self.books
            .read(move |reader| show(reader, &asked.id, depth))
            .await
    }

    pub(super) async fn change(
        &self,
        deed: Deed,
        asked: Change,
        peer: Peer,
    ) -> Result<Value, Refusal> {
        let journal = self.books.journal()?;
        let id = event_id(asked.id).map_err(bad)?;
        let person = peer.person(reason(&asked.reason).map_err(bad)?);
        let (uid, login_uid) = (person.uid, person.login_uid);
        let done = match deed {
            Deed::Retry => wait(journal.retry_event(id, person, unix_millis())).await,
            Deed::Release => wait(journal.release_event(id, person, unix_millis())).await,
            Deed::Drop => wait(journal.drop_event(id, person, unix_millis())).await,
        };
        match done {
            Ok(()) => {}
            Err(refusal) if refusal.code() == "not_found" => {
                return Err(self.why_not(deed, id, refusal).await);
            }
            Err(refusal) => return Err(refusal),
        }
        let (event, what) = (id.number(), deed.done());
        tracing::warn!(
            event,
            what,
            uid,
            login_uid,
            "an event of the bank was changed by hand"
        );
        Ok(json!({"id": event, "what": what}))
    }

    /// The journal does not tell an event that is not there from one that is in another state; a person wants to know.
    async fn why_not(&self, deed: Deed, id: EventId, refusal: Refusal) -> Refusal {
        let depth = Depth {
            subject: false,
            body: false,
        };
        let asked = Which::Number(id.number());
        let read = self.books.read(move |reader| show(reader, &asked, depth));
        match read.await {
            Ok(event) => {
                let state = event.get("state").and_then(Value::as_str);
                let (id, state) = (id.number(), state.unwrap_or("gone"));
                let message = format!("event {id} is {state}: {}", deed.needs());
                Refusal::new("wrong_state", message)
            }
            Err(missing) if missing.code() == "not_found" => missing,
            Err(_) => refusal,
        }
    }

    pub(super) async fn rejected(&self) -> Result<Value, Refusal> {
        let message = "this gate takes no callbacks: `callbacks` is not configured";
        let rejected = self
            .rejected
            .clone()
            .ok_or_else(|| Refusal::new("no_callbacks", message))?;
        // Megabytes may have to be written out.
        let told = tokio::task::spawn_blocking(move || rejections(&rejected()));
        told.await
            .map_err(|_| Refusal::new("internal", "the answer broke off"))
    }
}

async fn wait(work: impl Future<Output = Result<(), JournalError>>) -> Result<(), Refusal> {
    // The inbox refuses by `NotFound` alone.
    change(work, |state, _| format!("it is {state}")).await
}

/// What was rejected, as the socket gives it: together never more than one answer may be long.
fn rejections(rejected: &[RejectedBody]) -> Value {
    let share = |most: usize| most.min(most.saturating_mul(REJECTED) / rejected.len().max(1));
    let (most, text_most) = (share(REJECTED_MAX), share(REJECTED_TEXT_MAX));
    let rejected = rejected.iter().map(|rejected| {
        json!({
            "at": rejected.at,
            "source": rejected.source,
            "reason": rejected.reason,
            "headers": rejected.headers,
            "bytes": rejected.body.len(),
            "body": body(&rejected.body, most, text_most),
        })
    });
    json!({"rejected": rejected.collect::<Vec<_>>()})
}

/// A body, as the socket gives it: `{"base64": …, "text": …, "cut": …}`, the text only where it is one and not longer than
/// `text_most`.
fn body(bytes: &[u8], most: usize, text_most: usize) -> Value {
    let kept = bytes.get(..most).unwrap_or(bytes);
    let text = str::from_utf8(bytes).ok().map(str::to_owned);
    let text = text.filter(|text| text.len().min(most) <= text_most);
    let mut body = json!({"base64": Base64::encode_string(kept), "cut": kept.len() < bytes.len()});
    if let Some((mut text, body)) = text.zip(body.as_object_mut()) {
        cut(&mut text, most);
        body.insert("text".to_owned(), Value::String(text));
    }
    body
}

/// A list, as the socket gives it: `{"events": […]}`.
///
/// # Errors
/// [`ReadError`].
pub fn list(reader: &Reader, asked: &List, depth: Depth) -> Result<Value, ReadError> {
    let events = reader.events(&filter(asked).map_err(ReadError::Question)?, depth)?;
    Ok(json!({"events": events}))
}

/// One event, as the socket gives it. Of a body beyond [`SHOWN_MAX`] the beginning is shown, and `cut` says so.
///
/// # Errors
/// [`ReadError`].
pub fn show(reader: &Reader, asked: &Which, depth: Depth) -> Result<Value, ReadError> {
    let missing = || {
        ReadError::NotFound(match asked {
            Which::Number(number) => format!("event {number}"),
            Which::Delivery(delivery) => format!("event that was delivered as {delivery}"),
        })
    };
    let id = match asked {
        Which::Number(number) => event_id(*number).map_err(ReadError::Question)?,
        Which::Delivery(delivery) => reader.delivered_as(delivery)?.ok_or_else(missing)?,
    };
    let shown = reader.event(id, depth)?.ok_or_else(missing)?;
    let mut document = json!(shown.event);
    if let Some(members) = document.as_object_mut() {
        members.insert("interventions".to_owned(), json!(shown.interventions));
        if let Some(kept) = &shown.body {
            members.insert("body".to_owned(), body(kept, SHOWN_MAX, SHOWN_MAX));
        }
    }
    Ok(document)
}

fn filter(asked: &List) -> Result<EventFilter, String> {
    let states = asked.states.iter().map(|text| state(text));
    let limit = asked.limit.unwrap_or(LIST_DEFAULT);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(format!("limit is 1 to {LIST_MAX}"));
    }
    Ok(EventFilter {
        states: states.collect::<Result<_, _>>()?,
        open: asked.open,
        source: asked.source.clone(),
        session: asked.session.clone(),
        received_before: asked.received_before.map(UnixMillis),
        received_after: asked.received_after.map(UnixMillis),
        before: asked.before.map(event_id).transpose()?,
        limit,
    })
}

/// Reads a state.
///
/// # Errors
/// What there is instead.
pub fn state(text: &str) -> Result<EventState, String> {
    EventState::parse(text).ok_or_else(|| {
        let known = EventState::ALL.map(EventState::as_str).join(", ");
        format!("a state is one of {known}")
    })
}

/// Reads an event's number as a person writes it.
///
/// # Errors
/// What one looks like.
pub fn parse_id(text: &str) -> Result<i64, String> {
    let number = text.parse().map_err(|_| NUMBER.to_owned())?;
    event_id(number).map(EventId::number)
}

/// Reads what names an event: its number, or the `webhook-id` of its delivery.
///
/// # Errors
/// What it looks like.
pub fn parse_which(text: &str) -> Result<Which, String> {
    if let Ok(number) = parse_id(text) {
        return Ok(Which::Number(number));
    }
    let named = text.rsplit_once('_').is_some_and(|(source, hex)| {
        !source.is_empty() && hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    });
    if named {
        return Ok(Which::Delivery(text.to_owned()));
    }
    Err(format!(
        "{NUMBER}; or what the shop knows it by: webhook-id, the callback's name, `_` and 32 digits of 0-9 and a-f"
    ))
}

const NUMBER: &str = "an event's id is a number from 1, as in lists";

fn event_id(number: i64) -> Result<EventId, String> {
    EventId::new(number).ok_or_else(|| NUMBER.to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
