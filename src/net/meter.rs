//! The byte counter between TLS and the socket, and the switch that ends all writing.
//!
//! It owns the proof of `not_sent`. A count above TLS would prove nothing: rustls may have written records before it
//! reports an error, and flushes what it holds when it is shut down. Here a byte is counted when the kernel took it,
//! and after [`Probe::poison`] no further byte can be.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, recv, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::clock::boot_time;
use crate::policy::operation::{BootTime, may_write_first_byte};

/// A TCP stream whose writes are counted and can be forbidden.
#[derive(Debug)]
pub struct Meter {
    shared: Arc<Shared>,
}

/// The other end of a [`Meter`]: reads its count, poisons it, looks whether the peer has spoken.
#[derive(Clone, Debug)]
pub struct Probe {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: TcpStream,
    written: AtomicU64,
    poisoned: AtomicBool,
    /// When the request that is written next was committed as sent (nanoseconds of `CLOCK_BOOTTIME`), until its first
    /// byte is out; 0 for none.
    committed: AtomicU64,
}

impl Meter {
    /// Takes a connected socket over.
    #[must_use]
    pub fn new(socket: TcpStream) -> (Self, Probe) {
        let shared = Arc::new(Shared {
            socket,
            written: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            committed: AtomicU64::new(0),
        });
        (
            Self {
                shared: Arc::clone(&shared),
            },
            Probe { shared },
        )
    }

    fn poll_counted(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.shared.poisoned.load(Ordering::SeqCst) {
                return Poll::Ready(Err(poisoned()));
            }
            ready!(self.shared.socket.poll_write_ready(cx))?;
            let committed = self.shared.committed.load(Ordering::SeqCst);
            if committed != 0 && !may_write_first_byte(boot(committed), boot_time()) {
                self.shared.poisoned.store(true, Ordering::SeqCst);
                return Poll::Ready(Err(too_late()));
            }
            match write(&self.shared.socket) {
                Ok(n) => {
                    if committed != 0 {
                        self.shared.committed.store(0, Ordering::SeqCst);
                    }
                    self.shared.written.fetch_add(n as u64, Ordering::SeqCst);
                    return Poll::Ready(Ok(n));
                }
                // Readiness was stale: `try_write` has cleared it, ask again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn boot(nanos: u64) -> BootTime {
    BootTime(Duration::from_nanos(nanos))
}

fn too_late() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "more than a second after the commit of `sent` the first byte is not written any more",
    )
}

fn poisoned() -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        "a verdict on this connection was already given",
    )
}

impl Probe {
    /// Bytes that the kernel has taken so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::SeqCst)
    }

    /// Makes every later write fail, for ever. Then [`Probe::written`] is final.
    ///
    /// And what the kernel still holds dies with the socket: a request whose outcome was told as unknown must not arrive
    /// minutes later, when the network is mended and somebody has resolved it.
    pub fn poison(&self) {
        self.shared.poisoned.store(true, Ordering::SeqCst);
        // A socket that knows no such option has nothing to hold.
        let _ = sockopt::set_socket_linger(&self.shared.socket, Some(Duration::ZERO));
    }

    /// The next byte is the first of a request that was committed as sent at this moment: it is written within a second
    /// of it or never, and in the latter case nothing after it is.
    pub fn first_byte_after(&self, committed: BootTime) {
        let nanos = u64::try_from(committed.0.as_nanos()).unwrap_or(u64::MAX);
        self.shared.committed.store(nanos.max(1), Ordering::SeqCst);
    }

    /// Whether an idle connection is still quiet: open, with nothing to read. Anything else (an end of file, an alert,
    /// a stray answer) makes it unfit for a request. One system call, no waiting.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&self.shared.socket, &mut byte[..], flags), Err(error) if error == rustix::io::Errno::AGAIN)
    }
}

impl AsyncRead for Meter {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = &self.shared.socket;
        loop {
            ready!(socket.poll_read_ready(cx))?;
            match socket.try_read(buf.initialize_unfilled()) {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Meter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_counted(cx, |socket| socket.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_counted(cx, |socket| socket.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Does nothing: a connection to the bank is dropped, never shut down, so that no layer above can flush what it
    /// still holds. Dropping both halves closes the socket.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Meter, Probe, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (meter, probe) = Meter::new(client);
        (meter, probe, server)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_are_counted_when_the_kernel_takes_them() {
        let (mut meter, probe, mut server) = pair().await;
        assert_eq!(probe.written(), 0);
        meter.write_all(b"hello").await.unwrap();
        assert_eq!(probe.written(), 5);
        let mut got = [0; 5];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_poisoned_meter_never_writes_again_and_shutdown_sends_nothing() {
        let (mut meter, probe, mut server) = pair().await;
        probe.poison();
        assert!(meter.write_all(b"late").await.is_err());
        assert!(
            meter
                .write_vectored(&[io::IoSlice::new(b"late")])
                .await
                .is_err()
        );
        meter.shutdown().await.unwrap();
        assert_eq!(probe.written(), 0);
        drop((meter, probe));
        let mut got = Vec::new();
        let reset = server.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        assert!(got.is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_kernel_still_holds_dies_with_a_poisoned_socket() {
        let (mut meter, probe, mut server) = pair().await;
        // More than both sockets' buffers take: the rest waits in ours.
        let block = [7_u8; 64 << 10];
        let mut written = 0;
        while let Ok(Ok(n)) =
            tokio::time::timeout(Duration::from_millis(50), meter.write(&block)).await
        {
            written += n;
        }
        probe.poison();
        drop((meter, probe));
        let mut got = Vec::new();
        let reset = server.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        assert!(got.len() < written, "{} of {written} arrived", got.len());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_first_byte_is_written_soon_after_its_commit_or_never() {
        let (mut meter, probe, mut server) = pair().await;
        probe.first_byte_after(boot_time());
        meter.write_all(b"in time").await.unwrap();
        let mut got = [0; 7];
        server.read_exact(&mut got).await.unwrap();
        // Only the first byte is judged.
        meter.write_all(b"later").await.unwrap();
        let long_ago = boot_time()
            .0
            .checked_sub(Duration::from_millis(1_001))
            .unwrap();
        let (mut meter, probe, mut server) = pair().await;
        probe.first_byte_after(BootTime(long_ago));
        assert!(meter.write_all(b"late").await.is_err());
        probe.first_byte_after(boot_time());
        assert!(meter.write_all(b"poisoned").await.is_err());
        assert_eq!(probe.written(), 0);
        drop((meter, probe));
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert!(got.is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_is_quiet_until_the_peer_speaks_or_leaves() {
        let (_meter, probe, mut server) = pair().await;
        assert!(probe.is_quiet());
        server.write_all(b"x").await.unwrap();
        while probe.is_quiet() {
            tokio::task::yield_now().await;
        }
        let (_meter, probe, server) = pair().await;
        drop(server);
        while probe.is_quiet() {
            tokio::task::yield_now().await;
        }
    }
}
