//! The sandbox bank: a bank to test against, and nothing else. It is not a bank.
//!
//! It demands a client certificate of its own throw-away CA, does what the source article's bank
//! does (create a session, refund it, tell its status), counts everything, and misbehaves on
//! demand. It is the oracle of the tests, so it shares no code with the egress path that it judges:
//! of this crate it knows only `policy::units`.
//!
//! Reading order: [`Sandbox`] here, then `serve` (a connection), `api` (a request), `ledger` (the
//! money), `faults` (the misbehaviour), `callbacks` (what the bank tells by itself), `page` (what the
//! customer sees), `control` (the remote control). Tasks: one accept loop per listener, one task per connection, one that watches
//! the queue of callbacks and one per attempt; all of them end when the [`Sandbox`] is dropped.

mod api;
mod bank;
mod callbacks;
mod control;
mod faults;
mod ledger;
mod listen;
mod money;
mod order;
mod page;
mod pki;
mod serve;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;

use self::bank::Bank;
pub use self::bank::{LogEntry, LogEvent};
use self::callbacks::Callbacks;
pub use self::callbacks::{
    AlgorithmError, CallbackAlgorithm, CallbackError, CallbackEvent, CallbackFault,
    CallbackOptions, CallbackOrder, CallbackState, CallbackUrl, KeyError, UrlError,
};
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
const PAGE_CONNECTIONS: usize = 64;

/// How to start a [`Sandbox`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the bank listens: a loopback address; port 0 picks a free one.
    pub bank_addr: SocketAddr,
    /// Where the control API listens: a loopback address; port 0 picks a free one.
    pub control_addr: SocketAddr,
    /// Where the customer's browser finds the bank's page: a loopback address; port 0 picks a free
    /// one. Without TLS, and without a client certificate, which no customer has.
    pub page_addr: SocketAddr,
    /// Where to write the shop's certificate, key and the CA; `None` keeps them in memory.
    pub dir: Option<PathBuf>,
    /// A new session is approved at once, instead of waiting for a decision.
    pub auto_approve: bool,
    /// How to send callbacks; `None` sends none and makes no key for them.
    pub callbacks: Option<CallbackOptions>,
}

impl Default for Options {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            bank_addr: any,
            control_addr: any,
            page_addr: any,
            dir: None,
            auto_approve: true,
            callbacks: None,
        }
    }
}

/// A running sandbox bank. Dropping it closes everything.
pub struct Sandbox {
    bank: Arc<Bank>,
    bank_addr: SocketAddr,
    control_addr: SocketAddr,
    page_addr: SocketAddr,
    pki: Pki,
    files: Option<PkiFiles>,
    callback_key_file: Option<PathBuf>,
    tasks: Vec<JoinHandle<()>>,
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
        let page_listener = listen::bind(options.page_addr).await?;
        let (bank_addr, control_addr, page_addr) = (
            bank_listener.local_addr()?,
            control_listener.local_addr()?,
            page_listener.local_addr()?,
        );
        let pki = Pki::generate().map_err(io::Error::other)?;
        let dir = options.dir.as_deref();
        let files = dir.map(|dir| pki.write(dir)).transpose();
        let files = files.map_err(io::Error::other)?;
        let tls = serve::tls(&pki)?;
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        let pay_url = format!("http://{page_addr}/pay/");
        let wake = Arc::new(Notify::new());
        let callbacks = options
            .callbacks
            .map(|options| Callbacks::new(options, Arc::clone(&wake)))
            .transpose()
            .map_err(io::Error::other)?;
        let callback_key_file = match (dir, &callbacks) {
            (Some(dir), Some(callbacks)) => Some(write_callback_key(dir, callbacks.key_pem())?),
            _ => None,
        };
        let sends = callbacks.is_some();
        let bank = Arc::new(Bank::new(random, options.auto_approve, pay_url, callbacks));
        let mut tasks = Vec::new();
        let shared = Arc::clone(&bank);
        tasks.push(tokio::spawn(listen::serve(
            bank_listener,
            BANK_CONNECTIONS,
            move |stream| serve::connection(stream, tls.clone(), Arc::clone(&shared)),
        )));
        let shared = Arc::clone(&bank);
        tasks.push(tokio::spawn(listen::serve(
            control_listener,
            CONTROL_CONNECTIONS,
            move |stream| {
                let bank = Arc::clone(&shared);
                async move { wire::converse(stream, |request| control::answer(&bank, request)).await }
            },
        )));
        let shared = Arc::clone(&bank);
        tasks.push(tokio::spawn(listen::serve(
            page_listener,
            PAGE_CONNECTIONS,
            move |stream| {
                let bank = Arc::clone(&shared);
                async move { wire::converse(stream, |request| page::answer(&bank, request)).await }
            },
        )));
        if sends {
            tasks.push(tokio::spawn(callbacks::run(Arc::clone(&bank), wake)));
        }
        Ok(Self {
            bank,
            bank_addr,
            control_addr,
            page_addr,
            pki,
            files,
            callback_key_file,
            tasks,
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

    /// The origin of the bank's page, where every `payment_url` begins.
    #[must_use]
    pub fn page_url(&self) -> String {
        format!("http://{}", self.page_addr)
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
        self.bank.lock().decide(session_id, status).map(|_| ())
    }

    /// The callbacks so far (the last 20,000), oldest first; none without [`Options::callbacks`].
    #[must_use]
    pub fn callbacks(&self) -> Vec<CallbackEvent> {
        let state = self.bank.lock();
        state
            .callbacks
            .as_ref()
            .map_or_else(Vec::new, Callbacks::events)
    }

    /// The public key that callbacks are verified by, as `SubjectPublicKeyInfo` in PEM.
    #[must_use]
    pub fn callback_key_pem(&self) -> Option<String> {
        let state = self.bank.lock();
        let callbacks = state.callbacks.as_ref()?;
        Some(callbacks.key_pem().to_owned())
    }

    /// The public key of the fault `wrong-key`: what a shop would have to add after a rotation that
    /// it was not told of.
    #[must_use]
    pub fn callback_wrong_key_pem(&self) -> Option<String> {
        let state = self.bank.lock();
        let callbacks = state.callbacks.as_ref()?;
        Some(callbacks.wrong_key_pem().to_owned())
    }

    /// `bank-callback.pem`, where a directory was given and callbacks are sent.
    #[must_use]
    pub fn callback_key_file(&self) -> Option<&Path> {
        self.callback_key_file.as_deref()
    }

    /// Sends callbacks elsewhere from the next attempt on: a shop that came up at another port.
    ///
    /// # Errors
    /// [`CallbackError::Off`] without [`Options::callbacks`].
    pub fn redirect_callbacks(&self, url: CallbackUrl) -> Result<(), CallbackError> {
        let mut state = self.bank.lock();
        let callbacks = state.callbacks.as_mut().ok_or(CallbackError::Off)?;
        callbacks.redirect(url);
        Ok(())
    }

    /// Arms a fault for so many callbacks to come, as `POST /control/callbacks/faults` does.
    ///
    /// # Errors
    /// A count of zero, `stale` without a timestamp, too many armed faults, or no callbacks at all.
    pub fn arm_callback(&self, fault: CallbackFault, times: u32) -> Result<(), CallbackError> {
        let mut state = self.bank.lock();
        let callbacks = state.callbacks.as_mut().ok_or(CallbackError::Off)?;
        callbacks.arm(fault, times)
    }

    /// Sends a callback by hand, as `POST /control/callbacks` does.
    ///
    /// # Errors
    /// An order that cannot be carried out, a full queue, or no callbacks at all.
    pub fn send_callback(&self, order: CallbackOrder) -> Result<CallbackEvent, CallbackError> {
        self.bank.lock().send_callback(order)
    }
}

/// Beside `bank-ca.pem`, in the directory that the PKI has made.
fn write_callback_key(dir: &Path, pem: &str) -> io::Result<PathBuf> {
    let path = dir.join("bank-callback.pem");
    pki::replace(&path, pem, 0o644).map_err(|source| {
        io::Error::other(PkiError::Write {
            path: path.clone(),
            source,
        })
    })?;
    Ok(path)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
