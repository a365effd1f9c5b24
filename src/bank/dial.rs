//! Connecting: TCP to each address in turn, the handshake on a blocking thread, all of it inside one deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::net::exchange::{AnswerLimits, Link};
use crate::net::meter::{Meter, Probe};
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
}

/// Why there is no connection. Nothing of a request was sent in any case.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
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
    /// Whether the bank was not there at all, which is what the breaker counts. A bank that refuses a certificate is.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Handshake { source, .. } => matches!(source, HandshakeError::Failed(_)),
            Self::NoAddress | Self::Tcp { .. } | Self::TimedOut => true,
            Self::Http(_) | Self::ThreadLost | Self::ThreadsBusy => false,
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
    ) -> Self {
        Self {
            tls,
            handshakes,
            limits,
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
        let (wire, probe) = match &self.tls {
            None => try_each(None, addresses.to_vec(), deadline).await?,
            Some(tls) => {
                let place = timeout_at(deadline, Arc::clone(&self.handshakes).acquire_owned())
                    .await
                    .map_err(|_| DialError::ThreadsBusy)?
                    .map_err(|_| DialError::ThreadLost)?;
                let (tls, addresses) = (Arc::clone(tls), addresses.to_vec());
                let runtime = Handle::current();
                // The socket stays registered with the serving runtime; only the waiting and the signing happen here.
                let thread = tokio::task::spawn_blocking(move || {
                    let _place = place;
                    runtime.block_on(try_each(Some(&tls), addresses, deadline))
                });
                match timeout_at(deadline, thread).await {
                    Ok(Ok(result)) => result?,
                    Ok(Err(_)) => return Err(DialError::ThreadLost),
                    Err(_) => return Err(DialError::TimedOut),
                }
            }
        };
        Link::start(wire, probe, self.limits)
            .await
            .map_err(DialError::Http)
    }
}

async fn try_each(
    tls: Option<&TlsClient>,
    addresses: Vec<SocketAddr>,
    deadline: Instant,
) -> Result<(Wire, Probe), DialError> {
    let mut last = DialError::NoAddress;
    let count = addresses.len();
    for (index, addr) in addresses.into_iter().enumerate() {
        // An address that swallows packets must leave time for the next.
        let left = u32::try_from(count.saturating_sub(index))
            .unwrap_or(u32::MAX)
            .max(1);
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now).checked_div(left);
        let until = now
            .checked_add(share.unwrap_or(Duration::ZERO))
            .unwrap_or(deadline);
        match timeout_at(until, try_one(tls, addr)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) if error.is_unreachable() => last = error,
            Ok(Err(error)) => return Err(error),
            Err(_) => last = DialError::TimedOut,
        }
    }
    Err(last)
}

async fn try_one(tls: Option<&TlsClient>, addr: SocketAddr) -> Result<(Wire, Probe), DialError> {
    let tcp = |source| DialError::Tcp { addr, source };
    let socket = TcpStream::connect(addr).await.map_err(tcp)?;
    // A request is one or two small writes: Nagle's algorithm would hold the second back for a round trip.
    socket.set_nodelay(true).map_err(tcp)?;
    let (meter, probe) = Meter::new(socket);
    let wire = match tls {
        None => Wire::plain(meter),
        Some(tls) => {
            let stream = tls.connect(meter).await;
            Wire::tls(stream.map_err(|source| DialError::Handshake { addr, source })?)
        }
    };
    Ok((wire, probe))
}
