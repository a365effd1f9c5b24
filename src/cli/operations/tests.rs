//! The operations commands as they are typed: against a real admin socket with a real journal, and without a gate.

mod pages;

use std::fs;

use serde_json::Value;

use crate::admin::operations::BODY_MAX;
use crate::admin::operations::tests::Came;
use crate::cli::tests::world::{self, Done, World};
use crate::cli::{CONFIG, OK, PROBLEM, USAGE};

fn typed(args: &[&str], config: &str, word: Option<&str>) -> Done {
    world::typed("operations", args, config, word)
}

impl World {
    fn operation(&self, key: &str, came: Came) -> String {
        let id = self.runtime.block_on(self.stage.operation(key, came));
        id.to_string()
    }

    fn operations(&self, args: &[&str], word: Option<&str>) -> Done {
        self.typed("operations", args, word)
    }
}

#[test]
fn a_running_gate_is_asked_and_a_person_resolves_with_a_typed_yes() {
    let world = World::up();
    let id = world.operation("k1", Came::Unknown);
    let list = world.operations(
        &["list", "--open", "--bank", "priorbank", "--key", "k1"],
        None,
    );
    assert_eq!((list.code, list.err.as_str()), (OK, ""));
    assert!(list.out.contains(&id), "{}", list.out);
    let none = world.operations(&["list", "--state", "done"], None);
    assert_eq!((none.code, none.out.as_str()), (OK, "no operations\n"));
    let show = world.operations(&["show", &id], None);
    assert!(show.out.contains("/session_id=\"k1\""), "{}", show.out);

    let resolve = [
        "resolve",
        &id,
        "--as",
        "done",
        "--reason",
        "the bank's list has it",
    ];
    for word in ["no\n", "y\n", ""] {
        let done = world.operations(&resolve, Some(word));
        assert_eq!((done.code, done.out.as_str()), (PROBLEM, ""));
        assert!(done.err.contains("/session_id=\"k1\""), "{}", done.err);
        assert!(
            done.err
                .contains("Type yes: priorgate: nothing was changed\n")
        );
        assert_eq!(world.state("operations", &id), "unknown");
    }
    let done = world.operations(&resolve, Some("yes\n"));
    assert_eq!(done.code, OK, "{}", done.err);
    assert_eq!(
        done.out,
        format!("resolved: {id} is done: its key replays the answer that you gave\n")
    );
    let again = world.operations(&[&resolve[..], &["--yes"]].concat(), None);
    assert_eq!((again.code, again.out.as_str()), (PROBLEM, ""));
    assert!(again.err.contains("is done: only one that is unknown"));
    let show = world.operations(&["show", &id, "--body"], None);
    assert!(show.out.contains("\nbody:\n  {}\n"), "{}", show.out);
    assert!(show.out.contains("resolved as done (uid "), "{}", show.out);
}

#[test]
fn without_a_terminal_a_change_needs_a_yes_on_the_line() {
    let world = World::up();
    let (unknown, done) = (
        world.operation("k1", Came::Unknown),
        world.operation("k2", Came::Undelivered),
    );
    let body = world.stage.dir.path().join("answer.json");
    fs::write(&body, "{\"refund_id\":7}\n").unwrap();
    let resolve = [
        "resolve",
        &unknown,
        "--as",
        "done",
        "--reason",
        "asked",
        "--status",
        "201",
        "--body",
        body.to_str().unwrap(),
    ];
    let release = ["release", &done, "--reason", "the order is gone"];
    for command in [&resolve[..], &release] {
        let refused = world.operations(command, None);
        assert_eq!((refused.code, refused.out.as_str()), (USAGE, ""));
        assert!(refused.err.contains("--yes"), "{}", refused.err);
        let mut command = command.to_vec();
        command.extend(["--yes", "--json"]);
        let changed = world.operations(&command, None);
        assert_eq!((changed.code, changed.err.as_str()), (OK, ""));
        let result: Value = serde_json::from_str(&changed.out).unwrap();
        assert_eq!(result["state"], "done");
    }
    let show = world.operations(&["show", &unknown, "--body", "--json"], None);
    let show: Value = serde_json::from_str(&show.out).unwrap();
    assert_eq!(show["answer"]["status"], 201);
    assert_eq!(show["answer"]["body"], "{\"refund_id\":7}\n");

    fs::write(&body, " ".repeat(BODY_MAX + 1)).unwrap();
    let long = world.operations(&resolve, None);
    assert_eq!(long.code, PROBLEM);
    assert!(long.err.contains("more than 65536 bytes"), "{}", long.err);
    fs::remove_file(&body).unwrap();
    let gone = world.operations(&resolve, None);
    assert_eq!(gone.code, PROBLEM);
    assert!(gone.err.contains("cannot read"), "{}", gone.err);
}

#[test]
fn guarded_requests_are_frozen_and_thawed() {
    let world = World::up();
    for (command, first, second) in [
        ("freeze", "frozen: every", "it was frozen already"),
        ("thaw", "thawed: guarded", "it was not frozen"),
    ] {
        for says in [first, second] {
            let done = world.operations(&[command, "--reason", "a restore"], None);
            assert_eq!((done.code, done.err.as_str()), (OK, ""));
            assert!(done.out.starts_with(says), "{}", done.out);
        }
        let list = world.operations(&["list"], None);
        assert_eq!(list.out.contains("frozen"), command == "freeze");
    }
}

#[test]
fn while_the_gate_is_down_the_file_is_read_and_nothing_is_changed() {
    let world = World::down();
    let id = world.operation("k1", Came::Sent);
    let undelivered = world.operation("k2", Came::Undelivered);
    // A journal in use by a gate that listens elsewhere is told apart from one that nobody has.
    let list = world.operations(&["list", "--bank", "priorbank", "--key", "k1"], None);
    assert_eq!(list.code, OK);
    assert!(list.out.contains(&id) && !list.out.contains(&undelivered));
    assert!(
        list.err.contains("a gate has this journal open"),
        "{}",
        list.err
    );
    let config = &world.config;
    let (_copy, down) = world.abandoned();
    let down = &*down;
    let show = typed(&["show", &id], down, None);
    assert_eq!(show.code, OK);
    let note = show.err.lines().collect::<Vec<_>>();
    assert_eq!(note.len(), 1, "{}", show.err);
    assert!(note[0].contains("no gate listens on") && note[0].contains("journal.db instead"));
    assert!(show.out.contains("subject        /session_id=\"k1\""));
    assert!(
        show.out.contains("the next start makes it unknown"),
        "{}",
        show.out
    );
    let body = typed(&["show", &undelivered, "--body", "--json"], down, None);
    let body: Value = serde_json::from_str(&body.out).unwrap();
    assert_eq!(body["answer"]["body"], "{\"refund_id\":1}");
    let missing = typed(&["show", "op_01a1ed6de00000000001"], down, None);
    assert_eq!((missing.code, missing.out.as_str()), (PROBLEM, ""));
    assert!(
        missing
            .err
            .contains("the journal has no operation op_01a1ed6de00000000001")
    );

    let id = id.as_str();
    // The admin socket is not there, but somebody has the journal open.
    for (command, says) in [
        (
            &["resolve", id, "--as", "not-sent", "--reason", "r", "--yes"][..],
            "is in use by another gate",
        ),
        (
            &["release", id, "--reason", "r", "--yes"],
            "only a running gate writes",
        ),
    ] {
        let refused = typed(command, config, None);
        assert_eq!((refused.code, refused.out.as_str()), (PROBLEM, ""));
        assert!(refused.err.contains(says), "{}", refused.err);
    }
}

#[test]
fn a_restored_journal_is_frozen_before_a_gate_serves_from_it() {
    let world = World::down();
    world.operation("k1", Came::Undelivered);
    let World { stage, .. } = &world;
    let copy = tempfile::tempdir().unwrap();
    stage.journal.close();
    for file in ["journal.db", "config.yaml"] {
        fs::copy(stage.dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let down = copy.path().join("config.yaml");
    let down = down.to_str().unwrap();
    for (command, first, second) in [
        ("freeze", "frozen: every", "it was frozen already"),
        ("thaw", "thawed: guarded", "it was not frozen"),
    ] {
        for says in [first, second] {
            let done = typed(&[command, "--reason", "a restore"], down, None);
            assert_eq!(done.code, OK, "{}", done.err);
            assert!(done.out.starts_with(says), "{}", done.out);
            assert!(done.err.contains("no gate is running"), "{}", done.err);
        }
    }
    // Never behind the back of a gate that has it open.
    let World { stage, config, .. } = &World::down();
    let refused = typed(&["freeze", "--reason", "r"], config, None);
    assert_eq!(refused.code, PROBLEM);
    assert!(
        refused.err.contains("in use by another gate"),
        "{}",
        refused.err
    );
    stage.journal.close();
}

#[test]
fn without_a_gate_and_a_journal_there_is_nothing_to_show() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    let config_path = config.to_str().unwrap();
    for (text, code, name) in [
        ("admin: {unix: admin.sock}\n", PROBLEM, "not_running"),
        (
            "admin: {unix: a.sock}\njournal: {sqlite: j.db}\n",
            PROBLEM,
            "journal_failed",
        ),
        ("journal: {sqlite: j.db}\n", CONFIG, "config"),
        ("admin: [\n", CONFIG, "config"),
    ] {
        fs::write(&config, text).unwrap();
        for command in [
            &["list", "--json"][..],
            &["show", "op_01a1ed6de00000000001", "--json"],
        ] {
            let done = typed(command, config_path, None);
            assert_eq!(done.code, code, "{text}");
            let error: Value = serde_json::from_str(&done.out).unwrap();
            assert_eq!(error["error"]["code"], name, "{text}");
        }
    }
}

#[test]
fn what_cannot_be_meant_is_refused_before_anybody_is_asked() {
    let id = "op_01a1ed6de00000000001";
    let long = "x".repeat(501);
    for args in [
        &["list", "--state", "open"][..],
        &["list", "--key", "k"],
        &["list", "--limit", "0"],
        &["list", "--limit", "1001"],
        &["list", "--before", "yesterday"],
        &["show"],
        &["show", "op_1"],
        &["resolve", id, "--reason", "r"],
        &["resolve", id, "--as", "done"],
        &["resolve", id, "--as", "refused", "--reason", "r"],
        &["resolve", id, "--as", "done", "--reason", " "],
        &["resolve", id, "--as", "done", "--reason", "a\u{1b}b"],
        &["resolve", id, "--as", "done", "--reason", &long],
        &[
            "resolve", id, "--as", "done", "--reason", "r", "--status", "302",
        ],
        &[
            "resolve", id, "--as", "not-sent", "--reason", "r", "--status", "200", "--yes",
        ],
        &[
            "resolve", id, "--as", "not_sent", "--reason", "r", "--body", "/x", "--yes",
        ],
        &["release", id],
        &["freeze"],
        &["thaw"],
        &["help"],
    ] {
        let done = typed(args, "/nowhere/config.yaml", None);
        assert_eq!(
            (done.code, done.out.as_str()),
            (USAGE, ""),
            "{args:?}: {}",
            done.err
        );
    }
}
