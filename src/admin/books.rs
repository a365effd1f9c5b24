//! What the commands on operations and on callbacks share: the journal's reading and its deadlines, who a person is and what
//! their word must hold, and the stable codes of what the journal refuses.
//!
//! Who the person is comes from the kernel, never from the line.

use std::fs;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::commands::Refusal;
use crate::audit::Audit;
use crate::journal::error::StoreError;
use crate::journal::{Journal, JournalError, OpenError, Person, Reader};
use crate::net::clock::unix_millis;
use crate::net::exchange::chain;
use crate::policy::chain::Fields;
use crate::policy::operation::State;

/// How long whoever asked waits for the journal.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Characters of a reason.
pub const REASON_MAX: usize = 500;
/// Bytes of a kept body that are shown: it may be as long as the configuration allows, an answer here may not.
pub const SHOWN_MAX: usize = 1 << 20;
/// Reads at a time: each takes one of the threads that handshakes need, too.
const READS: usize = 2;
/// What the kernel says of a process that nobody logged in for.
const NO_LOGIN: u32 = u32::MAX;

/// Who is on the other end, as the kernel says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// The effective uid at the time of its connect.
    pub uid: u32,
    /// The process that connected.
    pub pid: Option<i32>,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The question makes no sense.
    #[error("{0}")]
    Question(String),
    /// No such thing.
    #[error("the journal has no {0}")]
    NotFound(String),
    /// The journal cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Store(#[from] StoreError),
}

/// The commands' view of the journal.
#[derive(Clone, Debug)]
pub(super) struct Books {
    journal: Option<Journal>,
    audit: Option<Audit>,
    reads: Arc<Semaphore>,
}

impl ReadError {
    /// The stable name of the cause.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Question(_) => "bad_request",
            Self::NotFound(_) => "not_found",
            Self::Open(_) | Self::Store(_) => "journal_failed",
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::new(error.code(), chain(&error))
    }
}

impl Peer {
    /// The login is looked up by a process id that may be another's by now; so it says who probably sat there, and the uid
    /// alone decides.
    pub(super) fn person(self, reason: String) -> Person {
        let pid = self.pid.filter(|&pid| pid > 0);
        Person {
            uid: self.uid,
            pid,
            login_uid: pid.and_then(login_of),
            reason,
        }
    }
}

/// Who had logged in to start a process, where the kernel tells.
#[must_use]
pub fn login_of(pid: i32) -> Option<u32> {
    login_uid(&fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?)
}

pub(super) fn login_uid(text: &str) -> Option<u32> {
    let uid = text.trim().parse().ok()?;
    (uid != NO_LOGIN).then_some(uid)
}

impl Books {
    pub(super) fn new(journal: Option<Journal>) -> Self {
        Self {
            journal,
            audit: None,
            reads: Arc::new(Semaphore::new(READS)),
        }
    }

    pub(super) fn audited(mut self, audit: Option<Audit>) -> Self {
        self.audit = audit;
        self
    }

    pub(super) fn audit(&self) -> Result<&Audit, Refusal> {
        let message = "this gate keeps no audit log: `audit` is not configured";
        self.audit
            .as_ref()
            .ok_or_else(|| Refusal::new("no_audit", message))
    }

    /// Puts on record that a person gave a command that changes nothing in the journal, before it is carried out.
    pub(super) async fn commanded(
        &self,
        what: &'static str,
        about: &str,
        peer: Peer,
    ) -> Result<(), Refusal> {
        let Some(audit) = &self.audit else {
            return Ok(());
        };
        let person = peer.person(String::new());
        let now = unix_millis();
        match &self.journal {
            Some(journal) => {
                let work = journal.commanded(what, about.to_owned(), person, now);
                change(work, |state, _| state.to_string()).await
            }
            None => {
                let fields = Fields::of("command")
                    .text("what", what)
                    .text("about", about)
                    .number("uid", person.uid)
                    .optional("pid", person.pid)
                    .optional("login_uid", person.login_uid);
                audit.event(fields, now);
                Ok(())
            }
        }
    }

    pub(super) fn journal(&self) -> Result<&Journal, Refusal> {
        let message = "this gate keeps no operations and no callbacks: `journal` is not configured";
        self.journal
            .as_ref()
            .ok_or_else(|| Refusal::new("no_journal", message))
    }

    pub(super) async fn read(
        &self,
        work: impl FnOnce(&Reader) -> Result<Value, ReadError> + Send + 'static,
    ) -> Result<Value, Refusal> {
        let path = self.journal()?.path().to_owned();
        let reads = Arc::clone(&self.reads);
        let read = async {
            let place = reads.acquire_owned().await.ok()?;
            let work = move || {
                let _place = place;
                work(&Reader::open(&path)?)
            };
            tokio::task::spawn_blocking(work).await.ok()
        };
        match timeout(DEADLINE, read).await {
            Ok(Some(read)) => Ok(read?),
            Ok(None) => Err(Refusal::new("internal", "the read broke off")),
            Err(_) => {
                let message = format!("the journal was not read within {} s", DEADLINE.as_secs());
                Err(Refusal::new("timeout", message))
            }
        }
    }
}

/// Waits for a change. A wait that is over takes back nothing.
pub(super) async fn change<T>(
    work: impl Future<Output = Result<T, JournalError>>,
    wrong_state: impl FnOnce(State, bool) -> String,
) -> Result<T, Refusal> {
    let error = match timeout(DEADLINE, work).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error,
        Err(_) => {
            let within = DEADLINE.as_secs();
            let message = format!(
                "the journal did not answer within {within} s, and may still do it: look before you ask again"
            );
            return Err(Refusal::new("timeout", message));
        }
    };
    let code = match &error {
        JournalError::Busy | JournalError::Held => "busy",
        JournalError::Failed => "journal_failed",
        JournalError::Full => "journal_full",
        JournalError::NotFound => "not_found",
        JournalError::Forbidden((state, listening)) => {
            return Err(Refusal::new("wrong_state", wrong_state(*state, *listening)));
        }
        // None of these is an answer to a person's change.
        JournalError::Closed(_) | JournalError::Internal(_) | JournalError::Stale => "internal",
    };
    Err(Refusal::new(code, error.to_string()))
}

/// Cuts a text where a character ends. Whether there was anything to cut.
pub(super) fn cut(body: &mut String, most: usize) -> bool {
    if body.len() <= most {
        return false;
    }
    let mut end = most;
    while !body.is_char_boundary(end) {
        end -= 1;
    }
    body.truncate(end);
    true
}

/// What a reason must be: words, in one line.
///
/// # Errors
/// What is wrong with it.
pub fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a reason is needed, for whoever reads this in a year".to_owned());
    }
    if text.chars().count() > REASON_MAX {
        return Err(format!("a reason has at most {REASON_MAX} characters"));
    }
    if text.contains(char::is_control) {
        return Err("a reason is one line, without control characters".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn bad(message: String) -> Refusal {
    Refusal::new("bad_request", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::operations::tests::Stage;

    #[tokio::test(start_paused = true)]
    async fn what_the_journal_refuses_has_a_stable_code_and_no_wait_is_endless() {
        for (error, code) in [
            (JournalError::Busy, "busy"),
            (JournalError::Failed, "journal_failed"),
            (JournalError::Full, "journal_full"),
            (JournalError::NotFound, "not_found"),
            (JournalError::Forbidden((State::Sent, false)), "wrong_state"),
            (JournalError::Internal("x".to_owned()), "internal"),
        ] {
            let refused = change(async { Err::<(), _>(error) }, |_, _| String::new()).await;
            assert_eq!(refused.unwrap_err().code(), code);
        }
        let never = change(std::future::pending::<Result<(), _>>(), |_, _| {
            String::new()
        })
        .await;
        assert_eq!(never.unwrap_err().code(), "timeout");

        let stage = Stage::new();
        let books = Books::new(Some(stage.journal.clone()));
        let _places = books.reads.acquire_many(READS as u32).await.unwrap();
        let read = books.read(|_| Ok(Value::Null)).await;
        assert_eq!(read.unwrap_err().code(), "timeout");
        stage.journal.close();
    }

    #[test]
    fn a_login_is_a_uid_or_nobodys() {
        assert_eq!(login_uid("1000"), Some(1000));
        assert_eq!(login_uid("0\n"), Some(0));
        assert_eq!(login_uid("4294967295"), None);
        assert_eq!(login_uid(""), None);
    }
}
