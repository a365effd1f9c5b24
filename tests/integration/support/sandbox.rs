//! The sandbox bank on a thread of its own.

use std::path::Path;

use std::time::Duration;

use priorgate::sandbox::{
    CallbackAlgorithm, CallbackOptions, CallbackUrl, Options, Sandbox, Snapshot,
};
use tokio::sync::oneshot;

/// Runs until it is dropped.
pub(crate) struct SandboxBank {
    sandbox: Option<Sandbox>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SandboxBank {
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    /// A bank that sends callbacks, once it is told where to. It tries again after 50 ms and doubling.
    pub(crate) fn with_callbacks(algorithm: CallbackAlgorithm) -> Self {
        Self::calling(algorithm, true)
    }

    /// The same, and new sessions wait for the customer.
    pub(crate) fn with_pending_callbacks(algorithm: CallbackAlgorithm) -> Self {
        Self::calling(algorithm, false)
    }

    fn calling(algorithm: CallbackAlgorithm, auto_approve: bool) -> Self {
        let nowhere = CallbackUrl::tcp("127.0.0.1:1".parse().unwrap(), "/").unwrap();
        let mut callbacks = CallbackOptions::new(nowhere);
        callbacks.algorithm = algorithm;
        callbacks.retry_base = Duration::from_millis(50);
        callbacks.retry_longest = Duration::from_millis(400);
        Self::with(Options {
            auto_approve,
            callbacks: Some(callbacks),
            ..Options::default()
        })
    }

    fn with(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Self {
            sandbox: Some(sandbox),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        self.sandbox.as_ref().unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.sandbox().bank_addr().port()
    }

    pub(crate) fn write_pki(&self, dir: &Path) {
        self.sandbox().pki().write(dir).unwrap();
    }

    pub(crate) fn ledger(&self) -> Snapshot {
        self.sandbox().ledger()
    }

    /// The bank's own log, a line for each request.
    pub(crate) fn log(&self) -> Vec<String> {
        self.sandbox()
            .log()
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

impl Drop for SandboxBank {
    fn drop(&mut self) {
        self.sandbox = None;
        let _ = self.stop.take().unwrap().send(());
        let _ = self.thread.take().unwrap().join();
    }
}
