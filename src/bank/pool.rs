//! Connections that stand idle until the next request: last in, first out, so that few stay warm and the rest age out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::net::exchange::Link;

/// The idle connections of one generation of a bank.
#[derive(Debug)]
pub struct Pool {
    limits: config::Pool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    retired: bool,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

impl Pool {
    /// An empty pool, swept by a task of its own for as long as it lives. Must be called inside the serving runtime.
    #[must_use]
    pub fn new(limits: config::Pool) -> Arc<Self> {
        let every = (limits.idle_timeout / 2).max(Duration::from_millis(50));
        let pool = Arc::new(Self {
            limits,
            state: Mutex::default(),
        });
        tokio::spawn(sweep(Arc::downgrade(&pool), every));
        pool
    }

    /// Takes the connection that was used last, if it is still fit for a request. Unfit ones are dropped on the way.
    #[must_use]
    pub fn take(&self) -> Option<Link> {
        let now = Instant::now();
        loop {
            // Popped one by one, so that a connection is closed outside the lock.
            let idle = self.lock().idle.pop()?;
            if self.is_fit(&idle, now) && idle.link.is_usable() {
                return Some(idle.link);
            }
        }
    }

    /// Gives a connection back after a complete answer. It is closed instead if the pool is full or retired, or the
    /// connection too old or at its end.
    pub fn put(&self, link: Link) {
        let now = Instant::now();
        if link.is_closed() || now.saturating_duration_since(link.opened()) >= self.limits.max_age {
            return;
        }
        let mut state = self.lock();
        if !state.retired && state.idle.len() < self.limits.max_idle {
            state.idle.push(Idle { link, since: now });
        }
    }

    /// Closes what is idle and keeps nothing from now on: the identity has changed.
    pub fn retire(&self) {
        let idle = {
            let mut state = self.lock();
            state.retired = true;
            std::mem::take(&mut state.idle)
        };
        drop(idle);
    }

    /// How many connections stand idle.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.lock().idle.len()
    }

    fn is_fit(&self, idle: &Idle, now: Instant) -> bool {
        now.saturating_duration_since(idle.since) < self.limits.idle_timeout
            && now.saturating_duration_since(idle.link.opened()) < self.limits.max_age
            && !idle.link.is_closed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; if it ever did, a list of idle connections is still a list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections that nobody asked for in time, below the bank's own idle time-out.
async fn sweep(pool: Weak<Pool>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        let unfit: Vec<Idle> = {
            let mut state = pool.lock();
            let (fit, unfit) = std::mem::take(&mut state.idle)
                .into_iter()
                .partition(|idle| pool.is_fit(idle, now));
            state.idle = fit;
            unfit
        };
        drop(unfit);
    }
}
