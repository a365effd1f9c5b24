//! The stream to the bank, plain or TLS, that counts the plaintext it gave.
//!
//! It owns the join between the meter below and HTTP above; it knows no bank and makes no decision.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::meter::Meter;

/// A connected stream to the bank.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    received: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Stream {
    Plain(Meter),
    Tls(Box<TlsStream<Meter>>),
}

/// What TLS says at the end of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsFacts {
    /// Whether it was TLS 1.3.
    pub tls13: bool,
    /// Whether the server sent a session ticket, which it does only after it has accepted our certificate.
    pub ticket: bool,
}

impl Wire {
    /// Plaintext HTTP (to a loopback address only; the config sees to that).
    #[must_use]
    pub fn plain(meter: Meter) -> Self {
        Self {
            stream: Stream::Plain(meter),
            received: Arc::default(),
        }
    }

    /// After a completed TLS handshake.
    #[must_use]
    pub fn tls(stream: TlsStream<Meter>) -> Self {
        Self {
            stream: Stream::Tls(Box::new(stream)),
            received: Arc::default(),
        }
    }

    /// The count of plaintext bytes that the bank has sent.
    #[must_use]
    pub fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// `None` for plaintext HTTP.
    #[must_use]
    pub fn tls_facts(&self) -> Option<TlsFacts> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => {
                let (_, session) = stream.get_ref();
                Some(TlsFacts {
                    tls13: session.protocol_version() == Some(ProtocolVersion::TLSv1_3),
                    ticket: session.tls13_tickets_received() > 0,
                })
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        };
        let read = buf.filled().len().saturating_sub(before);
        self.received.fetch_add(read as u64, Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    /// Does nothing, on purpose: see [`Meter`]. A `close_notify` would be a write after the verdict.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
