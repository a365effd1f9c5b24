//! The admin socket's language: a JSON object a line in, a JSON object a line out.
//!
//! It owns what each command needs of whoever asks, and the form of the answers. It sees bytes and a
//! [`Peer`], never a socket; a reload is asked of `lifecycle` over a channel, and what concerns
//! operations and callbacks of the journal ([`operations`](super::operations),
//! [`callbacks`]).
//!
//! In: a [`Request`], as in `{"command": "status"}`. Out: `{"ok": true, "result": …}` or
//! `{"ok": false, "error": {"code": …, "message": …}}`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::StatusFn;
use super::books::{Books, Peer};
use super::callbacks::{self, Callbacks, Deed, RejectedFn};
use super::operations::{Freeze, List, Operations, Reconcile, Release, Resolve, Show};
use crate::audit::Audit;
use crate::journal::Journal;
use crate::net::clock::unix_millis;
use crate::net::denials::{Denials, Sink};
use crate::policy::chain::Fields;
use crate::policy::denial::Cause;

/// How long whoever asked waits for a reload: it reads files, at worst from a slow disk.
pub const RELOAD_DEADLINE: Duration = Duration::from_secs(60);

/// What an operator asks of the process. `lifecycle` reads these.
#[derive(Debug)]
pub enum Command {
    /// Read the configuration and what it names again.
    Reload {
        /// Gets what became of it: the new state, or why the old one serves on.
        reply: oneshot::Sender<Result<ReloadDone, String>>,
    },
}

/// A reload that went well.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReloadDone {
    /// The generation that serves now.
    pub generation: u64,
}

/// What the commands need: who may, what is, and the way up.
#[derive(Clone)]
pub struct Server {
    operators: Arc<[u32]>,
    status: StatusFn,
    commands: mpsc::Sender<Command>,
    operations: Operations,
    callbacks: Callbacks,
    books: Books,
    probe: Option<ProbeFn>,
    denials: Arc<Denials>,
    socket: Arc<str>,
}

/// A fresh connection to each bank, and what became of it.
pub type ProbeFn = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<Probed>> + Send>> + Send + Sync>;

/// What became of a fresh connection to a bank.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Probed {
    /// The bank's name.
    pub bank: String,
    /// The handshake was completed and the bank kept the connection.
    pub ok: bool,
    /// How long it took; none without one.
    pub millis: Option<u64>,
    /// Why not.
    pub error: Option<String>,
}

/// A command that was not carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    code: &'static str,
    message: String,
}

/// A line, for both ends of the socket. Names are a contract; a member that a command does not have
/// is refused, because somebody meant something by it.
#[derive(Clone, Deserialize, Serialize)]
#[serde(tag = "command", deny_unknown_fields)]
pub enum Request {
    /// What the gate says of itself.
    #[serde(rename = "status")]
    Status {},
    /// Read the configuration again.
    #[serde(rename = "reload")]
    Reload {},
    /// Connect to each bank once, as a request would.
    #[serde(rename = "probe")]
    Probe {},
    /// Operations, newest first.
    #[serde(rename = "operations.list")]
    List(List),
    /// One operation.
    #[serde(rename = "operations.show")]
    Show(Show),
    /// Say what became of an unknown operation.
    #[serde(rename = "operations.resolve")]
    Resolve(Resolve),
    /// Let the subject of an operation go.
    #[serde(rename = "operations.release")]
    Release(Release),
    /// Refuse guarded routes.
    #[serde(rename = "operations.freeze")]
    Freeze(Freeze),
    /// Take them again.
    #[serde(rename = "operations.thaw")]
    Thaw(Freeze),
    /// Take from the audit log what the journal does not know.
    #[serde(rename = "operations.reconcile")]
    Reconcile(Reconcile),
    /// Events of the bank, newest first.
    #[serde(rename = "callbacks.list")]
    ListEvents(callbacks::List),
    /// One event.
    #[serde(rename = "callbacks.show")]
    ShowEvent(callbacks::Show),
    /// Try an event again.
    #[serde(rename = "callbacks.retry")]
    RetryEvent(callbacks::Change),
    /// Let a held event go to the shop.
    #[serde(rename = "callbacks.release")]
    ReleaseEvent(callbacks::Change),
    /// Give up on an event.
    #[serde(rename = "callbacks.drop")]
    DropEvent(callbacks::Change),
    /// The bodies that no key verified.
    #[serde(rename = "callbacks.rejected")]
    Rejected {},
}

/// Every command of [`Request`].
const NAMES: [&str; 16] = [
    "status",
    "reload",
    "probe",
    "operations.list",
    "operations.show",
    "operations.resolve",
    "operations.release",
    "operations.freeze",
    "operations.thaw",
    "operations.reconcile",
    "callbacks.list",
    "callbacks.show",
    "callbacks.retry",
    "callbacks.release",
    "callbacks.drop",
    "callbacks.rejected",
];

/// The least of a line that names a command.
#[derive(Deserialize)]
struct Named {
    command: String,
}

impl Server {
    /// `operators` are the uids that may change something; `journal` is what the operations and
    /// callbacks commands are about, if one is configured; `rejected` gives what no key verified, if
    /// callbacks are configured.
    #[must_use]
    pub fn new(
        operators: Vec<u32>,
        status: StatusFn,
        commands: mpsc::Sender<Command>,
        journal: Option<Journal>,
        rejected: Option<RejectedFn>,
    ) -> Self {
        let books = Books::new(journal);
        Self {
            operators: operators.into(),
            status,
            commands,
            operations: Operations::new(books.clone()),
            callbacks: Callbacks::new(books.clone(), rejected),
            books,
            probe: None,
            denials: Arc::new(Denials::new("admin".to_owned(), None)),
            socket: "admin.unix".into(),
        }
    }

    /// The same with a way to probe the banks.
    #[must_use]
    pub fn with_probe(self, probe: ProbeFn) -> Self {
        Self {
            probe: Some(probe),
            ..self
        }
    }

    /// Commands go to the audit log as well.
    #[must_use]
    pub fn audited(self, audit: Option<Audit>) -> Self {
        let sink = audit.clone().map(denied);
        let books = self.books.audited(audit);
        Self {
            denials: Arc::new(Denials::new("admin".to_owned(), sink)),
            operations: Operations::new(books.clone()),
            callbacks: self.callbacks.with(books.clone()),
            books,
            ..self
        }
    }

    /// Carries out one line for `peer`.
    pub(super) async fn carry_out(&self, line: &[u8], peer: Peer) -> Result<Value, Refusal> {
        let operator = self.operators.contains(&peer.uid);
        match parse(line)? {
            Request::Status {} => serde_json::to_value((self.status)()).map_err(internal),
            Request::Reload {} => {
                self.require_operator(peer)?;
                self.books.commanded("reload", "", peer).await?;
                serde_json::to_value(self.reload().await?).map_err(internal)
            }
            Request::Probe {} => {
                self.require_operator(peer)?;
                let Some(probe) = &self.probe else {
                    return Err(Refusal::new(
                        "unavailable",
                        "this gate has nothing to probe",
                    ));
                };
                // It shows the shop's certificate to each bank.
                self.books.commanded("probe", "", peer).await?;
                serde_json::to_value(probe().await).map_err(internal)
            }
            Request::List(asked) => self.operations.list(asked, operator).await,
            Request::Show(asked) => {
                if asked.body {
                    self.require_operator(peer)?;
                    let what = "operations show --body";
                    self.books.commanded(what, &asked.id, peer).await?;
                }
                self.operations.show(asked, operator).await
            }
            Request::Resolve(asked) => {
                self.require_operator(peer)?;
                self.operations.resolve(asked, peer).await
            }
            Request::Release(asked) => {
                self.require_operator(peer)?;
                self.operations.release(asked, peer).await
            }
            Request::Freeze(asked) => {
                self.require_operator(peer)?;
                self.operations.freeze(true, asked, peer).await
            }
            Request::Thaw(asked) => {
                self.require_operator(peer)?;
                self.operations.freeze(false, asked, peer).await
            }
            Request::Reconcile(asked) => {
                self.require_operator(peer)?;
                self.operations.reconcile(asked, peer).await
            }
            Request::ListEvents(asked) => self.callbacks.list(asked, operator).await,
            Request::ShowEvent(asked) => {
                if asked.body {
                    self.require_operator(peer)?;
                    let (what, about) = ("callbacks show --body", asked.id.about());
                    self.books.commanded(what, &about, peer).await?;
                }
                self.callbacks.show(asked, operator).await
            }
            Request::RetryEvent(asked) => self.change_event(Deed::Retry, asked, peer).await,
            Request::ReleaseEvent(asked) => self.change_event(Deed::Release, asked, peer).await,
            Request::DropEvent(asked) => self.change_event(Deed::Drop, asked, peer).await,
            Request::Rejected {} => {
                self.require_operator(peer)?;
                self.books.commanded("callbacks rejected", "", peer).await?;
                self.callbacks.rejected().await
            }
        }
    }

    async fn change_event(
        &self,
        deed: Deed,
        asked: callbacks::Change,
        peer: Peer,
    ) -> Result<Value, Refusal> {
        self.require_operator(peer)?;
        self.callbacks.change(deed, asked, peer).await
    }

    fn require_operator(&self, peer: Peer) -> Result<(), Refusal> {
        if self.operators.contains(&peer.uid) {
            return Ok(());
        }
        let uid = peer.uid;
        self.denials.note(&self.socket, Some(uid), Cause::NotListed);
        let message =
            format!("uid {uid} may not change anything or see bodies; see admin.operators");
        Err(Refusal::new("operator_required", message))
    }

    async fn reload(&self) -> Result<ReloadDone, Refusal> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(Command::Reload { reply }).await.ok()?;
            answer.await.ok()
        };
        match timeout(RELOAD_DEADLINE, asked).await {
            Ok(Some(Ok(done))) => Ok(done),
            Ok(Some(Err(why))) => Err(Refusal::new("reload_failed", why)),
            Ok(None) => {
                let message = "the gate is shutting down; nothing was reloaded";
                Err(Refusal::new("draining", message))
            }
            Err(_) => {
                let message = "the reload has not ended yet; ask for the status later";
                Err(Refusal::new("timeout", message))
            }
        }
    }
}

/// For the audit log: as many as somebody likes are one record a second.
fn denied(audit: Audit) -> Sink {
    Arc::new(move |_, denial| {
        let fields = Fields::of("denied")
            .text("listener", &denial.listener)
            .optional("uid", denial.uid)
            .text("code", "operator_required")
            .number("times", denial.count);
        audit.event(fields, unix_millis());
    })
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let error = match serde_json::from_slice(line) {
        Ok(request) => return Ok(request),
        Err(error) => error,
    };
    match serde_json::from_slice(line) {
        Ok(Named { command }) if !NAMES.contains(&command.as_str()) => {
            let known = NAMES.join(", ");
            let message = format!(
                "this gate knows the commands {known}; is the command line of the same version?"
            );
            Err(Refusal::new("unknown_command", message))
        }
        _ => {
            let expected = r#"one JSON object a line, as in {"command": "status"}"#;
            let message = format!("expected {expected}: {error}");
            Err(Refusal::new("bad_request", message))
        }
    }
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }
}

/// The line that answers.
pub(super) fn answer(result: Result<Value, Refusal>) -> Vec<u8> {
    let document = match result {
        Ok(result) => serde_json::json!({"ok": true, "result": result}),
        Err(Refusal { code, message }) => {
            serde_json::json!({"ok": false, "error": {"code": code, "message": message}})
        }
    };
    format!("{document}\n").into_bytes()
}

fn internal(error: serde_json::Error) -> Refusal {
    Refusal::new("internal", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::tests::sample;

    const OPERATOR: Peer = peer(1000);
    const READER: Peer = peer(33);

    const fn peer(uid: u32) -> Peer {
        Peer { uid, pid: None }
    }

    fn server() -> (Server, mpsc::Receiver<Command>) {
        let (commands, inbox) = mpsc::channel(16);
        (
            Server::new(vec![OPERATOR.uid], Arc::new(sample), commands, None, None),
            inbox,
        )
    }

    #[tokio::test]
    async fn everybody_whom_the_socket_lets_in_reads_the_status() {
        let (server, _inbox) = server();
        for peer in [OPERATOR, READER] {
            let status = server
                .carry_out(br#"{"command":"status"}"#, peer)
                .await
                .unwrap();
            assert_eq!(status, serde_json::to_value(sample()).unwrap());
        }
    }

    #[tokio::test]
    async fn only_an_operator_reloads_and_root_is_none_unless_listed() {
        let (server, mut inbox) = server();
        for peer in [READER, peer(0)] {
            let refusal = server
                .carry_out(br#"{"command":"reload"}"#, peer)
                .await
                .unwrap_err();
            assert_eq!(refusal.code(), "operator_required");
            assert!(
                inbox.try_recv().is_err(),
                "the command went up all the same"
            );
        }
        let lifecycle = async {
            let Some(Command::Reload { reply }) = inbox.recv().await else {
                panic!("no command");
            };
            reply.send(Ok(ReloadDone { generation: 2 })).unwrap();
        };
        let asked = server.carry_out(br#"{"command":"reload"}"#, OPERATOR);
        let (done, ()) = tokio::join!(asked, lifecycle);
        assert_eq!(done, Ok(serde_json::json!({"generation": 2})));
    }

    #[tokio::test]
    async fn a_failed_reload_says_why() {
        let (server, mut inbox) = server();
        let lifecycle = async {
            let Some(Command::Reload { reply }) = inbox.recv().await else {
                panic!("no command");
            };
            reply.send(Err("the key does not fit".to_owned())).unwrap();
        };
        let asked = server.carry_out(br#"{"command":"reload"}"#, OPERATOR);
        let (done, ()) = tokio::join!(asked, lifecycle);
        assert_eq!(
            done,
            Err(Refusal::new("reload_failed", "the key does not fit"))
        );
    }

    #[tokio::test]
    async fn a_reload_that_nobody_reads_or_answers_ends_as_draining() {
        let (server, mut inbox) = server();
        let lifecycle = async { drop(inbox.recv().await) };
        let asked = server.carry_out(br#"{"command":"reload"}"#, OPERATOR);
        let (unanswered, ()) = tokio::join!(asked, lifecycle);
        assert_eq!(unanswered.unwrap_err().code(), "draining");
        drop(inbox);
        let unread = server.carry_out(br#"{"command":"reload"}"#, OPERATOR).await;
        assert_eq!(unread.unwrap_err().code(), "draining");
    }

    #[tokio::test]
    async fn what_is_no_command_is_refused_with_a_hint() {
        let (server, _inbox) = server();
        let bad: [&[u8]; 9] = [
            b"",
            b"status",
            b"[]",
            b"{}",
            br#"{"command":"status","uid":0}"#,
            b"{\"command\":\"status\"}{\"command\":\"status\"}",
            br#"{"command":"operations.show"}"#,
            br#"{"command":"operations.show","id":"a","id":"b"}"#,
            br#"{"command":"operations.list","subject":"x"}"#,
        ];
        for line in bad {
            let refusal = server.carry_out(line, OPERATOR).await.unwrap_err();
            assert_eq!(refusal.code(), "bad_request");
        }
        let refusal = server
            .carry_out(br#"{"command":"stop"}"#, OPERATOR)
            .await
            .unwrap_err();
        assert_eq!(refusal.code(), "unknown_command");
    }

    #[test]
    fn every_command_by_its_name_is_known() {
        for name in NAMES {
            let line = serde_json::json!({"command": name}).to_string();
            if let Err(refusal) = parse(line.as_bytes()) {
                assert_eq!(refusal.code(), "bad_request", "{name}");
                assert!(refusal.message.contains("missing field"), "{name}");
            }
        }
    }

    #[test]
    fn an_answer_is_one_line() {
        let line = answer(Err(Refusal::new("reload_failed", "line 1\nline 2")));
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
    }
}
