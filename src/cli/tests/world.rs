//! A journal, perhaps with a gate's admin socket before it, and commands as they are typed.

use std::fs;
use std::thread::{self, JoinHandle};

use clap::Parser;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::admin::operations::tests::{Stage, server};
use crate::admin::{RejectedFn, serve_unix};
use crate::cli::by_hand::Input;
use crate::cli::style::Style;
use crate::cli::{Cli, Command, USAGE, callbacks, operations};
use crate::net::listen::Bound;

/// What a command did.
pub(crate) struct Done {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Types a command; `word` is what is typed when it asks, none without a terminal.
pub(crate) fn typed(group: &str, args: &[&str], config: &str, word: Option<&str>) -> Done {
    let line = ["priorgate", "--config", config, group];
    let cli = match Cli::try_parse_from(line.iter().chain(args)) {
        Ok(cli) => cli,
        Err(error) => {
            return Done {
                code: USAGE,
                out: String::new(),
                err: error.to_string(),
            };
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut lines = word.unwrap_or_default().as_bytes();
    let input = Input {
        terminal: word.is_some(),
        lines: &mut lines,
    };
    let (config, style) = (cli.config, Style::plain());
    let code = match cli.command {
        Command::Operations(command) => {
            operations::run(command, config, input, style, &mut out, &mut err)
        }
        Command::Callbacks(command) => {
            callbacks::run(command, config, input, style, &mut out, &mut err)
        }
        _ => panic!("another command"),
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done {
        code,
        out: text(out),
        err: text(err),
    }
}

/// A journal, and a gate's admin socket before it if `gate` is there.
pub(crate) struct World {
    pub(crate) stage: Stage,
    pub(crate) config: String,
    pub(crate) runtime: Runtime,
    gate: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

impl World {
    pub(crate) fn down() -> Self {
        let stage = Stage::new();
        let config = stage.dir.path().join("config.yaml");
        // A mistake elsewhere is in nobody's way.
        fs::write(
            &config,
            "admin: {unix: admin.sock}\njournal: {sqlite: journal.db}\nbanks: mistaken\n",
        )
        .unwrap();
        Self {
            config: config.to_str().unwrap().to_owned(),
            stage,
            runtime: runtime(),
            gate: None,
        }
    }

    pub(crate) fn up() -> Self {
        Self::up_with(None)
    }

    pub(crate) fn up_with(rejected: Option<RejectedFn>) -> Self {
        let mut world = Self::down();
        let me = rustix::process::geteuid().as_raw();
        let server = server(vec![me], Some(world.stage.journal.clone()), rejected);
        let bound = Bound::unix(&world.stage.dir.path().join("admin.sock"), 0o600, None).unwrap();
        let (end, ended) = watch::channel(false);
        let thread = thread::spawn(move || {
            runtime().block_on(async {
                serve_unix(bound.serve().unwrap(), server, ended).await;
            });
        });
        world.gate = Some((end, thread));
        world
    }

    pub(crate) fn typed(&self, group: &str, args: &[&str], word: Option<&str>) -> Done {
        typed(group, args, &self.config, word)
    }

    pub(crate) fn state(&self, group: &str, id: &str) -> String {
        let shown = self.typed(group, &["show", id, "--json"], None);
        let shown: Value = serde_json::from_str(&shown.out).unwrap();
        shown["state"].as_str().unwrap().to_owned()
    }

    /// The same journal where no gate has it: its configuration, in a directory of its own.
    pub(crate) fn abandoned(&self) -> (tempfile::TempDir, String) {
        self.stage.journal.close();
        let copy = tempfile::tempdir().unwrap();
        for file in ["journal.db", "config.yaml"] {
            fs::copy(self.stage.dir.path().join(file), copy.path().join(file)).unwrap();
        }
        let config = copy.path().join("config.yaml");
        let config = config.to_str().unwrap().to_owned();
        (copy, config)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.gate.take() {
            end.send_replace(true);
            let _ = thread.join();
        }
        self.stage.journal.close();
    }
}
