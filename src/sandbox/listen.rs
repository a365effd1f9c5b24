//! Listeners of the sandbox: loopback only, bounded, and not ended by a failing accept.
//!
//! Owns binding and accepting. What a connection is for, the caller says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long to leave the machine alone after an accept error (out of descriptors, mostly).
const BACK_OFF: Duration = Duration::from_millis(50);

/// Binds a loopback address; there is no way to make it listen elsewhere.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let message = format!(
            "the sandbox is not a bank and listens on loopback only, not on {address}; use \
             127.0.0.1 or [::1]"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Accepts for ever, at most `limit` connections at once. Dropping the future ends them all.
pub(super) async fn serve<F, C>(listener: TcpListener, limit: usize, connection: C)
where
    C: Fn(TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limit));
    let mut connections = JoinSet::new();
    loop {
        // Never closed, so this always gives a place.
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = connection(stream);
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(BACK_OFF).await,
        }
        while connections.try_join_next().is_some() {}
    }
}
