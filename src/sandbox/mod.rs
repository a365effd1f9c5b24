//! The sandbox bank: a bank to test against, and nothing else. It is not a bank.
//!
//! It demands a client certificate of its own throw-away CA, does what the source article's bank
//! does (create a session, refund it, tell its status), counts everything, and misbehaves on
//! demand. It is the oracle of the tests, so it shares no code with the egress path that it judges:
//! of this crate it knows only `policy::units`.
//!
//! Reading order: [`Sandbox`] here, then `serve` (a connection), `api` (a request), `ledger` (the
//! money), `faults` (the misbehaviour), `control` (the remote control). Tasks: one accept loop per
//! listener, one task per connection; all of them end when the [`Sandbox`] is dropped.

mod api;
mod bank;
mod control;
mod faults;
mod ledger;
mod listen;
mod money;
mod order;
mod pki;
mod serve;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use self::bank::Bank;
pub use self::bank::{LogEntry, LogEvent};
pub use self::faults::{Armed, Fault, FaultError, Route};
pub use self::ledger::{
    Client, ClientCounts, LedgerError, OrderCounts, Refund, Session, SessionStatus, Snapshot,
    Totals,
};
pub use self::money::{Money, Quantity};
pub use self::pki::{Issued, Pki, PkiError, PkiFiles, SERVER_NAMES};

/// Said wherever a person could mistake it for the real thing.
pub const BANNER: &str = "THIS IS NOT A BANK. It is priorgate's sandbox: throw-away certificates, \
                          no money, everything is forgotten when it stops.";

const BANK_CONNECTIONS: usize = 256;
const CONTROL_CONNECTIONS: usize = 32;

/// How to start a [`Sandbox`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the bank listens: a loopback address; port 0 picks a free one.
    pub bank_addr: SocketAddr,
    /// Where the control API listens: a loopback address; port 0 picks a free one.
    pub control_addr: SocketAddr,
    /// Where to write the shop's certificate, key and the CA; `None` keeps them in memory.
    pub dir: Option<PathBuf>,
    /// A new session is approved at once, instead of waiting for a decision.
    pub auto_approve: bool,
}

impl Default for Options {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            bank_addr: any,
            control_addr: any,
            dir: None,
            auto_approve: true,
        }
    }
}

/// A running sandbox bank. Dropping it closes everything.
pub struct Sandbox {
    bank: Arc<Bank>,
    bank_addr: SocketAddr,
    control_addr: SocketAddr,
    pki: Pki,
    files: Option<PkiFiles>,
    tasks: [JoinHandle<()>; 2],
}

impl Sandbox {
    /// Makes a new PKI, writes it where asked, and serves on the current tokio runtime.
    ///
    /// # Errors
    /// An address that is not loopback or is taken, a directory that cannot be written, or a PKI
    /// that cannot be made.
    pub async fn start(options: Options) -> io::Result<Self> {
        let bank_listener = listen::bind(options.bank_addr).await?;
        let control_listener = listen::bind(options.control_addr).await?;
        let (bank_addr, control_addr) =
            (bank_listener.local_addr()?, control_listener.local_addr()?);
        let pki = Pki::generate().map_err(io::Error::other)?;
        let dir = options.dir.as_deref();
        let files = dir.map(|dir| pki.write(dir)).transpose();
        let files = files.map_err(io::Error::other)?;
        let tls = serve::tls(&pki)?;
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        let pay_url = format!("http://{control_addr}/pay/");
        let bank = Arc::new(Bank::new(random, options.auto_approve, pay_url));
        let shared = Arc::clone(&bank);
        let bank_task = tokio::spawn(listen::serve(
            bank_listener,
            BANK_CONNECTIONS,
            move |stream| serve::connection(stream, tls.clone(), Arc::clone(&shared)),
        ));
        let shared = Arc::clone(&bank);
        let control_task = tokio::spawn(listen::serve(
            control_listener,
            CONTROL_CONNECTIONS,
            move |stream| control::connection(stream, Arc::clone(&shared)),
        ));
        Ok(Self {
            bank,
            bank_addr,
            control_addr,
            pki,
            files,
            tasks: [bank_task, control_task],
        })
    }

    /// Where the bank listens.
    #[must_use]
    pub const fn bank_addr(&self) -> SocketAddr {
        self.bank_addr
    }

    /// Where the control API listens.
    #[must_use]
    pub const fn control_addr(&self) -> SocketAddr {
        self.control_addr
    }

    /// The bank's origin under the name `localhost`, as a configuration wants it.
    #[must_use]
    pub fn bank_url(&self) -> String {
        format!("https://localhost:{}", self.bank_addr.port())
    }

    /// The control API's origin.
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control_addr)
    }

    /// The certificates and keys of this start.
    #[must_use]
    pub const fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The files that were written at the start, where a directory was given.
    #[must_use]
    pub const fn files(&self) -> Option<&PkiFiles> {
        self.files.as_ref()
    }

    /// A copy of the ledger as it is now.
    #[must_use]
    pub fn ledger(&self) -> Snapshot {
        self.bank.lock().ledger.snapshot()
    }

    /// The log so far (the last 10,000 lines).
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.bank.lock().log().cloned().collect()
    }

    /// The log lines to come, as they are written.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<LogEntry> {
        self.bank.follow()
    }

    /// Arms a fault, as `POST /control/faults` does.
    ///
    /// # Errors
    /// A count of zero, a route where none can be known, or too many armed faults.
    pub fn arm(&self, armed: Armed) -> Result<(), FaultError> {
        self.bank.lock().faults.arm(armed)
    }

    /// Decides a session, as `POST /control/sessions/{id}/status` does.
    ///
    /// # Errors
    /// An unknown session, or a change that the ledger does not allow.
    pub fn decide(&self, session_id: &str, status: SessionStatus) -> Result<(), LedgerError> {
        let mut state = self.bank.lock();
        state.ledger.decide(session_id, status).map(|_| ())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
