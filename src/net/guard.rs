//! The guard: judges raw request heads below the HTTP library, and counts bodies through.
//!
//! It sits between a caller's socket and hyper. At a message boundary it collects a head in a
//! buffer of its own and has it judged by `policy::head`; hyper gets an accepted head, then exactly
//! its body, and never a byte beyond the current message. A refused head is replaced by a harmless
//! one: hyper then runs the service as ever, the service finds the refusal in the [`Handle`] and
//! answers it, so that order, request id and record have one path.
//!
//! It owns the waits that belong to the wire (idle, head, stalled write, linger) and knows nothing
//! of routes, callers, answers or deadlines of a request. The hyper connection above must be built
//! with `half_close(true)`, `max_headers` as in [`Rules`], without a `header_read_timeout`, and
//! driven to its end, because the end is where [`Settings::linger_bytes`] works.

mod alarm;
mod handle;

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::Instant,
};

use self::{alarm::Alarm, handle::Cell};
use crate::policy::head::{self, Accepted, Rules, Scanner, Verdict};

pub use self::handle::{Handle, Refusal};

/// What hyper gets in place of a refused head.
const HARMLESS: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Read at once while a head is collected. Most heads, with a small body, fit; it is also what an
/// idle connection costs.
const CHUNK: usize = 4096;

/// Limits and deadlines of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How large a head may be.
    pub rules: Rules,
    /// From a head's first byte to its last.
    pub head: Duration,
    /// Waiting for a head's first byte. Then the connection ends in silence.
    pub idle: Duration,
    /// The longest that a write may make no progress at all.
    pub write_stall: Duration,
    /// The longest that a whole answer may wait for its reader, however often a byte is taken.
    pub write_total: Duration,
    /// At the end of a connection on which the caller may still be sending: bytes that are read and
    /// dropped, so that the system sends no reset over an answer that the caller has not read yet.
    pub linger_bytes: usize,
    /// The longest that this may take.
    pub linger_time: Duration,
}

/// A caller's connection as hyper may see it.
#[derive(Debug)]
pub struct Guard<S> {
    inner: S,
    settings: Settings,
    cell: Arc<Cell>,
    /// What was read and not handed over yet.
    scratch: BytesMut,
    scanner: Scanner,
    stage: Stage,
    closing: Closing,
    /// Nothing more comes from the caller: end of file, or an error.
    read_closed: bool,
    /// Idle, then head, then linger: one at a time.
    read_alarm: Alarm,
    write_alarm: Alarm,
    /// When a write of the current answer first had to wait.
    waiting_since: Option<Instant>,
}

/// Where the stream of requests is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Between messages: no byte of a head was seen.
    Idle,
    /// Collecting a head, since then.
    Collecting(Instant),
    /// Handing over a message, of which so many bytes are left.
    Message(u64),
    /// Handing over [`HARMLESS`], of which so many bytes are given. At its end nothing is readable
    /// any more, and no end of file either: the service is at work, and the answer ends the
    /// connection.
    Refused(usize),
    /// End of file.
    Ended,
}

#[derive(Clone, Copy, Debug)]
enum Closing {
    Open,
    /// Our side is closed; so many bytes are still read and dropped.
    Lingering(usize),
    Closed,
}

impl<S> Guard<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// A guard before `inner`, and the handle on which the service finds what it could not see.
    #[must_use]
    pub fn new(inner: S, settings: Settings) -> (Self, Handle) {
        let handle = Handle::default();
        let guard = Self {
            inner,
            settings,
            cell: handle.cell(),
            scratch: BytesMut::new(),
            scanner: Scanner::default(),
            stage: Stage::Idle,
            closing: Closing::Open,
            read_closed: false,
            read_alarm: Alarm::default(),
            write_alarm: Alarm::default(),
            waiting_since: None,
        };
        (guard, handle)
    }

    /// Waits for a head and leaves the stage in which it, its replacement or the end is handed
    /// over.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if !self.scratch.is_empty() {
                let since = self.first_byte();
                match self.scanner.scan(&self.scratch, &self.settings.rules) {
                    Verdict::Accept(accepted) => {
                        self.waiting_since = None;
                        self.accept(&accepted, since);
                        return Poll::Ready(());
                    }
                    Verdict::Refuse(refusal) => {
                        self.refuse(Refusal::Head(refusal), since);
                        return Poll::Ready(());
                    }
                    Verdict::Incomplete => self.cell.start(since),
                }
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => self.lose(Refusal::Incomplete),
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => self.lose(Refusal::Lost(error.kind())),
                Poll::Pending => {
                    if !self.read_alarm.is_set() {
                        self.read_alarm
                            .set_after(Instant::now(), self.settings.idle);
                    }
                    ready!(self.read_alarm.poll(cx));
                    match self.stage {
                        Stage::Collecting(since) => self.refuse(Refusal::TimedOut, since),
                        _ => self.stage = Stage::Ended,
                    }
                }
            }
            return Poll::Ready(());
        }
    }

    /// When the head that is being collected started: now, if it had not.
    fn first_byte(&mut self) -> Instant {
        if let Stage::Collecting(since) = self.stage {
            return since;
        }
        let now = Instant::now();
        self.stage = Stage::Collecting(now);
        self.read_alarm.set_after(now, self.settings.head);
        now
    }

    fn accept(&mut self, accepted: &Accepted, since: Instant) {
        if accepted.upgrade
            && let Some(bytes) = self.scratch.get_mut(..accepted.head_len)
        {
            head::mask_upgrade(bytes);
        }
        let head_len = u64::try_from(accepted.head_len).unwrap_or(u64::MAX);
        self.stage = Stage::Message(head_len.saturating_add(accepted.content_length));
        self.scanner = Scanner::default();
        self.read_alarm.clear();
        self.cell.hand_over(since, None);
    }

    fn refuse(&mut self, refusal: Refusal, since: Instant) {
        self.stage = Stage::Refused(0);
        self.read_alarm.clear();
        self.cell.hand_over(since, Some(refusal));
    }

    /// The caller is gone for reading. Without a head's first byte that is the end of an idle
    /// connection.
    fn lose(&mut self, refusal: Refusal) {
        self.read_closed = true;
        match self.stage {
            Stage::Collecting(since) => self.refuse(refusal, since),
            _ => self.stage = Stage::Ended,
        }
    }

    /// Reads into the scratch buffer, which never holds more than the rules' bytes and a chunk.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // With nothing in it this moves the buffer back to its start; no new memory after the first
        // time.
        if self.scratch.is_empty() || self.scratch.capacity() == self.scratch.len() {
            self.scratch.reserve(CHUNK);
        }
        let mut limited = (&mut self.scratch).limit(CHUNK);
        pin!(self.inner.read_buf(&mut limited)).poll(cx)
    }

    /// Hands over at most `left` bytes of the current message, and says how many; 0 is end of file.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        left: u64,
    ) -> Poll<io::Result<usize>> {
        let room = buf.remaining();
        let wanted = usize::try_from(left).map_or(room, |left| left.min(room));
        if !self.scratch.is_empty() {
            return Poll::Ready(Ok(give(&mut self.scratch, buf, wanted)));
        }
        if wanted == room {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
            return Poll::Ready(Ok(buf.filled().len() - before));
        }
        // Room for no byte beyond the message.
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(wanted));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let given = part.filled().len();
        buf.advance(given);
        Poll::Ready(Ok(given))
    }

    /// Whether closing now could leave bytes of the caller unread, which the system answers by a
    /// reset.
    fn may_be_sending(&self) -> bool {
        let mid_message = match self.stage {
            Stage::Idle | Stage::Ended => false,
            Stage::Collecting(_) | Stage::Refused(_) => true,
            Stage::Message(left) => left > 0,
        };
        !self.read_closed && (mid_message || !self.scratch.is_empty())
    }

    /// Reads and drops what still comes, within the limits. An error is as good as the end.
    fn poll_linger(&mut self, cx: &mut Context<'_>, mut left: usize) -> Poll<()> {
        let mut space = [MaybeUninit::uninit(); CHUNK];
        while left > 0 {
            let mut buf = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    left = left.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    self.closing = Closing::Lingering(left);
                    return self.read_alarm.poll(cx);
                }
            }
        }
        Poll::Ready(())
    }

    /// The result of a write, unless no write has got anywhere for too long, or the answer has waited too long in all.
    fn unless_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_alarm.clear();
            return result;
        }
        if !self.write_alarm.is_set() {
            let now = Instant::now();
            let waited = now.duration_since(*self.waiting_since.get_or_insert(now));
            let left = self.settings.write_total.saturating_sub(waited);
            self.write_alarm
                .set_after(now, self.settings.write_stall.min(left));
        }
        ready!(self.write_alarm.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S> AsyncRead for Guard<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.stage {
                Stage::Idle | Stage::Collecting(_) => ready!(this.poll_head(cx)),
                Stage::Message(left) => {
                    match ready!(this.poll_message(cx, buf, left)) {
                        Ok(0) => {
                            this.read_closed = true;
                            this.stage = Stage::Ended;
                        }
                        Ok(given) => {
                            this.stage = match left.saturating_sub(given as u64) {
                                0 => Stage::Idle,
                                left => Stage::Message(left),
                            };
                        }
                        Err(error) => {
                            this.read_closed = true;
                            this.stage = Stage::Ended;
                            return Poll::Ready(Err(error));
                        }
                    }
                    return Poll::Ready(Ok(()));
                }
                Stage::Refused(given) => {
                    let mut rest = HARMLESS.get(given..).unwrap_or_default();
                    if rest.is_empty() {
                        return Poll::Pending;
                    }
                    let room = buf.remaining();
                    this.stage = Stage::Refused(given + give(&mut rest, buf, room));
                    return Poll::Ready(Ok(()));
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S> AsyncWrite for Guard<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.unless_stalled(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.unless_stalled(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(cx);
        this.unless_stalled(cx, result)
    }

    /// Closes our side; the caller's is read to its end only if it may still be sending.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.closing {
                Closing::Open => {
                    let result = Pin::new(&mut this.inner).poll_shutdown(cx);
                    let result = ready!(this.unless_stalled(cx, result));
                    this.closing = if result.is_ok() && this.may_be_sending() {
                        let Settings {
                            linger_bytes,
                            linger_time,
                            ..
                        } = this.settings;
                        this.read_alarm.set_after(Instant::now(), linger_time);
                        Closing::Lingering(linger_bytes)
                    } else {
                        Closing::Closed
                    };
                    result?;
                }
                Closing::Lingering(left) => {
                    ready!(this.poll_linger(cx, left));
                    this.closing = Closing::Closed;
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Moves at most `most` bytes from `from` to `to`, which has room for them.
fn give(from: &mut impl Buf, to: &mut ReadBuf<'_>, most: usize) -> usize {
    let given = from.chunk().len().min(most);
    to.put_slice(from.chunk().get(..given).unwrap_or_default());
    from.advance(given);
    given
}

#[cfg(test)]
mod tests;
