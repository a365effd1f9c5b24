//! Denied callers of one bank or callback: counted, and told once for each caller and second, to the log and to whoever
//! keeps evidence.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::clock::unix_millis;
use crate::policy::denial::{Cause, Denial, Table};

/// A second's rows are told at its end at the latest.
const SECOND: Duration = Duration::from_secs(1);

/// Connections of denied callers that are kept for their answer: a program that is not listed yet has a handful.
const PLACES: usize = 32;
/// How long one of those may say nothing. Who was refused has nothing to wait for; who asks again connects again.
pub const IDLE: Duration = Duration::from_secs(2);

/// Who else is told: the owner's name, and the row. Called on the thread that serves: it must not wait.
pub type Sink = Arc<dyn Fn(&str, &Denial) + Send + Sync>;

/// The denials of one owner.
pub struct Denials {
    /// `bank NAME` or `callback NAME`.
    owner: String,
    total: AtomicU64,
    state: Mutex<State>,
    sink: Option<Sink>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    /// Somebody tells the rows when their second is over.
    awaited: bool,
    last: Option<Denial>,
}

impl Denials {
    /// None so far.
    #[must_use]
    pub fn new(owner: String, sink: Option<Sink>) -> Self {
        Self {
            owner,
            total: AtomicU64::new(0),
            state: Mutex::default(),
            sink,
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }

    /// A place for a denied caller's connection, so that it gets its answer: not one of those that callers share, which
    /// anybody could take up by connecting. `None` when there are enough of them: hang up.
    #[must_use]
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Notes one. Must run on the runtime, which tells the second's rows when it is over.
    pub fn note(self: &Arc<Self>, listener: &Arc<str>, uid: Option<u32>, cause: Cause) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let second = u64::try_from(unix_millis().0 / 1000).unwrap_or(0);
        let mut state = self.lock();
        let over = state.table.note(second, listener, uid, cause);
        let first = !std::mem::replace(&mut state.awaited, true);
        self.tell(&mut state, over);
        drop(state);
        if first {
            let denials = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(SECOND).await;
                denials.flush();
            });
        }
    }

    /// Tells what was not told yet: at the end of a second, and of the process.
    pub fn flush(&self) {
        let mut state = self.lock();
        state.awaited = false;
        let rows = state.table.take();
        self.tell(&mut state, rows);
    }

    /// How many since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// The last row that was told.
    #[must_use]
    pub fn last(&self) -> Option<Denial> {
        self.lock().last.clone()
    }

    fn tell(&self, state: &mut State, rows: Vec<Denial>) {
        for row in rows {
            tracing::warn!(
                target: "priorgate::denied",
                owner = self.owner,
                listener = &*row.listener,
                uid = row.uid,
                cause = row.cause.as_str(),
                count = row.count,
                "denied"
            );
            if let Some(sink) = &self.sink {
                sink(&self.owner, &row);
            }
            state.last = Some(row);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Denials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denials")
            .field("owner", &self.owner)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_is_told_once_to_the_log_and_to_the_sink() {
        let told: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
        let sink: Sink = {
            let told = Arc::clone(&told);
            Arc::new(move |owner, row| {
                told.lock().unwrap().push((owner.to_owned(), row.count));
            })
        };
        let denials = Arc::new(Denials::new("bank b".to_owned(), Some(sink)));
        let listener: Arc<str> = "tcp:x".into();
        for _ in 0..5 {
            denials.note(&listener, Some(33), Cause::NotListed);
        }
        tokio::time::sleep(SECOND * 2).await;
        let sum = |told: &Mutex<Vec<(String, u64)>>| -> u64 {
            told.lock().unwrap().iter().map(|(_, count)| count).sum()
        };
        // The wall clock may have passed a second in between: two rows then.
        assert_eq!((sum(&told), denials.total()), (5, 5));
        assert!(told.lock().unwrap().len() <= 2);
        denials.note(&listener, None, Cause::Unproven);
        denials.flush();
        assert_eq!(sum(&told), 6);
        assert_eq!(denials.last().unwrap().cause, Cause::Unproven);
    }
}
