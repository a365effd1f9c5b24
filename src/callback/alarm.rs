//! Looks after what the shop has not taken, and tells people: once when it begins, once when it is over.
//!
//! It owns the callback's standing, which the status shows. It reads the journal beside everything else and changes nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::worker::Terms;
use crate::journal::{Backlog, Journal, Reader};
use crate::net::clock::unix_millis;
use crate::policy::operation::UnixMillis;

/// How often it looks. A person is told in minutes; the look costs an index.
const LOOK: Duration = Duration::from_secs(5);

/// How a callback's events stand, as last looked at.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Now>);

/// One look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// What was found.
    pub backlog: Backlog,
    /// The oldest has waited longer than `deliver.alarm_after`.
    pub late: bool,
}

impl Standing {
    /// The last look.
    #[must_use]
    pub fn now(&self) -> Now {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, now: Now) -> Now {
        std::mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        )
    }
}

/// One callback's look-out.
#[derive(Debug)]
pub struct Watch {
    /// The callback's name.
    pub name: Arc<str>,
    /// Where events are kept.
    pub journal: Journal,
    /// `deliver.alarm_after` is there.
    pub terms: watch::Receiver<Arc<Terms>>,
    /// Where it is shown.
    pub standing: Arc<Standing>,
    /// Told to stop.
    pub stop: watch::Receiver<bool>,
}

impl Watch {
    /// Looks until told to stop.
    pub async fn run(mut self) {
        loop {
            self.look().await;
            let told = self.stop.wait_for(|stop| *stop);
            if timeout(LOOK, told).await.is_ok() {
                return;
            }
        }
    }

    async fn look(&self) {
        let (path, name) = (self.journal.path().to_owned(), Arc::clone(&self.name));
        let read = tokio::task::spawn_blocking(move || {
            let reader = Reader::open(&path).map_err(|error| error.to_string())?;
            reader.backlog(&name).map_err(|error| error.to_string())
        });
        let backlog = match read.await {
            Ok(Ok(backlog)) => backlog,
            Ok(Err(error)) => {
                tracing::warn!(
                    callback = &*self.name,
                    error,
                    "how its events stand was not read: the status shows the last look"
                );
                return;
            }
            Err(_) => return,
        };
        let alarm_after = self.terms.borrow().schedule.alarm_after;
        let now = judge(backlog, alarm_after, unix_millis());
        let before = self.standing.set(now);
        self.tell(before, now);
    }

    fn tell(&self, before: Now, now: Now) {
        let callback = &*self.name;
        let Backlog {
            waiting,
            held,
            dead,
            ..
        } = now.backlog;
        match (before.late, now.late) {
            (false, true) => tracing::error!(
                callback,
                waiting,
                "events of the bank wait for the shop longer than deliver.alarm_after: see `priorgate callbacks list --open`"
            ),
            (true, false) => tracing::info!(callback, waiting, "the shop takes events again"),
            (true, true) | (false, false) => {}
        }
        if held > before.backlog.held {
            tracing::warn!(
                callback,
                held,
                "events contradict what the shop has, and wait for a person: see `priorgate callbacks list --state held`"
            );
        }
        if dead > before.backlog.dead {
            tracing::error!(
                callback,
                dead,
                "events were given up: see `priorgate callbacks list --state dead`"
            );
        }
    }
}

fn judge(backlog: Backlog, alarm_after: Duration, now: UnixMillis) -> Now {
    let late = backlog
        .oldest
        .is_some_and(|oldest| oldest < now.before(alarm_after));
    Now { backlog, late }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_late_when_the_oldest_has_waited_too_long() {
        let minute = Duration::from_secs(60);
        let waiting_since = |oldest| Backlog {
            waiting: 1,
            oldest,
            ..Backlog::default()
        };
        let now = UnixMillis(1_000_000);
        for (oldest, late) in [
            (None, false),
            (Some(UnixMillis(940_000)), false),
            (Some(UnixMillis(939_999)), true),
            // A clock that went back has let no time pass.
            (Some(UnixMillis(2_000_000)), false),
        ] {
            assert_eq!(judge(waiting_since(oldest), minute, now).late, late);
        }
    }
}
