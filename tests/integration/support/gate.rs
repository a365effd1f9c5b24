//! The real binary as a child: its directory, its configuration, its addresses, its records.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Target;
use super::{PATIENCE, eventually, until};

/// This user, as `callers` lists it: root counts only by name.
pub(crate) fn me() -> String {
    match rustix::process::getuid().as_raw() {
        0 => "root".to_owned(),
        uid => uid.to_string(),
    }
}

/// A directory with a configuration, before the gate runs.
pub(crate) struct Setup {
    pub(crate) dir: TempDir,
    bank: String,
    extra: String,
    listen: String,
    routes: String,
    tail: String,
    operators: String,
    whole: Option<String>,
}

/// A running gate. Killed when dropped.
pub(crate) struct Gate {
    /// Always there; taken by a restart.
    dir: Option<TempDir>,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Setup {
    /// A gate for one bank that listens on `port`; `bank-ca.pem`, `client.crt` and `client.key` are put into `dir` by
    /// the scenario.
    pub(crate) fn new(port: u16) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            bank: format!(
                "url: https://localhost:{port}\n    dns: {{addresses: [127.0.0.1]}}\n    trust: {{ca_file: bank-ca.pem, server_name: bank.test}}\n    identity: {{cert_file: client.crt, key_file: client.key}}"
            ),
            extra: String::new(),
            listen: format!(
                "      - {{unix: gate.sock, callers: [{}]}}\n      - {{tcp: \"127.0.0.1:0\", open_to_every_local_user: true}}\n",
                me()
            ),
            routes: "      - {name: create, method: POST, path: /installment/create}\n      - {name: refund, method: POST, path: /installment/refund, connection: fresh}\n      - {name: status, method: GET, path: \"/installment/{id}\"}\n      - {name: search, method: GET, path: /search, query: true}\n".to_owned(),
            tail: String::new(),
            operators: rustix::process::getuid().as_raw().to_string(),
            whole: None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the lines on url, trust and identity.
    pub(crate) fn bank(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.bank);
        self
    }

    /// More keys of the bank, one a line, such as `timeouts: {…}`.
    pub(crate) fn with(mut self, line: &str) -> Self {
        self.extra.push_str(&format!("    {line}\n"));
        self
    }

    /// Replaces the listeners.
    pub(crate) fn listen(mut self, lines: &[&str]) -> Self {
        self.listen = lines
            .iter()
            .map(|line| format!("      - {line}\n"))
            .collect();
        self
    }

    /// Guarded routes, and a journal for them: `refund` and `cancel` on one subject, `create` by choice.
    pub(crate) fn guarded(self) -> Self {
        self.guarded_by("journal.db")
    }

    /// The same with the journal elsewhere.
    pub(crate) fn guarded_by(mut self, journal: &str) -> Self {
        self.routes = "      - {name: create, method: POST, path: /installment/create, idempotency: optional}\n      - {name: refund, method: POST, path: /installment/refund, idempotency: required, subject: [/session_id]}\n      - {name: cancel, method: POST, path: /installment/cancel, idempotency: required, subject: [/session_id]}\n      - {name: status, method: GET, path: \"/installment/{id}\"}\n".to_owned();
        self.top(&format!(
            "journal: {{sqlite: {journal}, allow_volatile: true}}"
        ))
    }

    /// Replaces the operators: us, otherwise.
    pub(crate) fn operators(mut self, operators: &str) -> Self {
        operators.clone_into(&mut self.operators);
        self
    }

    /// More keys at the top, one a line.
    pub(crate) fn top(mut self, line: &str) -> Self {
        self.tail.push_str(&format!("{line}\n"));
        self
    }

    /// Replaces a part of what was added at the top.
    #[cfg(feature = "sandbox")]
    pub(crate) fn edit(mut self, from: &str, to: &str) -> Self {
        assert!(self.tail.contains(from), "{}", self.tail);
        self.tail = self.tail.replace(from, to);
        self
    }

    /// Replaces everything.
    pub(crate) fn whole(mut self, text: &str) -> Self {
        self.whole = Some(text.to_owned());
        self
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("config.yaml")
    }

    /// Writes the configuration as it stands.
    pub(crate) fn write(&self) {
        if let Some(whole) = &self.whole {
            return super::pki::replace(&self.config(), whole);
        }
        // The caller is the operator here, and the key lies beside the configuration: `required` refuses both.
        let hardening = if self.tail.contains("hardening:") {
            ""
        } else {
            "hardening: best-effort\n"
        };
        let text = format!(
            "banks:\n  - name: bank\n    {}\n{}    listen:\n{}    routes:\n{}admin: {{unix: admin.sock, operators: [{}], tcp: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n{}{hardening}",
            self.bank, self.extra, self.listen, self.routes, self.operators, self.tail
        );
        super::pki::replace(&self.config(), &text);
    }

    /// Writes the configuration and starts the gate.
    pub(crate) fn start(self) -> Gate {
        let gate = self.start_with(|command| command);
        // Every scenario runs under the whole confinement, and none without knowing it.
        let confinement = &gate.status()["confinement"];
        assert!(
            confinement["level"] == "disabled" || confinement["missing"] == json!([]),
            "{confinement}"
        );
        gate
    }

    /// The same with the command adjusted (environment, a wrapper).
    pub(crate) fn start_with(self, adjust: impl FnOnce(Command) -> Command) -> Gate {
        self.write();
        launch(self.dir, adjust, true)
    }
}

fn launch(dir: TempDir, adjust: impl FnOnce(Command) -> Command, wait: bool) -> Gate {
    let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
    command
        .arg("run")
        .arg("--config")
        .arg(dir.path().join("config.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut command = adjust(command);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let lines = Arc::clone(&log);
    let reader = std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
    let mut gate = Gate {
        dir: Some(dir),
        child,
        log,
        reader: Some(reader),
    };
    if wait {
        gate.wait_until_ready();
    }
    gate
}

impl Gate {
    fn wait_until_ready(&mut self) {
        let ready = eventually("the gate is ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(Err(status));
            }
            let status = self.try_admin("status")?;
            (status["result"]["phase"] == "ready").then_some(Ok(()))
        });
        if let Err(status) = ready {
            // The log's thread may still be reading.
            until("the log has a line", || {
                !self.log.lock().unwrap().is_empty()
            });
            panic!(
                "the gate ended with {status}: {}",
                self.log.lock().unwrap().join("\n")
            );
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// Drains this process, and starts another one in the same place as soon as it has ended.
    pub(crate) fn restart_with(mut self, adjust: impl FnOnce(Command) -> Command) -> Self {
        self.finish();
        launch(self.dir.take().unwrap(), adjust, true)
    }

    /// Ends this process without a word (SIGKILL), and starts another one in the same place.
    pub(crate) fn crash_and_restart(self) -> Self {
        self.crash_and_restart_with(|command| command)
    }

    /// The same with the next process's command adjusted.
    pub(crate) fn crash_and_restart_with(
        mut self,
        adjust: impl FnOnce(Command) -> Command,
    ) -> Self {
        // It may be gone already: that is what some scenarios are about.
        let _ = self.child.kill();
        let _ = self.child.wait();
        launch(self.dir.take().unwrap(), adjust, true)
    }

    /// The same without waiting for it: it may die before it is ready.
    #[cfg(feature = "sandbox")]
    pub(crate) fn crash_and_restart_at_once(
        mut self,
        adjust: impl FnOnce(Command) -> Command,
    ) -> Self {
        self.kill();
        launch(self.dir.take().unwrap(), adjust, false)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("config.yaml")
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// One command on the admin socket.
    pub(crate) fn admin(&self, command: &str) -> Value {
        self.try_admin(command).expect("the admin socket answers")
    }

    fn try_admin(&self, command: &str) -> Option<Value> {
        self.tell(&json!({"command": command}))
    }

    pub(crate) fn status(&self) -> Value {
        self.admin("status")["result"].clone()
    }

    /// The Unix socket of the standard listeners.
    pub(crate) fn unix(&self) -> Target {
        Target::Unix(self.path().join("gate.sock"))
    }

    /// The first TCP listener.
    pub(crate) fn tcp(&self) -> Target {
        Target::Tcp(self.tcp_addr())
    }

    pub(crate) fn tcp_addr(&self) -> SocketAddr {
        let status = self.status();
        let listen = status["banks"][0]["listen"].as_array().unwrap().clone();
        let found = listen.iter().find_map(|listen| listen["tcp"].as_str());
        found.unwrap().parse().unwrap()
    }

    pub(crate) fn admin_tcp(&self) -> Target {
        Target::Tcp(
            self.status()["admin"]["tcp"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap(),
        )
    }

    /// The records of requests so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        self.lines(|line| line["target"] == "priorgate::request")
    }

    /// Waits until there are `count` records, and sees that no more come with them.
    pub(crate) fn expect_records(&self, count: usize) -> Vec<Value> {
        until("every request has its record", || {
            self.records().len() >= count
        });
        let records = self.records();
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    pub(crate) fn lines(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        let parsed = log
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        parsed.filter(|line| wanted(line)).collect()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The counts of requests by outcome: answered, not_sent, unknown.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let requests = self.status()["banks"][0]["requests"].clone();
        let count = |name: &str| requests[name].as_u64().unwrap();
        (count("answered"), count("not_sent"), count("unknown"))
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends the process without a word (SIGKILL).
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// One command on the admin socket, as it stands; `None` if nobody answers.
    pub(crate) fn tell(&self, command: &Value) -> Option<Value> {
        let mut stream = UnixStream::connect(self.path().join("admin.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{command}").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the gate ends", || self.child.try_wait().unwrap())
    }

    /// Drains the gate with SIGTERM and reads its log to the end: after this no further record can
    /// come.
    pub(crate) fn finish(&mut self) -> Vec<Value> {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.wait().code(), Some(0), "{}", self.log());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.records()
    }

    /// Runs another command of the program against this gate.
    pub(crate) fn command(&self, args: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_priorgate"))
            .args(args)
            .arg("--config")
            .arg(self.config())
            .output()
            .unwrap()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Our own child; it may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
