//! The demo's stage: a directory, the sandbox bank on a thread of this process, the gate in a process of its own.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::PATIENCE;
use crate::sandbox::{self, Sandbox};
use crate::tls::trust::Trust;

/// Everything that the scenario needs, up and running.
pub(super) struct Stage {
    pub(super) dir: PathBuf,
    pub(super) bank: SocketAddr,
    pub(super) control: SocketAddr,
    pub(super) socket: PathBuf,
    pub(super) down_socket: PathBuf,
    pub(super) tcp: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) token: String,
    gate: Child,
    sandbox: SandboxThread,
    temporary: bool,
}

/// Why the stage could not be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the sandbox bank did not start: {0}")]
    Sandbox(#[source] io::Error),
    #[error("the gate did not start: {0}")]
    Gate(String),
}

/// The sandbox bank on a runtime of its own thread.
struct SandboxThread {
    sandbox: Sandbox,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Stage {
    /// Builds everything: directory, PKI, bank, configuration, gate.
    pub(super) fn build(dir: Option<&Path>) -> Result<Self, StageError> {
        let (dir, temporary) = make_dir(dir)?;
        let sandbox = SandboxThread::start(&dir)?;
        let (bank, control) = (sandbox.sandbox.bank_addr(), sandbox.sandbox.control_addr());
        let token = make_token(&dir)?;
        let config = dir.join("config.yaml");
        write(&config, &config_text(&dir, bank, free_port()?))?;
        let mut gate = Command::new(std::env::current_exe().map_err(gate_error)?)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(create(&dir.join("gate.log"))?)
            .spawn()
            .map_err(gate_error)?;
        let status = match wait_until_ready(&mut gate, &dir) {
            Ok(status) => status,
            Err(error) => {
                // Nothing of the demo may outlive it.
                let _ = gate.kill();
                let _ = gate.wait();
                return Err(error);
            }
        };
        let address = |pointer: &str| {
            status
                .pointer(pointer)
                .and_then(|found| found.as_str())
                .and_then(|found| found.parse().ok())
        };
        let unclear = || StageError::Gate("its status names no address".to_owned());
        let stage = Self {
            bank,
            control,
            socket: dir.join("priorbank.sock"),
            down_socket: dir.join("down.sock"),
            tcp: address("/banks/0/listen/1/tcp").ok_or_else(unclear)?,
            admin: address("/admin/tcp").ok_or_else(unclear)?,
            token,
            gate,
            sandbox,
            temporary,
            dir,
        };
        write(&stage.dir.join("demo.env"), &stage.env_text())?;
        write(&stage.dir.join("order.json"), super::scenario::ORDER)?;
        Ok(stage)
    }

    /// Speaks TLS to the bank without a certificate. Good if the bank refuses.
    pub(super) fn knock_without_certificate(&self) -> (bool, Duration, String) {
        let started = Instant::now();
        let result = self.knock();
        let took = started.elapsed();
        match result {
            Ok(()) => (
                false,
                took,
                "the bank answered somebody without a certificate".to_owned(),
            ),
            Err(error) => match crate::net::exchange::certificate_alert(&error) {
                Some(alert) => (true, took, format!("TLS alert {alert:?}")),
                None => (false, took, format!("no TLS alert, but: {error}")),
            },
        }
    }

    /// Subjects of the client certificates that the bank has seen.
    pub(super) fn certificates_seen(&self) -> Vec<String> {
        let seen = self.sandbox.sandbox.ledger().clients;
        seen.into_iter().map(|entry| entry.client.subject).collect()
    }

    /// Waits for Ctrl-C or SIGTERM, or for the gate to end by itself.
    pub(super) fn wait_for_interrupt(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => return,
                    _ = terminate.recv() => return,
                    () = tokio::time::sleep(Duration::from_millis(500)) => {
                        if !matches!(self.gate.try_wait(), Ok(None)) {
                            return;
                        }
                    }
                }
            }
        });
    }

    /// Ends the gate gracefully, then the bank; removes what was temporary.
    pub(super) fn end(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.gate.id().cast_signed()) {
            // Our own child, not yet waited for: the id is still its.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let until = Instant::now() + PATIENCE;
        while matches!(self.gate.try_wait(), Ok(None)) {
            if Instant::now() >= until {
                let _ = self.gate.kill();
                let _ = self.gate.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.sandbox.end();
        if self.temporary {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    fn knock(&self) -> io::Result<()> {
        let roots = Trust::load(&self.dir.join("bank-ca.pem"))
            .map_err(io::Error::other)?
            .roots;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let socket = TcpStream::connect_timeout(&self.bank, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(session, socket);
        stream.write_all(b"GET /installment/demo HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut byte = [0_u8; 1];
        stream.read_exact(&mut byte)
    }

    fn env_text(&self) -> String {
        format!(
            "EGRESS_URL=http://{}\nEGRESS_SOCKET={}\nEGRESS_TOKEN_FILE={}\nBANK_URL=https://{}\nBANK_CONTROL_URL=http://{}\nADMIN_URL=http://{}\n",
            self.tcp,
            self.socket.display(),
            self.dir.join("php.token").display(),
            self.bank,
            self.control,
            self.admin,
        )
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Nothing of the demo may outlive it, whatever went wrong on the way.
        if matches!(self.gate.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

impl SandboxThread {
    fn start(dir: &Path) -> Result<Self, StageError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StageError::Sandbox)?;
        let options = sandbox::Options {
            dir: Some(dir.to_owned()),
            ..sandbox::Options::default()
        };
        let sandbox = runtime
            .block_on(Sandbox::start(options))
            .map_err(StageError::Sandbox)?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn(move || {
                // Ends when told, or when the stage is gone.
                let _ = runtime.block_on(stopped);
            })
            .map_err(StageError::Sandbox)?;
        Ok(Self {
            sandbox,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn make_dir(dir: Option<&Path>) -> Result<(PathBuf, bool), StageError> {
    let (path, temporary) = match dir {
        Some(dir) => (
            std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()),
            false,
        ),
        None => (
            std::env::temp_dir().join(format!("priorgate-demo-{}", std::process::id())),
            true,
        ),
    };
    let failed = |source| StageError::File {
        doing: "make the directory",
        path: path.clone(),
        source,
    };
    if temporary || !path.exists() {
        // Not recursive for the temporary one: an existing directory is not ours.
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(!temporary)
            .create(&path)
            .map_err(failed)?;
    }
    Ok((path, temporary))
}

fn make_token(dir: &Path) -> Result<String, StageError> {
    let path = dir.join("php.token");
    let mut random = [0_u8; 24];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|source| StageError::File {
            doing: "read",
            path: "/dev/urandom".into(),
            source,
        })?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    write(&path, &token)?;
    Ok(token)
}

/// A port that nobody listens on: the bank that is down.
fn free_port() -> Result<u16, StageError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|addr| addr.port())
        .map_err(gate_error)
}

fn config_text(dir: &Path, bank: SocketAddr, nobody: u16) -> String {
    let uid = rustix::process::getuid().as_raw();
    let dir = dir.display();
    let port = bank.port();
    let identity = "tls: {min_version: \"1.3\"}
    trust: {ca_file: bank-ca.pem, server_name: localhost}
    identity: {cert_file: client.crt, key_file: client.key}";
    format!(
        "# Made by `priorgate demo`: a throw-away bank and a throw-away certificate.
banks:
  - name: priorbank
    url: https://localhost:{port}
    {identity}
    dns: {{addresses: [127.0.0.1]}}
    listen:
      - {{unix: {dir}/priorbank.sock, mode: \"0660\", callers: [{uid}]}}
      - {{tcp: \"127.0.0.1:0\", token_files: [php.token]}}
    routes:
      - {{name: create, method: POST, path: /installment/create}}
      - {{name: status, method: GET, path: \"/installment/{{id}}\"}}
      - {{name: refund, method: POST, path: /installment/refund}}
  - name: down
    url: https://localhost:{nobody}
    {identity}
    dns: {{addresses: [127.0.0.1]}}
    listen:
      - {{unix: {dir}/down.sock, mode: \"0660\", callers: [{uid}]}}
    routes:
      - {{name: create, method: POST, path: /installment/create}}
admin: {{unix: {dir}/admin.sock, mode: \"0600\", operators: [{uid}], tcp: \"127.0.0.1:0\"}}
log: {{format: json, level: info}}
"
    )
}

fn write(path: &Path, text: &str) -> Result<(), StageError> {
    let mut file = create(path)?;
    file.write_all(text.as_bytes())
        .map_err(|source| StageError::File {
            doing: "write",
            path: path.to_owned(),
            source,
        })
}

/// For the owner only: tokens and keys lie here, if only a demo's.
fn create(path: &Path) -> Result<fs::File, StageError> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| StageError::File {
            doing: "create",
            path: path.to_owned(),
            source,
        })
}

fn gate_error(error: io::Error) -> StageError {
    StageError::Gate(error.to_string())
}

/// Asks the admin socket until it answers; an early end of the gate is told with its log.
fn wait_until_ready(gate: &mut Child, dir: &Path) -> Result<serde_json::Value, StageError> {
    let socket = dir.join("admin.sock");
    let until = Instant::now() + PATIENCE;
    loop {
        let asked = crate::cli::client::ask(&socket, &serde_json::json!({"command": "status"}));
        if let Ok(status) = asked
            && status.get("phase").and_then(|phase| phase.as_str()) == Some("ready")
        {
            return Ok(status);
        }
        if !matches!(gate.try_wait(), Ok(None)) {
            let log = fs::read_to_string(dir.join("gate.log")).unwrap_or_default();
            return Err(StageError::Gate(format!(
                "it ended at once. Its log: {}",
                log.trim()
            )));
        }
        if Instant::now() >= until {
            return Err(StageError::Gate("it was not ready in time".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
