//! The admin socket's language: a JSON object a line in, a JSON object a line out.
//!
//! It owns what each command needs of whoever asks, and the form of the answers. It sees bytes and a
//! uid, never a socket; what changes something is asked of `lifecycle` over a channel.
//!
//! In: `{"command": "status"}` or `{"command": "reload"}`. Out: `{"ok": true, "result": …}` or
//! `{"ok": false, "error": {"code": …, "message": …}}`.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::StatusFn;

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
}

/// A command that was not carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    code: &'static str,
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    command: String,
}

impl Server {
    /// `operators` are the uids that may change something.
    #[must_use]
    pub fn new(operators: Vec<u32>, status: StatusFn, commands: mpsc::Sender<Command>) -> Self {
        Self {
            operators: operators.into(),
            status,
            commands,
        }
    }

    /// Carries out one line for `uid`.
    pub(super) async fn carry_out(&self, line: &[u8], uid: u32) -> Result<Value, Refusal> {
        let request: Request = serde_json::from_slice(line).map_err(|error| {
            let expected = r#"one JSON object a line, as in {"command": "status"}"#;
            Refusal::new("bad_request", format!("expected {expected}: {error}"))
        })?;
        match request.command.as_str() {
            "status" => serde_json::to_value((self.status)()).map_err(internal),
            "reload" => {
                self.require_operator(uid)?;
                serde_json::to_value(self.reload().await?).map_err(internal)
            }
            _ => {
                let message = "this gate knows the commands `status` and `reload`; \
                               is the command line of the same version?";
                Err(Refusal::new("unknown_command", message))
            }
        }
    }

    fn require_operator(&self, uid: u32) -> Result<(), Refusal> {
        if self.operators.contains(&uid) {
            return Ok(());
        }
        let message = format!("uid {uid} may not change anything; see admin.operators");
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

    const OPERATOR: u32 = 1000;
    const READER: u32 = 33;

    fn server() -> (Server, mpsc::Receiver<Command>) {
        let (commands, inbox) = mpsc::channel(16);
        (
            Server::new(vec![OPERATOR], Arc::new(sample), commands),
            inbox,
        )
    }

    #[tokio::test]
    async fn everybody_whom_the_socket_lets_in_reads_the_status() {
        let (server, _inbox) = server();
        for uid in [OPERATOR, READER] {
            let status = server
                .carry_out(br#"{"command":"status"}"#, uid)
                .await
                .unwrap();
            assert_eq!(status, serde_json::to_value(sample()).unwrap());
        }
    }

    #[tokio::test]
    async fn only_an_operator_reloads_and_root_is_none_unless_listed() {
        let (server, mut inbox) = server();
        for uid in [READER, 0] {
            let refusal = server
                .carry_out(br#"{"command":"reload"}"#, uid)
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
        let bad: [&[u8]; 6] = [
            b"",
            b"status",
            b"[]",
            b"{}",
            br#"{"command":"status","uid":0}"#,
            b"{\"command\":\"status\"}{\"command\":\"status\"}",
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
    fn an_answer_is_one_line() {
        let line = answer(Err(Refusal::new("reload_failed", "line 1\nline 2")));
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
    }
}
