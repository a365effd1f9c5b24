//! The queue of log lines and its one writer.
//!
//! It owns the bounds (lines, bytes, bytes of one line) and the count of what did not fit. It knows
//! nothing of events: a line is bytes that end in a line break.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::config::LogFormat;

/// Lines that wait for the writer: some seconds of a busy gate.
const MAX_LINES: usize = 8192;
/// Bytes that wait for the writer, all lines together.
const MAX_BYTES: usize = 4 << 20;
/// Bytes of one line. No record of a request comes near; a long list of mistakes in a file may.
const MAX_LINE: usize = 16 << 10;
/// What is kept of a longer line. Its quotes are escaped again, so it may double.
const KEPT_OF_LONG: usize = 4 << 10;
/// Lines are written together up to this size, so that a busy gate makes fewer system calls.
const BATCH: usize = 32 << 10;
/// The pause when stderr is non-blocking (some supervisors make it so) and full.
const RETRY: Duration = Duration::from_millis(10);

/// How many lines were lost.
#[derive(Clone, Debug, Default)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    /// The count since the start.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }
}

/// The owner's end: it counts and it ends the writer.
#[derive(Debug)]
pub(super) struct Queue {
    lines: Lines,
    ended: Option<Receiver<()>>,
    writer: Option<Writing>,
}

/// The writer's work, until it has its thread.
struct Writing(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writing")
    }
}

/// The logging end: each write is one line, and none ever waits.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    sender: SyncSender<Vec<u8>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    format: LogFormat,
    dropped: Dropped,
    /// Bytes in the channel.
    waiting: AtomicUsize,
    closing: AtomicBool,
}

impl Queue {
    /// A queue whose lines wait until [`Self::begin`].
    pub(super) fn new(format: LogFormat, out: impl Write + Send + 'static) -> (Self, Lines) {
        let (sender, receiver) = mpsc::sync_channel(MAX_LINES);
        // Never sent on: it is the thread's end that closes it.
        let (alive, ended) = mpsc::channel::<()>();
        let shared = Arc::new(Shared {
            format,
            dropped: Dropped::default(),
            waiting: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let writer = LineWriter {
            out,
            receiver,
            shared: Arc::clone(&shared),
            reported: 0,
        };
        let writing = Writing(Box::new(move || {
            writer.run();
            drop(alive);
        }));
        let lines = Lines { sender, shared };
        let queue = Self {
            lines: lines.clone(),
            ended: Some(ended),
            writer: Some(writing),
        };
        (queue, lines)
    }

    /// Starts the writer's thread, if it has none yet.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if let Some(Writing(work)) = self.writer.take() {
            thread::Builder::new().name("log".to_owned()).spawn(work)?;
        }
        Ok(())
    }

    pub(super) fn dropped(&self) -> &Dropped {
        &self.lines.shared.dropped
    }

    /// Lets the writer finish what is queued. `false` when the deadline passed first.
    pub(super) fn end(&mut self, deadline: Duration) -> bool {
        let Some(ended) = self.ended.take() else {
            return true;
        };
        // A process that ends before it had threads still says why. Without one nobody writes, and nobody is waited for.
        if self.begin().is_err() {
            return false;
        }
        let until = Instant::now() + deadline;
        self.lines.shared.closing.store(true, Ordering::SeqCst);
        loop {
            // Wakes a writer that waits for a line. A full queue needs no waking.
            let _ = self.lines.sender.try_send(Vec::new());
            let left = until.saturating_duration_since(Instant::now());
            match ended.recv_timeout(left.min(RETRY)) {
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return false,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }
}

impl Lines {
    fn push(&self, line: &[u8]) {
        let line = self.shared.format.fit(line);
        let size = line.len();
        let waiting = self.shared.waiting.fetch_add(size, Ordering::SeqCst);
        if waiting.saturating_add(size) > MAX_BYTES || self.sender.try_send(line).is_err() {
            self.shared.waiting.fetch_sub(size, Ordering::SeqCst);
            self.shared.dropped.add(1);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'l> MakeWriter<'l> for Lines {
    type Writer = Self;

    fn make_writer(&'l self) -> Self {
        self.clone()
    }
}

/// The thread's side.
struct LineWriter<W> {
    out: W,
    receiver: Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    /// How many lost lines the log already tells of.
    reported: u64,
}

impl<W: Write> LineWriter<W> {
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = self.next() {
            batch.clear();
            let mut lines = self.take(first, &mut batch);
            while batch.len() < BATCH
                && let Ok(line) = self.receiver.try_recv()
            {
                lines += self.take(line, &mut batch);
            }
            if self.write(&batch).is_err() {
                // A full disk may be cured and a closed pipe not; either way the gate serves on.
                self.shared.dropped.add(lines);
                continue;
            }
            self.report();
        }
        self.report();
    }

    /// Waits for a line; `None` when the queue is empty for good.
    fn next(&self) -> Option<Vec<u8>> {
        if self.shared.closing.load(Ordering::SeqCst) {
            return self.receiver.try_recv().ok();
        }
        self.receiver.recv().ok()
    }

    /// Adds a line to the batch. Gives how many lines that were: an empty one only wakes.
    fn take(&self, line: Vec<u8>, batch: &mut Vec<u8>) -> u64 {
        self.shared.waiting.fetch_sub(line.len(), Ordering::SeqCst);
        batch.extend_from_slice(&line);
        u64::from(!line.is_empty())
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(error) => return Err(error),
            }
        }
        self.out.flush()
    }

    /// Says how many lines are missing here, once the output takes lines again.
    fn report(&mut self) {
        let dropped = self.shared.dropped.get();
        let lost = dropped.saturating_sub(self.reported);
        if lost > 0 {
            let line = self
                .shared
                .format
                .note(&format!("log lines dropped: {lost}"), None);
            if self.write(&line).is_ok() {
                self.reported = dropped;
            }
        }
    }
}

impl LogFormat {
    /// The line as it is queued: within its bound, and one record.
    fn fit(self, line: &[u8]) -> Vec<u8> {
        if line.len() > MAX_LINE {
            let kept = line.get(..KEPT_OF_LONG).unwrap_or(line);
            let what = format!("a log line of {} bytes was cut", line.len());
            return self.note(&what, Some(&String::from_utf8_lossy(kept)));
        }
        match self {
            // serde_json escapes line breaks.
            Self::Json => line.to_vec(),
            Self::Pretty => indented(line),
        }
    }

    /// A warning of the queue's own, in the look of the log.
    fn note(self, message: &str, start: Option<&str>) -> Vec<u8> {
        let mut time = String::new();
        // Writing to a String cannot fail; the line is worth more than its time.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        match self {
            Self::Json => {
                let mut line = serde_json::json!({
                    "timestamp": time,
                    "level": "WARN",
                    "message": message,
                    "target": module_path!(),
                });
                if let (Some(start), Some(line)) = (start, line.as_object_mut()) {
                    line.insert("start".to_owned(), start.into());
                }
                format!("{line}\n").into_bytes()
            }
            Self::Pretty => {
                let start = start.map(|start| format!(" start={start:?}"));
                format!("{time}  WARN {message}{}\n", start.unwrap_or_default()).into_bytes()
            }
        }
    }
}

/// Text from outside cannot look like a record of its own, nor steer a terminal: line breaks inside a
/// record are indented, other control characters escaped. tracing-subscriber leaves both as they are
/// in a field that is logged by its `Display`.
fn indented(line: &[u8]) -> Vec<u8> {
    let line = String::from_utf8_lossy(line);
    let record = line.strip_suffix('\n').unwrap_or(&line);
    let mut text = String::with_capacity(line.len());
    for character in record.chars() {
        match character {
            '\n' => text.push_str("\n    "),
            control if control.is_control() => text.extend(control.escape_default()),
            other => text.push(other),
        }
    }
    text.push('\n');
    text.into_bytes()
}
