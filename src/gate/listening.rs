//! Which listeners of a bank or callback accept: each accept loop holds a mark until it ends, whatever ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The listeners of one owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Listening {
    running: Arc<AtomicUsize>,
    all: usize,
}

/// One accept loop that runs.
#[derive(Debug)]
pub(super) struct Mark(Arc<AtomicUsize>);

impl Listening {
    /// One more loop, for as long as the mark is kept.
    pub(super) fn mark(&mut self) -> Mark {
        self.all = self.all.saturating_add(1);
        self.running.fetch_add(1, Ordering::Relaxed);
        Mark(Arc::clone(&self.running))
    }

    /// How many of them have ended.
    pub(super) fn down(&self) -> usize {
        self.all
            .saturating_sub(self.running.load(Ordering::Relaxed))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_ends_is_missed() {
        let mut listening = Listening::default();
        let (first, second) = (listening.mark(), listening.mark());
        let seen_by_the_status = listening.clone();
        assert_eq!(seen_by_the_status.down(), 0);
        drop(first);
        assert_eq!(seen_by_the_status.down(), 1);
        drop(second);
        assert_eq!(seen_by_the_status.down(), 2);
    }
}
