//! What operators and probes ask of a running gate.
//!
//! [`serve_unix`] serves the admin socket: it owns connections, lines, deadlines and who is on the
//! other end. [`commands`] owns what a line means, [`operations`] and [`callbacks`] what is asked of the
//! journal, [`books`] what these two share, [`http`] the answers of the GET-only port, and [`status`] the document that all of them show. A reload
//! goes up to `lifecycle` as a [`Command`]; nothing here knows how it is done.

pub mod books;
pub mod callbacks;
pub mod commands;
pub mod http;
pub mod operations;
pub mod status;
mod tcp;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::metrics::text::Format;
use crate::net::accept::{self, Accepted};
use crate::net::listen::Listener;
use books::Peer;
use commands::{Refusal, answer};

use status::Status;

pub use callbacks::{RejectedBody, RejectedFn};
pub use commands::{Command, ReloadDone, Server};
pub use tcp::serve_tcp;

/// How the status is asked for, from any task.
pub type StatusFn = Arc<dyn Fn() -> Status + Send + Sync>;

/// How a scrape is asked for, from any task.
pub type MetricsFn = Arc<dyn Fn(Format) -> String + Send + Sync>;

/// What the GET-only port shows.
#[derive(Clone)]
pub struct Pages {
    /// The status document; what fails in it decides about `/readyz`.
    pub status: StatusFn,
    /// The scrape.
    pub metrics: MetricsFn,
}

/// Connections at a time: people and a probe or two. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;
/// Bytes of a line. A command needs a hundred; an answer that somebody gives for a key to replay
/// ([`operations::BODY_MAX`]) grows when JSON escapes it.
const MAX_LINE: u64 = 256 << 10;
/// How long a connection may take for its next line, and for reading an answer.
const IDLE: Duration = Duration::from_secs(10);

/// Serves the admin socket until `end` says so. Its mode and group are the listener's.
pub async fn serve_unix(listener: Listener, server: Server, end: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    accept::run(listener, "admin", places, end.clone(), |accepted, place| {
        // A TCP peer has no uid that the kernel vouches for.
        let Accepted::Unix(stream) = accepted else {
            return;
        };
        let (server, mut end) = (server.clone(), end.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                _ = end.wait_for(|end| *end) => {}
                ended = connection(stream, &server, IDLE) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "an admin connection broke");
                    }
                }
            }
        });
    })
    .await;
}

/// One connection: line after line until its end, its silence or a line that is too long.
async fn connection(stream: UnixStream, server: &Server, idle: Duration) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    let mut denied = false;
    loop {
        line.clear();
        let mut bounded = (&mut stream).take(MAX_LINE);
        let Ok(read) = timeout(idle, bounded.read_until(b'\n', &mut line)).await else {
            return Ok(());
        };
        if read? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let result = if whole {
            let credentials = stream.get_ref().peer_cred()?;
            let peer = Peer {
                uid: credentials.uid(),
                pid: credentials.pid(),
            };
            server.carry_out(&line, peer).await.inspect_err(|refusal| {
                // Once a connection: a loop in somebody's script must not fill the log.
                if refusal.code() == "operator_required" && !denied {
                    denied = true;
                    let Peer { uid, pid } = peer;
                    tracing::warn!(uid, pid, "denied an admin command to who is no operator");
                }
            })
        } else {
            let message = format!("a line ends with a line break within {MAX_LINE} bytes");
            Err(Refusal::new("bad_request", message))
        };
        let answer = answer(result);
        let written = timeout(idle, stream.write_all(&answer)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        if !whole {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
