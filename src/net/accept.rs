//! The accept loop. It survives: no error of `accept` ever ends a listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::listen::Listener;

/// The first pause after an error that time may cure (no descriptors, no memory).
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest: a listener that comes back within a second is not noticed by people.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An accepted connection.
#[derive(Debug)]
pub enum Accepted {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Accepts until `stop` says so, and hands each connection over with its place among `places`.
///
/// A connection waits for its place before anything of it is read, and its listener accepts no other meanwhile: beyond
/// the bound callers wait in the kernel's queue. (Taking the place first would let idle listeners hold places.) One that
/// waits is not dropped for `stop`: where the service manager holds the socket, its caller was promised an answer.
pub async fn run(
    listener: Listener,
    name: &str,
    places: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
    mut handle: impl FnMut(Accepted, OwnedSemaphorePermit),
) {
    let mut pause = PAUSE_MIN;
    let mut suffering = false;
    loop {
        let next = async {
            match &listener {
                Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
                Listener::Unix(unix, _) => unix
                    .accept()
                    .await
                    .map(|(stream, _)| Accepted::Unix(stream)),
            }
        };
        let result = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            result = next => result,
        };
        match result {
            Ok(accepted) => {
                // Closed by nobody while a listener lives.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                if suffering {
                    tracing::info!(listener = name, "accepting again");
                    suffering = false;
                    pause = PAUSE_MIN;
                }
                handle(accepted, place);
            }
            Err(error) if is_the_peers(&error) => {
                tracing::debug!(listener = name, %error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                // Once per state change: a full descriptor table must not fill the log as well.
                if !suffering {
                    tracing::error!(listener = name, %error, "cannot accept; trying again");
                    suffering = true;
                }
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
            }
        }
    }
}

/// Errors of a connection that died in the queue (accept(2)): nobody's here.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
