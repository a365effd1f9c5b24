//! Connecting: TCP to each address in turn, the handshake on a blocking thread, all of it inside one deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::send::Counts;
use crate::net::exchange::{AnswerLimits, Link};
use crate::net::meter::Meter;
use crate::net::wire::Wire;
use crate::tls::client::{HandshakeError, TlsClient};

/// How to connect to one bank.
#[derive(Debug)]
pub struct Dialler {
    /// `None`: plaintext to loopback.
    tls: Option<Arc<TlsClient>>,
    /// Handshakes at a time, all banks together: each holds a blocking thread.
    handshakes: Arc<Semaphore>,
    limits: AnswerLimits,
    counts: Arc<Counts>,
}

/// Why there is no connection. Nothing of a request was sent in any case.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// This machine gave no socket: descriptors, ports or memory are used up. The bank had no part in it.
    #[error("this machine gives no further connection: {0}")]
    Exhausted(#[source] io::Error),
    /// The TLS handshake.
    #[error("{addr}: {source}")]
    Handshake {
        /// The address that was connected.
        addr: SocketAddr,
        /// What went wrong.
        #[source]
        source: HandshakeError,
    },
    /// hyper would not start.
    #[error("HTTP could not be started on the connection: {0}")]
    Http(#[source] hyper::Error),
    /// No look-up has ever succeeded, or the last one is too old.
    #[error("the bank's name does not resolve")]
    NoAddress,
    /// TCP to the last address that was tried.
    #[error("{addr}: {source}")]
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The blocking thread did not come back (shutdown, or a panic in it).
    #[error("the handshake's thread ended early")]
    ThreadLost,
    /// All threads for handshakes were busy until the deadline: nobody was dialled.
    #[error("no handshake thread became free within timeouts.connect")]
    ThreadsBusy,
    /// The deadline passed.
    #[error("no connection within timeouts.connect")]
    TimedOut,
}

impl DialError {
    /// What the breaker learns of the bank: `Some(false)` when it was not there, `Some(true)` when it was (one that
    /// refuses a certificate is), and nothing when this machine was at its own limits.
    #[must_use]
    pub fn reachable(&self) -> Option<bool> {
        match self {
            Self::Handshake { source, .. } => Some(!matches!(source, HandshakeError::Failed(_))),
            Self::NoAddress | Self::Tcp { .. } | Self::TimedOut => Some(false),
            Self::Exhausted(_) | Self::Http(_) | Self::ThreadLost | Self::ThreadsBusy => None,
        }
    }

    fn of_tcp(addr: SocketAddr, source: io::Error) -> Self {
        use rustix::io::Errno;
        let ours = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::ADDRNOTAVAIL,
        ];
        match source.raw_os_error() {
            Some(code) if ours.iter().any(|errno| errno.raw_os_error() == code) => {
                Self::Exhausted(source)
            }
            Some(_) | None => Self::Tcp { addr, source },
        }
    }
}

impl Dialler {
    /// `handshakes` is shared by all banks.
    #[must_use]
    pub fn new(
        tls: Option<Arc<TlsClient>>,
        handshakes: Arc<Semaphore>,
        limits: AnswerLimits,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            tls,
            handshakes,
            limits,
            counts,
        }
    }

    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// The [`DialError`] of the last address that was tried.
    pub async fn dial(
        &self,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<Link, DialError> {
        let mut last = DialError::NoAddress;
        for (index, addr) in addresses.iter().enumerate() {
            // An address that swallows packets must leave time for the next.
            let left = addresses.len().saturating_sub(index).max(1);
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now).checked_div(left);
            let until = now
                .checked_add(share.unwrap_or(Duration::ZERO))
                .unwrap_or(deadline);
            match self.try_one(*addr, until).await {
                Ok(link) => return Ok(link),
                Err(error) if error.reachable() == Some(false) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Once more if the keyholder's key was changed meanwhile: nothing was sent, and the new certificate is there.
    async fn try_one(&self, addr: SocketAddr, until: Instant) -> Result<Link, DialError> {
        match self.connect(addr, until).await {
            Err(DialError::Handshake {
                source: HandshakeError::KeyChanged,
                ..
            }) => self.connect(addr, until).await,
            result => result,
        }
    }

    async fn connect(&self, addr: SocketAddr, until: Instant) -> Result<Link, DialError> {
        let socket = timeout_at(until, TcpStream::connect(addr))
            .await
            .map_err(|_| DialError::TimedOut)?
            .map_err(|source| DialError::of_tcp(addr, source))?;
        // A request is one or two small writes: Nagle's algorithm would hold the second back for a round trip.
        socket
            .set_nodelay(true)
            .map_err(|source| DialError::of_tcp(addr, source))?;
        let (meter, probe) = Meter::new(socket);
        let wire = match &self.tls {
            None => Wire::plain(meter),
            Some(tls) => {
                let begun = Instant::now();
                let shaken = self.shake_hands(Arc::clone(tls), meter, addr, until).await;
                self.counts.handshake.observe(begun.elapsed());
                shaken?
            }
        };
        Link::start(wire, probe, self.limits)
            .await
            .map_err(DialError::Http)
    }

    /// The handshake on a blocking thread, since signing blocks. A thread is taken only once TCP stands: a bank that
    /// swallows packets must not hold the threads that the other banks need.
    async fn shake_hands(
        &self,
        tls: Arc<TlsClient>,
        meter: Meter,
        addr: SocketAddr,
        until: Instant,
    ) -> Result<Wire, DialError> {
        let place = timeout_at(until, Arc::clone(&self.handshakes).acquire_owned())
            .await
            .map_err(|_| DialError::ThreadsBusy)?
            .map_err(|_| DialError::ThreadLost)?;
        let runtime = Handle::current();
        // The socket stays registered with the serving runtime; only the waiting and the signing happen here.
        let thread = tokio::task::spawn_blocking(move || {
            let _place = place;
            runtime.block_on(timeout_at(until, tls.connect(meter, until.into_std())))
        });
        match timeout_at(until, thread).await {
            Ok(Ok(Ok(Ok(stream)))) => Ok(Wire::tls(stream)),
            Ok(Ok(Ok(Err(source)))) => Err(DialError::Handshake { addr, source }),
            Ok(Ok(Err(_))) | Err(_) => Err(DialError::TimedOut),
            Ok(Err(_)) => Err(DialError::ThreadLost),
        }
    }
}
