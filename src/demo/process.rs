//! The gate's process, and the signals that end the demo: nothing of it may outlive it.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::PATIENCE;
use super::stage::StageError;
use crate::cli::client::ask;

/// A real gate. Ended gracefully when dropped.
pub(super) struct GateProcess {
    child: Child,
}

/// Whether somebody pressed Ctrl-C, or asked the demo to end.
#[derive(Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl GateProcess {
    /// Starts this very program as a gate, its log in a file.
    pub(super) fn start(config: &Path, log: fs::File) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child })
    }

    /// Asks the admin socket until it says `ready`; an early end of the gate is told with its log.
    pub(super) fn wait_until_ready(
        &mut self,
        dir: &Path,
        interrupt: &Interrupt,
    ) -> Result<Value, StageError> {
        let socket = dir.join("admin.sock");
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(status) = ask(&socket, &json!({"command": "status"}))
                && status.get("phase").and_then(Value::as_str) == Some("ready")
            {
                return Ok(status);
            }
            if self.has_ended() {
                let log = fs::read_to_string(dir.join("gate.log")).unwrap_or_default();
                let told = format!("it ended at once. Its log: {}", log.trim());
                return Err(StageError::Gate(told));
            }
            if interrupt.is_told() || Instant::now() >= until {
                return Err(StageError::Gate("it was not ready in time".to_owned()));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Whether the process is no more.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for GateProcess {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            // Our own child, not yet waited for: the id is still its.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let until = Instant::now() + PATIENCE;
        while !self.has_ended() {
            if Instant::now() >= until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Interrupt {
    /// Takes SIGINT and SIGTERM over for the rest of the process.
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let told = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&told);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                });
                tell.store(true, Ordering::SeqCst);
            })?;
        Ok(Self(told))
    }

    pub(super) fn is_told(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
