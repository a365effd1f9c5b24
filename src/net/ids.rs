//! Names for requests, for whoever must find one again in a log.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes request ids: unique over restarts (a random part for each process), cheap, and without meaning.
#[derive(Debug)]
pub struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        // std seeds each RandomState from the system: enough for uniqueness, and nothing here needs to be secret.
        Self {
            process: RandomState::new().build_hasher().finish(),
            next: AtomicU64::new(1),
        }
    }
}

impl RequestIds {
    /// The next id.
    #[must_use]
    pub fn next(&self) -> String {
        format!(
            "{:016x}-{:x}",
            self.process,
            self.next.fetch_add(1, Ordering::Relaxed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique() {
        let (a, b) = (RequestIds::default(), RequestIds::default());
        let mut all: Vec<String> = (0..100).flat_map(|_| [a.next(), b.next()]).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 200);
    }
}
