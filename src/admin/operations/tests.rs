//! The operations commands over a real journal: who may what, what is refused, and what is written down.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::admin::books::{REASON_MAX, login_uid};
use crate::admin::callbacks::RejectedFn;
use crate::admin::commands::Server;
use crate::admin::status::tests::sample;
use crate::journal::{Attempt, Finish, Journal, Options, Request, Reserved};
use crate::policy::operation::{Digest, Ending, Repeat, UnixMillis};

pub(crate) const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
pub(crate) const OPERATOR: Peer = Peer {
    uid: 1000,
    pid: Some(0),
};
pub(crate) const READER: Peer = Peer { uid: 33, pid: None };

/// How far an operation of a test came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Came {
    Sent,
    Unknown,
    Listening,
    Undelivered,
    Delivered,
    NotSent,
}

/// A journal with what a test puts into it.
pub(crate) struct Stage {
    pub(crate) journal: Journal,
    pub(crate) path: PathBuf,
    pub(crate) dir: TempDir,
    /// A dropped attempt would settle.
    attempts: Mutex<Vec<Attempt>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let options = Options {
            allow_volatile: true,
            queue: 256,
            ballast: 64 << 10,
            ..Options::default()
        };
        let (prepared, _) = Journal::open(&path, options, NOW).unwrap();
        Self {
            journal: prepared.start().unwrap(),
            path,
            dir,
            attempts: Mutex::default(),
        }
    }

    async fn reserve(&self, key: &str) -> Reserved {
        let request = Request {
            bank: "priorbank".to_owned(),
            route: "refund".to_owned(),
            key: Key::parse(key.as_bytes()).unwrap().digest("priorbank"),
            fingerprint: Digest::of("test", &[key.as_bytes()]),
            subject: Some(crate::journal::Subject {
                hash: Digest::of("subject", &[key.as_bytes()]),
                pointers: "/session_id".to_owned(),
                text: format!("/session_id=\"{key}\""),
            }),
            repeat: Repeat::Mistaken,
            uid: Some(33),
            request_id: format!("r-{key}"),
        };
        self.journal.reserve(request, NOW).await.unwrap()
    }

    pub(crate) async fn operation(&self, key: &str, came: Came) -> OperationId {
        self.answered(key, came, "{\"refund_id\":1}").await
    }

    async fn answered(&self, key: &str, came: Came, body: &str) -> OperationId {
        let Reserved::Run(mut attempt) = self.reserve(key).await else {
            panic!("{key} does not run");
        };
        let id = attempt.id();
        self.journal.mark_sent(&mut attempt, NOW).await.unwrap();
        let unknown = |listening| Finish::Unknown {
            code: "bank_timeout",
            listening,
        };
        let finish = match came {
            Came::Sent => None,
            Came::Unknown => Some(unknown(false)),
            Came::Listening => Some(unknown(true)),
            Came::NotSent => Some(Finish::NotSent {
                code: "bank_unreachable",
            }),
            Came::Undelivered | Came::Delivered => Some(Finish::Answered {
                ending: Ending::Done,
                answer: StoredAnswer {
                    status: StatusCode::OK,
                    headers: HeaderMap::from_iter([(
                        CONTENT_TYPE,
                        HeaderValue::from_static("application/json"),
                    )]),
                    body: Bytes::copy_from_slice(body.as_bytes()),
                },
            }),
        };
        if let Some(finish) = finish {
            self.journal
                .finish(&mut attempt, finish, NOW)
                .await
                .unwrap();
        }
        if matches!(came, Came::Delivered) {
            self.journal.delivered(id, NOW);
            // Written with whatever comes next.
            self.journal.purge(NOW).await.unwrap();
        }
        self.attempts.lock().unwrap().push(attempt);
        id
    }

    pub(crate) fn server(&self, operators: Vec<u32>) -> Server {
        server(operators, Some(self.journal.clone()), None)
    }

    fn shown(&self, id: OperationId) -> Value {
        let everything = Depth {
            subject: true,
            body: true,
        };
        show(
            &Reader::open(&self.path).unwrap(),
            &id.to_string(),
            everything,
        )
        .unwrap()
    }
}

pub(crate) fn server(
    operators: Vec<u32>,
    journal: Option<Journal>,
    rejected: Option<RejectedFn>,
) -> Server {
    let (commands, _) = mpsc::channel(1);
    Server::new(operators, Arc::new(sample), commands, journal, rejected)
}

/// Asks, and gives a refusal as its code and message.
pub(crate) async fn ask(
    server: &Server,
    peer: Peer,
    request: Value,
) -> Result<Value, (String, String)> {
    let result = server.carry_out(request.to_string().as_bytes(), peer).await;
    let line = crate::admin::commands::answer(result);
    let answer: Value = serde_json::from_slice(&line).unwrap();
    let text = |name: &str| answer["error"][name].as_str().unwrap().to_owned();
    if answer["ok"] == true {
        Ok(answer["result"].clone())
    } else {
        Err((text("code"), text("message")))
    }
}

pub(crate) fn operator() -> Vec<u32> {
    vec![OPERATOR.uid]
}

fn every_change(id: OperationId) -> [Value; 4] {
    let id = id.to_string();
    [
        json!({"command": "operations.resolve", "id": id, "as": "done", "reason": "why"}),
        json!({"command": "operations.release", "id": id, "reason": "why"}),
        json!({"command": "operations.freeze", "reason": "why"}),
        json!({"command": "operations.thaw", "reason": "why"}),
    ]
}

#[tokio::test]
async fn readers_see_how_operations_stand_and_operators_also_what_they_are_about() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.operation("k1", Came::Undelivered).await.to_string();
    for (peer, subject) in [
        (READER, Value::Null),
        (OPERATOR, json!("/session_id=\"k1\"")),
    ] {
        let list = ask(&server, peer, json!({"command": "operations.list"}))
            .await
            .unwrap();
        assert_eq!(list["frozen"], false);
        assert_eq!(list["operations"][0]["id"], id);
        assert_eq!(list["operations"][0]["subject"], subject);
        let show = json!({"command": "operations.show", "id": id});
        let shown = ask(&server, peer, show).await.unwrap();
        assert_eq!(shown["subject"], subject);
        assert_eq!(shown["answer"]["bytes"], 15);
        assert_eq!(shown["answer"]["body"], Value::Null);
    }
    let body = json!({"command": "operations.show", "id": id, "body": true});
    let refused = ask(&server, READER, body.clone()).await.unwrap_err();
    assert_eq!(refused.0, "operator_required");
    let shown = ask(&server, OPERATOR, body).await.unwrap();
    assert_eq!(shown["answer"]["body"], "{\"refund_id\":1}");
    stage.journal.close();
}

#[tokio::test]
async fn a_list_shows_what_fits_all_that_is_asked() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let unknown = stage.operation("k1", Came::Unknown).await.to_string();
    let undelivered = stage.operation("k2", Came::Undelivered).await.to_string();
    let not_sent = stage.operation("k3", Came::NotSent).await.to_string();
    let delivered = stage.operation("k4", Came::Delivered).await.to_string();
    // Ids of one millisecond are in no particular order.
    let mut all = [&unknown, &undelivered, &not_sent, &delivered];
    all.sort();
    for (filter, expected) in [
        (json!({}), all.to_vec()),
        (json!({"states": ["unknown"]}), vec![&unknown]),
        (json!({"states": ["not-sent"]}), vec![&not_sent]),
        (json!({"holding": true}), vec![&unknown, &undelivered]),
        (
            json!({"states": ["done"], "holding": true}),
            vec![&undelivered],
        ),
        (json!({"bank": "other"}), vec![]),
        (json!({"bank": "priorbank", "key": "k4"}), vec![&delivered]),
        (
            json!({"bank": "priorbank", "key": "\"k4\""}),
            vec![&delivered],
        ),
        (json!({"bank": "other", "key": "k4"}), vec![]),
        (json!({"before": all[1]}), vec![all[0]]),
        (json!({"limit": 1}), vec![all[3]]),
    ] {
        let mut request = filter.clone();
        request["command"] = json!("operations.list");
        let list = ask(&server, READER, request).await.unwrap();
        let mut ids: Vec<_> = list["operations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|operation| operation["id"].as_str().unwrap())
            .collect();
        ids.sort_unstable();
        let mut expected: Vec<_> = expected.into_iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(ids, expected, "{filter}");
    }
    for (filter, why) in [
        (json!({"states": ["open"]}), "a state is one of reserved"),
        (json!({"key": "k"}), "name the bank"),
        (
            json!({"bank": "priorbank", "key": "a b"}),
            "Idempotency-Key",
        ),
        (json!({"before": "yesterday"}), "op_"),
        (json!({"limit": 0}), "1 to 1000"),
        (json!({"limit": 1001}), "1 to 1000"),
    ] {
        let mut request = filter.clone();
        request["command"] = json!("operations.list");
        let (code, message) = ask(&server, READER, request).await.unwrap_err();
        assert_eq!(code, "bad_request", "{filter}");
        assert!(message.contains(why), "{message}");
    }
    stage.journal.close();
}

#[tokio::test]
async fn only_an_operator_changes_anything_and_root_is_none_unless_listed() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.operation("k1", Came::Unknown).await;
    let before = stage.shown(id);
    for peer in [READER, Peer { uid: 0, pid: None }] {
        for change in every_change(id) {
            let refused = ask(&server, peer, change).await.unwrap_err();
            assert_eq!(refused.0, "operator_required");
        }
    }
    assert_eq!(stage.shown(id), before);
    assert!(!Reader::open(&stage.path).unwrap().is_frozen().unwrap());
    stage.journal.close();
}

#[tokio::test]
async fn what_the_bank_has_is_replayed_from_now_on_and_who_said_so_is_written_down() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.operation("k1", Came::Unknown).await;
    let pid = i32::try_from(std::process::id()).unwrap();
    let peer = Peer {
        pid: Some(pid),
        ..OPERATOR
    };
    let request = json!({
        "command": "operations.resolve", "id": id.to_string(), "as": "done", "status": 201,
        "body": "{\"refund_id\":7}", "reason": "  the bank's list has it \n",
    });
    let answer = ask(&server, peer, request).await.unwrap();
    assert_eq!(answer, json!({"id": id.to_string(), "state": "done"}));
    let Reserved::Replay { answer, .. } = stage.reserve("k1").await else {
        panic!("no replay");
    };
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &*answer.body),
        (201, &b"{\"refund_id\":7}"[..])
    );
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    let done = &stage.shown(id)["interventions"][0];
    let login = fs::read_to_string("/proc/self/loginuid").ok();
    assert_eq!(done["what"], "resolved as done");
    assert_eq!(done["reason"], "the bank's list has it");
    assert_eq!((&done["uid"], &done["pid"]), (&json!(1000), &json!(pid)));
    assert_eq!(
        done["login_uid"],
        json!(login.and_then(|text| login_uid(&text)))
    );
    stage.journal.close();
}

#[tokio::test]
async fn what_the_bank_has_not_runs_again_under_its_key() {
    let stage = Stage::new();
    let server = stage.server(operator());
    for (key, word) in [("k1", "not_sent"), ("k2", "not-sent")] {
        let id = stage.operation(key, Came::Unknown).await.to_string();
        let request =
            json!({"command": "operations.resolve", "id": id, "as": word, "reason": "asked"});
        let answer = ask(&server, OPERATOR, request).await.unwrap();
        assert_eq!(answer["state"], "not_sent");
        assert!(matches!(stage.reserve(key).await, Reserved::Run(_)));
    }
    stage.journal.close();
}

#[tokio::test]
async fn a_released_operation_holds_nothing_any_more() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.operation("k1", Came::Undelivered).await;
    assert_eq!(stage.shown(id)["holds_subject"], true);
    let request = &every_change(id)[1];
    ask(&server, OPERATOR, request.clone()).await.unwrap();
    let shown = stage.shown(id);
    assert_eq!(
        (&shown["state"], &shown["holds_subject"]),
        (&json!("done"), &json!(false))
    );
    assert_eq!(
        shown["interventions"][0]["pid"],
        Value::Null,
        "0 is no process"
    );
    let (code, message) = ask(&server, OPERATOR, request.clone()).await.unwrap_err();
    assert_eq!(code, "wrong_state");
    assert!(message.contains("it holds nothing"), "{message}");
    stage.journal.close();
}

#[tokio::test]
async fn a_frozen_journal_says_so_until_it_is_thawed() {
    let stage = Stage::new();
    let server = stage.server(operator());
    for (command, frozen) in [("operations.freeze", true), ("operations.thaw", false)] {
        for changed in [true, false] {
            let request = json!({"command": command, "reason": "a backup is restored"});
            let answer = ask(&server, OPERATOR, request).await.unwrap();
            assert_eq!(answer, json!({"frozen": frozen, "changed": changed}));
            let list = json!({"command": "operations.list"});
            let list = ask(&server, READER, list).await.unwrap();
            assert_eq!(list["frozen"], frozen);
        }
    }
    stage.journal.close();
}

#[tokio::test]
async fn a_step_that_the_state_does_not_have_is_refused_with_the_state() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let listens = "still listens for the bank's answer until timeouts.settle; ask again then";
    for (came, resolve, release) in [
        (Came::Sent, "is sent: only", "is sent: only"),
        (Came::Listening, listens, "still listens"),
        (Came::Delivered, "is done: only", "it holds nothing"),
        (Came::NotSent, "is not_sent: only", "is not_sent: only"),
    ] {
        let id = stage.operation(&format!("{came:?}"), came).await;
        let before = stage.shown(id);
        for (request, why) in every_change(id).into_iter().zip([resolve, release]) {
            let (code, message) = ask(&server, OPERATOR, request).await.unwrap_err();
            assert_eq!(code, "wrong_state", "{came:?}");
            assert!(message.contains(why), "{came:?}: {message}");
        }
        assert_eq!(stage.shown(id), before);
    }
    let nobody = OperationId::new(NOW, 0);
    let show = json!({"command": "operations.show", "id": nobody.to_string()});
    let [resolve, release, ..] = every_change(nobody);
    for request in [show, resolve, release] {
        let refused = ask(&server, OPERATOR, request).await.unwrap_err();
        assert_eq!(refused.0, "not_found");
    }
    stage.journal.close();
}

#[tokio::test]
async fn what_a_person_gives_is_checked_before_it_is_written() {
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.operation("k1", Came::Unknown).await;
    let before = stage.shown(id);
    let long = "x".repeat(REASON_MAX + 1);
    let body = format!("\"{}\"", "x".repeat(BODY_MAX));
    for (given, why) in [
        (json!({"reason": " \n"}), "a reason is needed"),
        (json!({"reason": long}), "at most 500"),
        (json!({"reason": "a\u{1b}[2Jb"}), "control"),
        (json!({"as": "refused"}), "as"),
        (json!({"id": "op_1"}), "op_"),
        (json!({"status": 302}), "200 to 299 or 400 to 599"),
        (json!({"status": 100}), "200 to 299 or 400 to 599"),
        (json!({"status": 600}), "200 to 299 or 400 to 599"),
        (json!({"status": 204, "body": "{}"}), "has no body"),
        (json!({"content_type": "json"}), "application/json"),
        (json!({"content_type": "none"}), "application/json"),
        (
            json!({"content_type": "text/x\r\nx: y"}),
            "application/json",
        ),
        (json!({"body": "{"}), "no JSON"),
        (json!({"body": body}), "65536"),
        (json!({"as": "not_sent", "status": 200}), "has no answer"),
        (json!({"as": "not_sent", "body": ""}), "has no answer"),
        (
            json!({"as": "not_sent", "content_type": "a/b"}),
            "has no answer",
        ),
        (json!({"force": true}), "unknown field"),
    ] {
        let mut request = every_change(id)[0].clone();
        for (name, value) in given.as_object().unwrap() {
            request[name] = value.clone();
        }
        let (code, message) = ask(&server, OPERATOR, request).await.unwrap_err();
        assert_eq!(code, "bad_request", "{given}");
        assert!(message.contains(why), "{given}: {message}");
    }
    assert_eq!(stage.shown(id), before);
    let empty = json!({
        "command": "operations.resolve", "id": id.to_string(), "as": "done", "status": 204, "reason": "r",
    });
    ask(&server, OPERATOR, empty).await.unwrap();
    assert_eq!(
        stage.shown(id)["answer"],
        json!({"status": 204, "content_type": null, "bytes": 0, "body": ""})
    );
    stage.journal.close();
}

#[tokio::test]
async fn without_a_journal_every_command_says_that_one_must_be_configured() {
    let server = server(operator(), None, None);
    let id = OperationId::new(NOW, 1);
    let list = json!({"command": "operations.list"});
    let show = json!({"command": "operations.show", "id": id.to_string()});
    for request in every_change(id).into_iter().chain([list, show]) {
        let (code, message) = ask(&server, OPERATOR, request).await.unwrap_err();
        assert_eq!(code, "no_journal");
        assert!(message.contains("`journal` is not configured"), "{message}");
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_a_refusal() {
    let stage = Stage::new();
    let server = stage.server(operator());
    stage.journal.close();
    fs::remove_file(&stage.path).unwrap();
    let list = json!({"command": "operations.list"});
    let (code, message) = ask(&server, READER, list).await.unwrap_err();
    assert_eq!(code, "journal_failed");
    assert!(message.contains("No such file"), "{message}");
}

#[tokio::test]
async fn a_long_body_is_cut_where_a_character_ends_and_says_so() {
    let stage = Stage::new();
    let body = format!("x{}", "й".repeat(SHOWN_MAX / 2));
    let id = stage.answered("k1", Came::Delivered, &body).await;
    let answer = &stage.shown(id)["answer"];
    assert_eq!(answer["body"].as_str().unwrap().len(), SHOWN_MAX - 1);
    assert_eq!(answer["bytes"], SHOWN_MAX + 1);
    assert_eq!(answer["body_cut"], true);
    stage.journal.close();
}

#[tokio::test]
async fn the_log_says_who_changed_what_and_keeps_the_reason_to_itself() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let stage = Stage::new();
    let server = stage.server(operator());
    let id = stage.operation("k1", Came::Unknown).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let request = json!({
        "command": "operations.resolve", "id": id.to_string(), "as": "done", "reason": "Anna Schmidt called",
    });
    ask(&server, OPERATOR, request).await.unwrap();
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("WARN"), "{text}");
    assert!(text.contains(&format!("operation={id}")), "{text}");
    assert!(text.contains("uid=1000"), "{text}");
    assert!(!text.contains("Anna"), "{text}");
    stage.journal.close();
}
