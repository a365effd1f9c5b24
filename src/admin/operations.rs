//! What `operations …` mean: what a command may ask of the journal, and what a person's word must hold to be written down.
//!
//! Who the person is comes from the kernel, never from the line. What each command needs of them is in
//! [`commands`](super::commands). The command line uses the same types, the same checks and the same reading.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::books::{Books, Peer, ReadError, SHOWN_MAX, bad, change, cut, reason};
use super::commands::Refusal;
use crate::audit::{self, ReconcileError};
use crate::journal::read::{Depth, Filter, LIST_MAX};
use crate::journal::{Reader, Reconciled, StoredAnswer};
use crate::net::clock::unix_millis;
use crate::net::exchange::chain;
use crate::policy::operation::{Key, MediaType, OperationId, Resolution, State};

/// Operations that a list shows, if nobody says.
pub const LIST_DEFAULT: u32 = 50;
/// How long whoever asked waits for a reconciliation: a log of ten years, read from a slow disk.
pub const RECONCILE_DEADLINE: Duration = Duration::from_secs(600);
/// Bytes of the answer that a person gives for a key to replay.
pub const BODY_MAX: usize = 64 << 10;
/// `operations.list`: all of what is given must fit. No `Debug`: a key is in it.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// In one of these states; in any, if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    /// Only what holds its subject: open, unknown, or answered to nobody.
    pub holding: bool,
    /// Of this bank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bank: Option<String>,
    /// Under this `Idempotency-Key`; needs the bank, to which a key belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Older than this operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// At most so many, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `operations.show`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Show {
    /// The operation.
    pub id: String,
    /// With the body of the bank's answer: for operators.
    #[serde(default)]
    pub body: bool,
}

/// `operations.resolve`. No `Debug`: a bank's answer is in it.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// The operation.
    pub id: String,
    /// What became of it.
    pub r#as: Found,
    /// The status that its key replays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The content type that its key replays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The body that its key replays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How the person knows.
    pub reason: String,
}

/// What a person found out about an unknown operation.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The bank has it.
    Done,
    /// The bank has it not.
    #[serde(alias = "not-sent")]
    NotSent,
}

/// `operations.release`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The operation.
    pub id: String,
    /// How the person knows that nobody waits for its answer.
    pub reason: String,
}

/// `operations.freeze` and `operations.thaw`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Why.
    pub reason: String,
}

/// `operations.reconcile`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// Why.
    pub reason: String,
    /// With a log that may not know every operation.
    #[serde(default)]
    pub incomplete: bool,
}

impl Found {
    /// Its name on the socket.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotSent => "not_sent",
        }
    }
}

/// The operations commands.
#[derive(Clone, Debug)]
pub(super) struct Operations(Books);

impl Operations {
    pub(super) fn new(books: Books) -> Self {
        Self(books)
    }

    pub(super) async fn list(&self, asked: List, operator: bool) -> Result<Value, Refusal> {
        let depth = Depth {
            subject: operator,
            body: false,
        };
        self.0.read(move |reader| list(reader, &asked, depth)).await
    }

    pub(super) async fn show(&self, asked: Show, operator: bool) -> Result<Value, Refusal> {
        let depth = Depth {
            subject: operator,
            body: operator && asked.body,
        };
        self.0
            .read(move |reader| show(reader, &asked.id, depth))
            .await
    }

    pub(super) async fn resolve(&self, asked: Resolve, peer: Peer) -> Result<Value, Refusal> {
        let journal = self.0.journal()?;
        let (id, resolution, answer) = resolution(&asked).map_err(bad)?;
        let person = peer.person(reason(&asked.reason).map_err(bad)?);
        let (uid, login_uid) = (person.uid, person.login_uid);
        let work = journal.resolve(id, resolution, answer, person, unix_millis());
        let state = change(work, |state, listening| {
            if listening {
                format!(
                    "operation {id} is {state} and still listens for the bank's answer until timeouts.settle; \
                     ask again then"
                )
            } else {
                format!("operation {id} is {state}: only one that is unknown can be resolved")
            }
        })
        .await?;
        tracing::warn!(operation = %id, r#as = asked.r#as.as_str(), uid, login_uid, "an operation was resolved by hand");
        Ok(json!({"id": id.to_string(), "state": state.as_str()}))
    }

    pub(super) async fn release(&self, asked: Release, peer: Peer) -> Result<Value, Refusal> {
        let journal = self.0.journal()?;
        let id = parse_id(&asked.id).map_err(bad)?;
        let person = peer.person(reason(&asked.reason).map_err(bad)?);
        let (uid, login_uid) = (person.uid, person.login_uid);
        let work = journal.release(id, person, unix_millis());
        let state = change(work, |state, listening| match (state, listening) {
            (State::Done, _) => {
                format!("operation {id} is done and its answer was delivered: it holds nothing")
            }
            (_, true) => format!(
                "operation {id} is {state} and still listens for the bank's answer until timeouts.settle; \
                 only one that is done, with an answer that nobody got, can be released"
            ),
            (_, false) => format!(
                "operation {id} is {state}: only one that is done, with an answer that nobody got, can be released"
            ),
        })
        .await?;
        tracing::warn!(operation = %id, uid, login_uid, "an operation's subject was released by hand");
        Ok(json!({"id": id.to_string(), "state": state.as_str()}))
    }

    /// Reads the whole audit log, which may take minutes; whoever asked waits for it, and it ends without them as well.
    pub(super) async fn reconcile(&self, asked: Reconcile, peer: Peer) -> Result<Value, Refusal> {
        let (journal, audit) = (self.0.journal()?.clone(), self.0.audit()?.clone());
        let person = peer.person(reason(&asked.reason).map_err(bad)?);
        if let Some(reason) = audit.failing() {
            // A journal that runs operations which no log knows would not be missed when another is put in its place.
            let message = format!(
                "the audit log is not written ({reason}), and must be before guarded requests run again: see to its disk, \
                 then reconcile"
            );
            return Err(Refusal::new("reconcile_failed", message));
        }
        let (uid, login_uid) = (person.uid, person.login_uid);
        let runtime = Handle::current();
        let (log, book) = (audit.path().to_owned(), journal.clone());
        let incomplete = asked.incomplete;
        let work = move || audit::reconcile(&log, &book, incomplete, person, &runtime);
        let work = timeout(RECONCILE_DEADLINE, spawn_blocking(work));
        let outcome = match work.await {
            Ok(Ok(Ok(done))) => done,
            Ok(Ok(Err(error @ ReconcileError::NoDoubt))) => {
                return Err(Refusal::new("wrong_state", error.to_string()));
            }
            Ok(Ok(Err(error @ ReconcileError::Incomplete { .. }))) => {
                return Err(Refusal::new("incomplete", error.to_string()));
            }
            Ok(Ok(Err(error))) => return Err(Refusal::new("reconcile_failed", chain(&error))),
            Ok(Err(lost)) => return Err(Refusal::new("internal", lost.to_string())),
            Err(_) => {
                let message = "the audit log is still being read; look at `priorgate status` later";
                return Err(Refusal::new("timeout", message));
            }
        };
        let Reconciled {
            added,
            changed,
            ended,
        } = outcome.told;
        let faults = outcome.faults;
        tracing::warn!(
            added,
            changed,
            ended,
            faults,
            missing = outcome.missing,
            uid,
            login_uid,
            "the journal was reconciled with the audit log; see `priorgate operations list --open`"
        );
        // Only the file of the configuration says whether the next start has what they need.
        let needs = self
            .0
            .read(|reader| Ok(json!(reader.dependencies()?)))
            .await;
        let needs = needs.unwrap_or(Value::Null);
        Ok(json!({
            "added": added, "changed": changed, "not_done": ended, "faulty_lines": faults,
            "log_knows_from": outcome.from, "missing": outcome.missing, "needs": needs,
        }))
    }

    pub(super) async fn freeze(
        &self,
        frozen: bool,
        asked: Freeze,
        peer: Peer,
    ) -> Result<Value, Refusal> {
        let journal = self.0.journal()?;
        let person = peer.person(reason(&asked.reason).map_err(bad)?);
        let (uid, login_uid) = (person.uid, person.login_uid);
        let work = journal.freeze(frozen, person, unix_millis());
        // The journal takes either from any state.
        let changed = change(work, |state, _| format!("operation is {state}")).await?;
        match (changed, frozen) {
            (true, true) => tracing::warn!(uid, login_uid, "guarded routes were frozen by hand"),
            (true, false) => tracing::info!(uid, login_uid, "guarded routes were thawed by hand"),
            (false, _) => {}
        }
        Ok(json!({"frozen": frozen, "changed": changed}))
    }
}

/// A list, as the socket gives it: `{"operations": […], "frozen": …}`.
///
/// # Errors
/// [`ReadError`].
pub fn list(reader: &Reader, asked: &List, depth: Depth) -> Result<Value, ReadError> {
    let operations = reader.list(&filter(asked).map_err(ReadError::Question)?, depth)?;
    Ok(json!({"operations": operations, "frozen": reader.is_frozen()?}))
}

/// One operation, as the socket gives it. A body beyond [`SHOWN_MAX`] is cut, and `body_cut` says so.
///
/// # Errors
/// [`ReadError`].
pub fn show(reader: &Reader, id: &str, depth: Depth) -> Result<Value, ReadError> {
    let id = parse_id(id).map_err(ReadError::Question)?;
    let mut shown = reader
        .show(id, depth)?
        .ok_or_else(|| ReadError::NotFound(format!("operation {id}")))?;
    let body = shown
        .answer
        .as_mut()
        .and_then(|answer| answer.body.as_mut());
    let cut = body.is_some_and(|body| cut(body, SHOWN_MAX));
    let mut shown = json!(shown);
    if cut && let Some(answer) = shown.get_mut("answer").and_then(Value::as_object_mut) {
        answer.insert("body_cut".to_owned(), Value::Bool(true));
    }
    Ok(shown)
}

fn filter(asked: &List) -> Result<Filter, String> {
    let states = asked.states.iter().map(|text| state(text));
    let key = match (&asked.key, &asked.bank) {
        (None, _) => None,
        (Some(_), None) => {
            return Err("a key belongs to a bank: name the bank as well".to_owned());
        }
        (Some(key), Some(bank)) => {
            let key = Key::parse(key.as_bytes()).map_err(|error| error.to_string())?;
            Some(key.digest(bank))
        }
    };
    let limit = asked.limit.unwrap_or(LIST_DEFAULT);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(format!("limit is 1 to {LIST_MAX}"));
    }
    Ok(Filter {
        states: states.collect::<Result<_, _>>()?,
        holding: asked.holding,
        bank: asked.bank.clone(),
        key,
        before: asked.before.as_deref().map(parse_id).transpose()?,
        limit,
    })
}

/// Reads a state as a person writes it: with `-` or `_`.
///
/// # Errors
/// What there is instead.
pub fn state(text: &str) -> Result<State, String> {
    State::parse(&text.replace('-', "_")).ok_or_else(|| {
        let known = State::ALL.map(State::as_str).join(", ");
        format!("a state is one of {known}")
    })
}

/// Reads an id.
///
/// # Errors
/// What one looks like.
pub fn parse_id(text: &str) -> Result<OperationId, String> {
    OperationId::parse(text).ok_or_else(|| {
        "an operation's id is `op_` and 20 digits of 0-9 and a-f, as in Priorgate-Operation and in lists".to_owned()
    })
}

/// A status that a key may replay.
///
/// # Errors
/// Which ones there are.
pub fn status(status: u16) -> Result<StatusCode, String> {
    StatusCode::from_u16(status)
        .ok()
        .filter(|_| matches!(status, 200..=299 | 400..=599))
        .ok_or_else(|| "status is 200 to 299 or 400 to 599".to_owned())
}

/// What a person's word means for the journal.
///
/// # Errors
/// What is wrong with it.
pub fn resolution(
    asked: &Resolve,
) -> Result<(OperationId, Resolution, Option<StoredAnswer>), String> {
    let resolution = match asked.r#as {
        Found::Done => Resolution::Done,
        Found::NotSent => Resolution::NotSent,
    };
    Ok((parse_id(&asked.id)?, resolution, answer(asked)?))
}

/// What the key replays from now on.
fn answer(asked: &Resolve) -> Result<Option<StoredAnswer>, String> {
    if asked.r#as == Found::NotSent {
        if asked.status.is_some() || asked.content_type.is_some() || asked.body.is_some() {
            let message =
                "what was not sent has no answer: status, content_type and body go with done";
            return Err(message.to_owned());
        }
        return Ok(None);
    }
    let status = status(asked.status.unwrap_or(200))?;
    let mut headers = HeaderMap::new();
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        if asked.content_type.is_some() || asked.body.as_ref().is_some_and(|body| !body.is_empty())
        {
            return Err(format!("an answer {} has no body", status.as_u16()));
        }
        return Ok(Some(StoredAnswer {
            status,
            headers,
            body: Bytes::new(),
        }));
    }
    let body = asked.body.as_deref().unwrap_or("{}");
    if body.len() > BODY_MAX {
        return Err(format!("the body has at most {BODY_MAX} bytes"));
    }
    let content_type = asked.content_type.as_deref().unwrap_or("application/json");
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let value = HeaderValue::from_str(content_type).ok();
    let (Some(MediaType::Named(media)), Some(value)) = (MediaType::parse(media), value) else {
        return Err("content_type is as in application/json".to_owned());
    };
    // PHP would find out when it replays it, and that may be in a month.
    if media == "application/json" && serde_json::from_str::<serde::de::IgnoredAny>(body).is_err() {
        return Err("the body is no JSON, and content_type says that it is".to_owned());
    }
    headers.insert(CONTENT_TYPE, value);
    Ok(Some(StoredAnswer {
        status,
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }))
}

#[cfg(test)]
pub(crate) mod tests;
