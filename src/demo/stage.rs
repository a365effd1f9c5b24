//! The demo's stage: a directory, the sandbox bank on a thread of this process, the gate in a process of its own.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::PATIENCE;
use super::process::{GateProcess, Interrupt};
use super::shop::Shop;
use crate::policy::caller::{NOBODY, ROOT};
use crate::policy::webhook::WebhookSecret;
use crate::sandbox::{self, CallbackOptions, CallbackUrl, Sandbox};
use crate::tls::trust::Trust;

/// The first line of a configuration of ours: a directory that holds one may be written anew.
const MARK: &str = "# Made by `priorgate demo`: a throw-away bank and a throw-away certificate.";

/// Where the bank sends its notifications, and where the shop takes them.
const CALLBACK_PATH: &str = "/bank/priorbank/callback";
const APP_PATH: &str = "/bitrix/tools/sale_ps_result.php";

/// Everything that the scenario needs, up and running.
pub(super) struct Stage {
    pub(super) bank: SocketAddr,
    pub(super) control: SocketAddr,
    pub(super) socket: PathBuf,
    pub(super) down_socket: PathBuf,
    pub(super) tcp: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) callback: SocketAddr,
    pub(super) token: String,
    pub(super) shop: Shop,
    interrupt: Interrupt,
    // Dropped in this order: the gate before its bank, the files last.
    gate: GateProcess,
    sandbox: SandboxThread,
    dir: StageDir,
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
    #[error("{} is not empty and not a demo's; name another directory, so that nothing of value is replaced", path.display())]
    NotOurs { path: PathBuf },
    #[error("the sandbox bank did not start: {0}")]
    Sandbox(#[source] io::Error),
    #[error("the toy shop did not open: {0}")]
    Shop(#[source] io::Error),
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
        // Before anything that would have to be tidied up.
        let interrupt = Interrupt::listen().map_err(gate_error)?;
        let dir = StageDir::make(dir)?;
        let sandbox = SandboxThread::start(&dir.path)?;
        let (bank, control) = (sandbox.sandbox.bank_addr(), sandbox.sandbox.control_addr());
        // Keys of an earlier play would be answered by that play.
        for old in ["journal.db", "journal.db-wal", "journal.db-shm"] {
            let _ = fs::remove_file(dir.path.join(old));
        }
        let token = make_token(&dir.path)?;
        let shop = open_shop(&dir.path)?;
        let config = dir.path.join("config.yaml");
        write(&config, &config_text(bank, free_port()?, shop.addr()))?;
        let log = create(&dir.path.join("gate.log"))?;
        let mut gate = GateProcess::start(&config, log).map_err(gate_error)?;
        let status = gate.wait_until_ready(&dir.path, &interrupt)?;
        let address = |pointer: &str| {
            let found = status.pointer(pointer).and_then(|found| found.as_str());
            let unclear = || StageError::Gate("its status names no address".to_owned());
            found
                .and_then(|found| found.parse().ok())
                .ok_or_else(unclear)
        };
        let stage = Self {
            bank,
            control,
            socket: dir.path.join("priorbank.sock"),
            down_socket: dir.path.join("down.sock"),
            tcp: address("/banks/0/listen/1/tcp")?,
            admin: address("/admin/tcp")?,
            callback: address("/callbacks/0/listen/0/tcp")?,
            token,
            shop,
            interrupt,
            gate,
            sandbox,
            dir,
        };
        let url = CallbackUrl::tcp(stage.callback, CALLBACK_PATH);
        url.map_err(io::Error::other)
            .and_then(|url| {
                let redirected = stage.sandbox().redirect_callbacks(url);
                redirected.map_err(io::Error::other)
            })
            .map_err(StageError::Sandbox)?;
        write(&stage.dir().join("demo.env"), &stage.env_text())?;
        write(&stage.dir().join("order.json"), super::scenario::ORDER)?;
        // The bank leaves this one to its customer.
        let pending = super::scenario::ORDER.replace("demo-1", "pending-1");
        write(&stage.dir().join("pending.json"), &pending)?;
        Ok(stage)
    }

    /// Where everything lies.
    pub(super) fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// The bank.
    pub(super) fn sandbox(&self) -> &Sandbox {
        &self.sandbox.sandbox
    }

    /// Whether the demo was told to end.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.is_told()
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
        while !self.interrupt.is_told() && !self.gate.has_ended() {
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    fn knock(&self) -> io::Result<()> {
        let roots = Trust::load(&self.dir().join("bank-ca.pem"))
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
            "EGRESS_URL=http://{}\nEGRESS_SOCKET={}\nEGRESS_TOKEN_FILE={}\nBANK_URL=https://{}\nBANK_CONTROL_URL=http://{}\nADMIN_URL=http://{}\nCALLBACK_URL=http://{}{CALLBACK_PATH}\nAPP_URL=http://{}{APP_PATH}\n",
            self.tcp,
            self.socket.display(),
            self.dir().join("php.token").display(),
            self.bank,
            self.control,
            self.admin,
            self.callback,
            self.shop.addr(),
        )
    }
}

impl SandboxThread {
    fn start(dir: &Path) -> Result<Self, StageError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StageError::Sandbox)?;
        // The gate's address is known only once it runs.
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let nowhere = CallbackUrl::tcp(nobody, CALLBACK_PATH)
            .map_err(|error| StageError::Sandbox(io::Error::other(error)))?;
        let options = sandbox::Options {
            dir: Some(dir.to_owned()),
            callbacks: Some(CallbackOptions::new(nowhere)),
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
}

impl Drop for SandboxThread {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The demo's directory, removed when it was a temporary one.
struct StageDir {
    path: PathBuf,
    temporary: bool,
}

impl StageDir {
    fn make(dir: Option<&Path>) -> Result<Self, StageError> {
        let (path, temporary) = match dir {
            Some(dir) => (
                std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()),
                false,
            ),
            None => {
                let name = format!("priorgate-demo-{}", std::process::id());
                (std::env::temp_dir().join(name), true)
            }
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
        let config = fs::read_to_string(path.join("config.yaml"));
        let ours = config.is_ok_and(|text| text.starts_with(MARK));
        if !ours && fs::read_dir(&path).map_err(failed)?.next().is_some() {
            return Err(StageError::NotOurs { path });
        }
        Ok(Self { path, temporary })
    }
}

impl Drop for StageDir {
    fn drop(&mut self) {
        if self.temporary {
            // Best effort: it holds a throw-away PKI.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn make_token(dir: &Path) -> Result<String, StageError> {
    let token: String = random::<24>()?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    write(&dir.join("php.token"), &token)?;
    Ok(token)
}

fn open_shop(dir: &Path) -> Result<Shop, StageError> {
    let text = format!("whsec_{}", Base64::encode_string(&random::<32>()?));
    write(&dir.join("deliver.secret"), &text)?;
    let secret = WebhookSecret::parse(&text).map_err(io::Error::other);
    secret.and_then(Shop::open).map_err(StageError::Shop)
}

fn random<const N: usize>() -> Result<[u8; N], StageError> {
    let mut random = [0_u8; N];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|source| StageError::File {
            doing: "read",
            path: "/dev/urandom".into(),
            source,
        })?;
    Ok(random)
}

/// A port that nobody listens on: the bank that is down.
fn free_port() -> Result<u16, StageError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|addr| addr.port())
        .map_err(gate_error)
}

fn config_text(bank: SocketAddr, nobody: u16, shop: SocketAddr) -> String {
    let uid = rustix::process::getuid().as_raw();
    // These two count only by name.
    let me = match uid {
        ROOT => "root".to_owned(),
        NOBODY => "nobody".to_owned(),
        uid => uid.to_string(),
    };
    let port = bank.port();
    let identity = "tls: {min_version: \"1.3\"}
    trust: {ca_file: bank-ca.pem, server_name: localhost}
    identity: {cert_file: client.crt, key_file: client.key}";
    format!(
        "{MARK}
banks:
  - name: priorbank
    url: https://localhost:{port}
    {identity}
    dns: {{addresses: [127.0.0.1]}}
    listen:
      - {{unix: priorbank.sock, mode: \"0660\", callers: [{me}]}}
      - {{tcp: \"127.0.0.1:0\", token_files: [php.token]}}
    routes:
      - {{name: create, method: POST, path: /installment/create}}
      - {{name: status, method: GET, path: \"/installment/{{id}}\"}}
      - {{name: refund, method: POST, path: /installment/refund, idempotency: required, subject: [/session_id]}}
  - name: down
    url: https://localhost:{nobody}
    {identity}
    dns: {{addresses: [127.0.0.1]}}
    listen:
      - {{unix: down.sock, mode: \"0660\", callers: [{me}]}}
    routes:
      - {{name: create, method: POST, path: /installment/create}}
callbacks:
  - name: priorbank
    listen: [{{tcp: \"127.0.0.1:0\"}}]
    path: {CALLBACK_PATH}
    signature:
      header: X-Signature
      keys: [{{id: sandbox, algorithm: rsa-pkcs1-sha256, file: bank-callback.pem}}]
    event: {{id: [/event_id], session: /session_id, status: /status}}
    deliver:
      url: http://{shop}{APP_PATH}?BX_HANDLER=PRIORBANK
      host: shop.example
      secret_files: [deliver.secret]
      retry: [500ms]
admin: {{unix: admin.sock, mode: \"0600\", operators: [{uid}], tcp: \"127.0.0.1:0\"}}
log: {{format: json, level: info}}
journal: {{sqlite: journal.db, allow_volatile: true}}
# One directory and one user for everything: `required` refuses both.
hardening: best-effort
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
