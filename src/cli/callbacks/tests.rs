//! The callbacks commands as they are typed: against a real admin socket with a real journal, and without a gate.

mod pages;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::Value;

use crate::admin::callbacks::tests::{Came, rejected_one};
use crate::cli::tests::world::{self, Done, World};
use crate::cli::{OK, PROBLEM, USAGE};

fn typed(args: &[&str], config: &str, word: Option<&str>) -> Done {
    world::typed("callbacks", args, config, word)
}

impl World {
    fn event(&self, name: &str, came: Came) -> String {
        let id = self.runtime.block_on(self.stage.event(name, came));
        id.to_string()
    }

    fn callbacks(&self, args: &[&str], word: Option<&str>) -> Done {
        self.typed("callbacks", args, word)
    }
}

#[test]
fn a_running_gate_is_asked_and_a_person_tries_again_with_a_typed_yes() {
    let world = World::up();
    let id = world.event("e1", Came::Dead);
    let list = world.callbacks(
        &[
            "list",
            "--state",
            "dead",
            "--callback",
            "priorbank",
            "--session",
            "s-e1",
        ],
        None,
    );
    assert_eq!((list.code, list.err.as_str()), (OK, ""));
    assert!(list.out.contains("answered 500"), "{}", list.out);
    let none = world.callbacks(&["list", "--open"], None);
    assert_eq!((none.code, none.out.as_str()), (OK, "no events\n"));
    let show = world.callbacks(&["show", &id], None);
    assert!(show.out.contains("session        s-e1\n"), "{}", show.out);

    let retry = ["retry", &id, "--reason", "the shop is up again"];
    for word in ["no\n", "y\n", ""] {
        let done = world.callbacks(&retry, Some(word));
        assert_eq!((done.code, done.out.as_str()), (PROBLEM, ""));
        assert!(done.err.contains("session        s-e1\n"), "{}", done.err);
        assert!(
            done.err
                .contains("again? Type yes: priorgate: nothing was changed\n")
        );
        assert_eq!(world.state("callbacks", &id), "dead");
    }
    let done = world.callbacks(&retry, Some("yes\n"));
    assert_eq!(done.code, OK, "{}", done.err);
    assert!(
        done.out.starts_with("retried: event 1 goes to the shop"),
        "{}",
        done.out
    );
    assert_eq!(world.state("callbacks", &id), "head");
    let show = world.callbacks(&["show", &id, "--body"], None);
    assert!(
        show.out.contains("\nbody:\n  {\"id\":\"e1\""),
        "{}",
        show.out
    );
    assert!(show.out.contains("retried (uid "), "{}", show.out);
}

#[test]
fn without_a_terminal_a_change_needs_a_yes_on_the_line() {
    let world = World::up();
    let held = world.event("e1", Came::Held);
    let dead = world.event("e2", Came::Dead);
    let again = world.event("e3", Came::Dead);
    for (deed, id, what) in [
        ("release", &held, "released"),
        ("drop", &dead, "dropped"),
        ("retry", &again, "retried"),
    ] {
        let mut command = vec![deed, id, "--reason", "asked the bank"];
        let before = world.state("callbacks", id);
        let refused = world.callbacks(&command, None);
        assert_eq!((refused.code, refused.out.as_str()), (USAGE, ""));
        assert!(refused.err.contains("--yes"), "{}", refused.err);
        assert_eq!(world.state("callbacks", id), before);
        command.extend(["--yes", "--json"]);
        let changed = world.callbacks(&command, None);
        assert_eq!((changed.code, changed.err.as_str()), (OK, ""));
        let result: Value = serde_json::from_str(&changed.out).unwrap();
        assert_eq!(result["what"], what);
    }
    let late = world.callbacks(&["drop", &dead, "--reason", "r", "--yes"], None);
    assert_eq!((late.code, late.out.as_str()), (PROBLEM, ""));
    assert!(
        late.err.contains("is dropped: only one that is"),
        "{}",
        late.err
    );
}

#[test]
fn an_event_is_shown_by_the_name_that_the_shop_knows() {
    let world = World::up();
    let id = world.event("e1", Came::Delivered);
    let shown = world.callbacks(&["show", &id, "--json"], None);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    let delivery = shown["delivery"].as_str().unwrap();
    let again = world.callbacks(&["show", delivery], None);
    assert_eq!(again.code, OK, "{}", again.err);
    assert!(again.out.starts_with("1  delivered\n"), "{}", again.out);
    assert!(again.out.contains(delivery), "{}", again.out);
}

#[test]
fn age_counts_from_now() {
    let world = World::up();
    let id = world.event("e1", Came::Head);
    let listed = |args: &[&str]| {
        let done = world.callbacks(&[&["list", "--json"], args].concat(), None);
        let list: Value = serde_json::from_str(&done.out).unwrap();
        list["events"].as_array().unwrap().len()
    };
    // Its time is the test's own, somewhere within a century of now.
    assert_eq!(listed(&["--newer-than", "36500d"]), 1);
    assert_eq!(listed(&["--older-than", "36500d"]), 0);
    assert_eq!(listed(&["--before", &id]), 0);
}

#[test]
fn while_the_gate_is_down_the_file_is_read_and_nothing_is_changed() {
    let world = World::down();
    let head = world.event("e1", Came::Claimed);
    let (_copy, down) = world.abandoned();
    let list = typed(&["list"], &down, None);
    assert_eq!(list.code, OK);
    assert!(list.out.contains("s-e1"), "{}", list.out);
    assert!(list.err.contains("no gate listens on") && list.err.contains("journal.db instead"));
    let show = typed(&["show", &head, "--body"], &down, None);
    assert_eq!(show.code, OK);
    assert!(
        show.out.contains("the next start delivers it"),
        "{}",
        show.out
    );
    assert!(show.out.contains("\nbody:\n"), "{}", show.out);
    let missing = typed(&["show", "9"], &down, None);
    assert_eq!((missing.code, missing.out.as_str()), (PROBLEM, ""));
    assert!(
        missing.err.contains("the journal has no event 9"),
        "{}",
        missing.err
    );
    for deed in ["retry", "release", "drop"] {
        let refused = typed(&[deed, &head, "--reason", "r", "--yes"], &down, None);
        assert_eq!((refused.code, refused.out.as_str()), (PROBLEM, ""));
        assert!(
            refused.err.contains("only a running gate writes"),
            "{}",
            refused.err
        );
    }
    let rejected = typed(&["rejected"], &down, None);
    assert_eq!((rejected.code, rejected.out.as_str()), (PROBLEM, ""));
    assert!(
        rejected.err.contains("only in a running gate's memory"),
        "{}",
        rejected.err
    );
}

#[test]
fn what_was_rejected_is_saved_byte_for_byte_and_never_over_something() {
    let bodies = [&b"{\"a\": 1}\r\n"[..], b"\xff\x00", b"", &[b'x'; 300 << 10]];
    let held: Vec<_> = bodies.iter().map(|body| rejected_one(body)).collect();
    let world = World::up_with(Some(Arc::new(move || held.clone())));
    let dir = world.stage.dir.path().join("a new/one's");
    let save = ["rejected", "--save", dir.to_str().unwrap()];
    let saved = world.callbacks(&save, None);
    assert_eq!(saved.code, PROBLEM, "one is too long");
    assert_eq!(
        saved.err,
        "priorgate: 4 is too long to be given whole, and was not saved\n"
    );
    for (number, body) in (1..4).zip(bodies) {
        let path = dir.join(format!("{number}.body"));
        assert_eq!(fs::read(&path).unwrap(), body);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let headers = fs::read_to_string(dir.join(format!("{number}.headers"))).unwrap();
        assert_eq!(headers, "X-Signature: c2ln\n");
    }
    assert!(!dir.join("4.body").exists());
    let line = format!(
        "   priorgate verify --callback priorbank --body '{}' --header 'X-Signature: c2ln'\n",
        dir.join("1.body").to_str().unwrap().replace('\'', r"'\''")
    );
    assert!(saved.out.contains(&line), "{}", saved.out);
    fs::write(dir.join("1.body"), "kept").unwrap();
    let again = world.callbacks(&save, None);
    assert_eq!(again.code, PROBLEM);
    assert!(
        again.err.contains("name a new or empty directory"),
        "{}",
        again.err
    );
    assert_eq!(fs::read(dir.join("1.body")).unwrap(), b"kept");
    let json = world.callbacks(&["rejected", "--json"], None);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["rejected"].as_array().unwrap().len(), 4);
}

#[test]
fn a_gate_without_callbacks_says_so() {
    let world = World::up();
    let rejected = world.callbacks(&["rejected", "--json"], None);
    assert_eq!(rejected.code, PROBLEM);
    let error: Value = serde_json::from_str(&rejected.out).unwrap();
    assert_eq!(error["error"]["code"], "no_callbacks");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anybody_is_asked() {
    let long = "x".repeat(501);
    for args in [
        &["list", "--state", "open"][..],
        &["list", "--limit", "0"],
        &["list", "--limit", "1001"],
        &["list", "--before", "yesterday"],
        &["list", "--older-than", "yesterday"],
        &["list", "--newer-than", "5"],
        &["show"],
        &["show", "0"],
        &["show", "e1"],
        &["retry", "1"],
        &["retry", "--reason", "r"],
        &["retry", "priorbank_0a", "--reason", "r"],
        &["release", "1", "--reason", " "],
        &["drop", "1", "--reason", "a\u{1b}b"],
        &["drop", "1", "--reason", &long],
        &["rejected", "--save"],
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
