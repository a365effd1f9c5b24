//! Requests of one bank, counted by route, code and outcome.
//!
//! Every label comes from the configuration or from a table of this program, and each route's cells are there before the
//! first request: nothing that a caller sends can make another series.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Histogram;
use crate::policy::outcome::Outcome;
use crate::policy::problem::{self, Code};

/// What the bank answered, by its class.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
const OUTCOMES: [Outcome; 3] = [Outcome::Answered, Outcome::NotSent, Outcome::Unknown];
/// Every problem, every class, and a caller that left.
const CODES: usize = problem::ALL.len() + CLASSES.len() + 1;
const CELLS: usize = CODES * OUTCOMES.len();

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// With the bank's answer, of this status.
    Answered(u16),
    /// Before its caller had an answer.
    CallerGone,
    /// With a problem of ours.
    Problem(Code),
}

/// The requests of one route.
#[derive(Debug)]
pub struct Meter {
    cells: [AtomicU64; CELLS],
    duration: Histogram,
}

/// The requests of one bank. It outlives its generations: a reload resets no counter.
#[derive(Debug, Default)]
pub struct Requests {
    /// Requests that were refused before they had a route.
    unrouted: Meter,
    routes: Mutex<BTreeMap<String, Arc<Meter>>>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            cells: [const { AtomicU64::new(0) }; CELLS],
            duration: Histogram::default(),
        }
    }
}

impl Ending {
    fn index(self) -> usize {
        match self {
            Self::Problem(code) => code as usize,
            // What is no class at all (nothing passes one on) counts as the nearest.
            Self::Answered(status) => {
                let class = usize::from(status / 100).clamp(2, CLASSES.len() + 1);
                problem::ALL.len() + class - 2
            }
            Self::CallerGone => CODES - 1,
        }
    }
}

/// The code at an index, as the label has it.
fn label(index: usize) -> &'static str {
    match problem::ALL.get(index) {
        Some(code) => code.row().code,
        None => CLASSES
            .get(index - problem::ALL.len())
            .copied()
            .unwrap_or("caller_gone"),
    }
}

impl Meter {
    /// A request ended.
    pub fn count(&self, ending: Ending, outcome: Outcome, took: Duration) {
        let index = ending.index() * OUTCOMES.len() + outcome as usize;
        if let Some(cell) = self.cells.get(index) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        self.duration.observe(took);
    }

    /// How long they took.
    #[must_use]
    pub fn duration(&self) -> &Histogram {
        &self.duration
    }

    /// Calls `each` with code, outcome and count of whatever was seen; of a good answer always, so that a rate can be had
    /// from the first one on.
    pub fn each(&self, mut each: impl FnMut(&'static str, Outcome, u64)) {
        let first = problem::ALL.len();
        for (index, cells) in self.cells.chunks(OUTCOMES.len()).enumerate() {
            for (outcome, cell) in OUTCOMES.iter().zip(cells) {
                let count = cell.load(Ordering::Relaxed);
                if count > 0 || (index == first && *outcome == Outcome::Answered) {
                    each(label(index), *outcome, count);
                }
            }
        }
    }

    fn of(&self, outcome: Outcome) -> u64 {
        let cells = self.cells.iter().skip(outcome as usize);
        cells
            .step_by(OUTCOMES.len())
            .map(|cell| cell.load(Ordering::Relaxed))
            .fold(0, u64::saturating_add)
    }
}

impl Requests {
    /// The meter of a route, made at its first generation.
    #[must_use]
    pub fn route(&self, name: &str) -> Arc<Meter> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = routes.get(name) {
            return Arc::clone(meter);
        }
        let meter = Arc::<Meter>::default();
        routes.insert(name.to_owned(), Arc::clone(&meter));
        meter
    }

    /// The meter of what has no route.
    #[must_use]
    pub fn unrouted(&self) -> &Meter {
        &self.unrouted
    }

    /// Every meter with its route's name; what has none comes first, as `""`.
    pub fn each(&self, mut each: impl FnMut(&str, &Meter)) {
        each("", &self.unrouted);
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, meter) in routes.iter() {
            each(name, meter);
        }
    }

    /// How many ended with an outcome.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        let mut sum = 0_u64;
        self.each(|_, meter| sum = sum.saturating_add(meter.of(outcome)));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(meter: &Meter) -> Vec<(&'static str, Outcome, u64)> {
        let mut all = Vec::new();
        meter.each(|code, outcome, count| all.push((code, outcome, count)));
        all
    }

    #[test]
    fn every_ending_has_a_cell_of_its_own() {
        let problems = problem::ALL.map(Ending::Problem);
        let answers = [200, 302, 404, 500].map(Ending::Answered);
        let endings = problems
            .into_iter()
            .chain(answers)
            .chain([Ending::CallerGone]);
        let labels: Vec<_> = endings.map(|ending| label(ending.index())).collect();
        assert_eq!(labels.len(), CODES);
        for (index, code) in problem::ALL.iter().enumerate() {
            assert_eq!((*code as usize, labels[index]), (index, code.row().code));
        }
        assert_eq!(labels[29..], ["2xx", "3xx", "4xx", "5xx", "caller_gone"]);
        for (index, outcome) in OUTCOMES.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
        // Nobody passes these on; they must not panic all the same.
        for status in [0, 199, 600, u16::MAX] {
            assert!(Ending::Answered(status).index() < CODES);
        }
    }

    #[test]
    fn requests_are_counted_by_route_code_and_outcome_and_kept_over_generations() {
        let requests = Requests::default();
        let took = Duration::from_millis(3);
        let refund = requests.route("refund");
        refund.count(Ending::Answered(201), Outcome::Answered, took);
        refund.count(Ending::Problem(Code::BankTimeout), Outcome::Unknown, took);
        let again = requests.route("refund");
        again.count(Ending::Problem(Code::BankTimeout), Outcome::NotSent, took);
        requests
            .unrouted()
            .count(Ending::CallerGone, Outcome::NotSent, took);
        assert_eq!(
            counted(&refund),
            [
                ("bank_timeout", Outcome::NotSent, 1),
                ("bank_timeout", Outcome::Unknown, 1),
                ("2xx", Outcome::Answered, 1),
            ]
        );
        assert_eq!(refund.duration().read().count, 3);
        let by_outcome = OUTCOMES.map(|outcome| requests.of(outcome));
        assert_eq!(by_outcome, [1, 2, 1]);
        let mut names = Vec::new();
        requests.each(|name, _| names.push(name.to_owned()));
        assert_eq!(names, ["", "refund"]);
    }
}
