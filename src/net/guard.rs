//! stub
#![allow(missing_docs)]
use crate::policy::head::{self, Rules};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
#[derive(Clone, Debug)]
pub struct Settings {
    pub rules: Rules,
    pub head: Duration,
    pub idle: Duration,
    pub write_stall: Duration,
    pub linger_bytes: usize,
    pub linger_time: Duration,
}
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    Head(head::Refusal),
    TimedOut,
    Incomplete,
    Lost(io::ErrorKind),
}
#[derive(Clone, Debug)]
pub struct Handle;
impl Handle {
    pub fn take_refusal(&self) -> Option<Refusal> {
        None
    }
    pub fn head_started(&self) -> Option<Instant> {
        None
    }
    pub fn unserved(&self) -> bool {
        false
    }
}
#[derive(Debug)]
pub struct Guard<S> {
    inner: S,
}
impl<S> Guard<S> {
    pub fn new(inner: S, _s: Settings) -> (Self, Handle) {
        (Self { inner }, Handle)
    }
}
impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        b: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, b)
    }
}
impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        b: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, b)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
