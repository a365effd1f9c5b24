//! The log: structured lines to stderr that never make the runtime wait.
//!
//! It owns the bounded queue between whoever logs and the one thread that writes: a journald or a
//! pipe that nobody reads stalls that thread and nothing else. Lines without a place in the queue
//! are counted, and the count is written once the reader is back. It decides how a line looks; what
//! is worth a line, and what may not be in one, is decided where the line is made.

mod queue;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic;
use std::time::Duration;

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use crate::config::LogFormat;
use queue::{Lines, Queue};

pub use queue::Dropped;

/// How long the last lines may take when nobody called [`Telemetry::shutdown`].
const LAST_LINES: Duration = Duration::from_secs(1);

/// Why there is no log. The process does not start without one.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A second subscriber in one process.
    #[error("the log was already set up in this process; set it up once")]
    AlreadySet,
    /// stderr, or the thread that writes to it.
    #[error("cannot open stderr for the log or start the thread that writes it")]
    System(#[from] io::Error),
}

/// The log of this process: hold it until the end, so that its last lines are written.
#[derive(Debug)]
pub struct Telemetry {
    queue: Queue,
}

/// Sets the log of this process: everything from `level` on goes to stderr in `format`.
///
/// Nothing is written before [`Telemetry::begin`]: the thread that writes is to be confined like every other, and so
/// starts after the confinement.
///
/// A panic becomes a line with its place and without its message, which may quote a body.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(format: LogFormat, level: Level) -> Result<Telemetry, TelemetryError> {
    // A descriptor of its own: a writer that is stalled inside `io::stderr()` holds its lock.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let (telemetry, lines) = Telemetry::new(format, stderr);
    tracing::subscriber::set_global_default(subscriber(format, level, lines))
        .map_err(|_| TelemetryError::AlreadySet)?;
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a task panicked; this is a bug in priorgate");
    }));
    Ok(telemetry)
}

impl Telemetry {
    /// A log on any output; `init` is this with stderr, made global.
    fn new(format: LogFormat, out: impl Write + Send + 'static) -> (Self, Lines) {
        let (queue, lines) = Queue::new(format, out);
        (Self { queue }, lines)
    }

    /// Starts the thread that writes. What was logged before has waited for it, within the queue's bounds.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn begin(&mut self) -> io::Result<()> {
        self.queue.begin()
    }

    /// How many lines were lost so far: no place in the queue, or the output failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped().get()
    }

    /// The same count for whoever outlives a borrow of this.
    #[must_use]
    pub fn dropped_counter(&self) -> Dropped {
        self.queue.dropped().clone()
    }

    /// Writes what is queued and ends the writer. `false` when the deadline passed first.
    pub fn shutdown(mut self, deadline: Duration) -> bool {
        self.queue.end(deadline)
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.queue.end(LAST_LINES);
    }
}

/// The two looks of the log. JSON: one flat object a line, times in RFC 3339, UTC. Neither has
/// colours: the queue escapes control characters, and could not tell ours from a caller's.
fn subscriber(format: LogFormat, level: Level, lines: Lines) -> Box<dyn Subscriber + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines)
        .with_ansi(false)
        // Its fallback is `eprintln!`, past the queue.
        .log_internal_errors(false);
    let registry = registry().with(LevelFilter::from_level(level));
    match format {
        LogFormat::Json => Box::new(
            registry.with(
                layer
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false),
            ),
        ),
        LogFormat::Pretty => Box::new(registry.with(layer.with_target(false))),
    }
}

#[cfg(test)]
mod tests;
