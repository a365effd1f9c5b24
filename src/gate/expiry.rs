//! Certificates and keys that end: when each does, and who is told how often.
//!
//! They are used all the same: the clock may be wrong, and only the bank decides what it takes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::BankGate;
use super::ingress::CallbackGate;
use super::status::system_time;
use crate::admin::status::Timestamp;
use crate::callback;

/// Days before an end from which it is told again. Banks take weeks to issue a certificate.
const THRESHOLDS: [u64; 4] = [1, 7, 14, 30];
const DAY: Duration = Duration::from_secs(86_400);

/// What can end.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Client,
    Ca,
    CallbackKey,
}

/// One of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Ending {
    pub(super) kind: Kind,
    /// The bank or callback.
    pub(super) name: String,
    pub(super) id: String,
    /// Whom it names.
    subject: String,
    /// `None`: never.
    pub(super) not_after: Option<SystemTime>,
}

/// How urgently each was told about already.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeMap<(Kind, String, String, SystemTime), u64>>);

impl Kind {
    /// The label's value.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Ca => "ca",
            Self::CallbackKey => "callback_key",
        }
    }
}

/// Everything that ends, of the generations in force.
pub(super) fn endings(banks: &[BankGate], callbacks: &[CallbackGate]) -> Vec<Ending> {
    let mut all = Vec::new();
    for gate in banks {
        let generation = gate.egress.generation();
        let ending = |kind, id: String, facts: &crate::tls::identity::Leaf| Ending {
            kind,
            name: gate.egress.name().to_owned(),
            id,
            subject: facts.subject.clone(),
            not_after: Some(facts.not_after),
        };
        if let Some(identity) = &generation.identity {
            let facts = &identity.current().leaf;
            all.push(ending(Kind::Client, "leaf".to_owned(), facts));
        }
        for (place, facts) in (1_u64..).zip(&generation.cas) {
            all.push(ending(Kind::Ca, place.to_string(), facts));
        }
    }
    for callback in callbacks {
        all.extend(keys(&callback.name, &callback.generation()));
    }
    all
}

fn keys(name: &str, generation: &callback::Generation) -> Vec<Ending> {
    let keys = generation.verifier.keys().iter();
    let ending = |key: &crate::policy::signature::Key| Ending {
        kind: Kind::CallbackKey,
        name: name.to_owned(),
        id: key.id.to_string(),
        subject: key.id.to_string(),
        not_after: key.not_after.map(system_time),
    };
    keys.map(ending).collect()
}

/// Those that somebody must act on. A callback's key that ends matters only when no other key goes on after it: that is
/// what a rotation looks like.
pub(super) fn urgent(all: &[Ending], now: SystemTime) -> Vec<(u64, &Ending)> {
    let goes_on = |one: &Ending| {
        let mut others = all.iter().filter(|other| {
            other.kind == Kind::CallbackKey && other.name == one.name && other.id != one.id
        });
        one.kind == Kind::CallbackKey
            && others.any(|other| match (other.not_after, one.not_after) {
                (None, _) => true,
                (Some(other), Some(one)) => other > one,
                (Some(_), None) => false,
            })
    };
    let mut found = Vec::new();
    for one in all {
        if let Some(threshold) = one.not_after.and_then(|at| threshold(at, now))
            && !goes_on(one)
        {
            found.push((threshold, one));
        }
    }
    found
}

/// Within how many days it ends; 0 once it has.
fn threshold(not_after: SystemTime, now: SystemTime) -> Option<u64> {
    let Ok(left) = not_after.duration_since(now) else {
        return Some(0);
    };
    let mut thresholds = THRESHOLDS.into_iter();
    thresholds.find(|days| left <= DAY.saturating_mul(u32::try_from(*days).unwrap_or(u32::MAX)))
}

impl Ending {
    /// For the log and the status: what ends, when, and what to do.
    pub(super) fn warning(&self, now: SystemTime) -> String {
        let not_after = self.not_after.unwrap_or(now);
        let verb = if not_after < now {
            "has expired at"
        } else {
            "ends at"
        };
        let until = Timestamp::from(not_after);
        let (name, subject) = (&self.name, &self.subject);
        match self.kind {
            Kind::Client => format!(
                "bank {name}: the client certificate ({subject}) {verb} {until}; ask the bank for the next one, put it and \
                 its key in place, then `priorgate check` and `priorgate reload`"
            ),
            Kind::Ca => format!(
                "bank {name}: a CA in trust.ca_file ({subject}) {verb} {until}; ask the bank for the next one, add it to the \
                 file, then `priorgate check` and `priorgate reload`"
            ),
            Kind::CallbackKey => format!(
                "callback {name}: the last key ({subject}) {verb} {until}, and nothing is verified after it; ask the bank for \
                 the next one, add it to signature.keys, then `priorgate check` and `priorgate reload`"
            ),
        }
    }
}

impl Told {
    /// Tells the log of what has become more urgent: once for each threshold, however often this is called.
    pub(super) fn tell(&self, all: &[Ending], now: SystemTime) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let urgent = urgent(all, now);
        for (threshold, ending) in &urgent {
            let key = ending.key();
            if told.get(&key).is_some_and(|before| before <= threshold) {
                continue;
            }
            let warning = ending.warning(now);
            // A week is not enough for every bank.
            if *threshold <= 7 {
                tracing::error!("{warning}");
            } else {
                tracing::warn!("{warning}");
            }
            told.insert(key, *threshold);
        }
        // What was rotated away is forgotten, so that this does not grow.
        told.retain(|key, _| urgent.iter().any(|(_, ending)| ending.key() == *key));
    }
}

impl Ending {
    fn key(&self) -> (Kind, String, String, SystemTime) {
        let at = self.not_after.unwrap_or(SystemTime::UNIX_EPOCH);
        (self.kind, self.name.clone(), self.id.clone(), at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn ending(kind: Kind, id: &str, days: Option<u64>) -> Ending {
        Ending {
            kind,
            name: "priorbank".to_owned(),
            id: id.to_owned(),
            subject: "CN=shop".to_owned(),
            not_after: days.map(|days| NOW + DAY * u32::try_from(days).unwrap()),
        }
    }

    #[test]
    fn an_end_is_as_urgent_as_the_nearest_threshold() {
        let at = |seconds: u64| threshold(NOW + Duration::from_secs(seconds), NOW + DAY);
        let day = 86_400;
        assert_eq!(at(day - 1), Some(0));
        for (days, expected) in [
            (1, 1),
            (2, 7),
            (7, 7),
            (8, 14),
            (14, 14),
            (15, 30),
            (30, 30),
        ] {
            assert_eq!(at(day * (days + 1)), Some(expected), "{days} days");
        }
        assert_eq!(at(day * 31 + 1), None);
    }

    #[test]
    fn a_key_that_another_follows_is_a_rotation_and_no_alarm() {
        let old = ending(Kind::CallbackKey, "old", Some(3));
        for (next, alarmed) in [
            (ending(Kind::CallbackKey, "new", None), vec![]),
            (ending(Kind::CallbackKey, "new", Some(400)), vec![]),
            (ending(Kind::CallbackKey, "new", Some(20)), vec!["new"]),
        ] {
            let all = [old.clone(), next];
            let found = urgent(&all, NOW);
            let ids: Vec<_> = found.iter().map(|(_, ending)| &*ending.id).collect();
            assert_eq!(ids, alarmed);
        }
        assert_eq!(urgent(&[old], NOW).len(), 1);
        // Each certificate counts for itself: a second CA does not take over for the first.
        let cas = [
            ending(Kind::Ca, "1", Some(3)),
            ending(Kind::Ca, "2", Some(400)),
        ];
        assert_eq!(urgent(&cas, NOW), [(7, &cas[0])]);
    }

    #[test]
    fn each_threshold_is_told_once_for_each_certificate() {
        let told = Told::default();
        let known = |told: &Told| told.0.lock().unwrap().values().copied().collect::<Vec<_>>();
        let shop = [ending(Kind::Client, "leaf", Some(40))];
        for (day, expected) in [
            (0, vec![]),
            (10, vec![30]),
            (11, vec![30]),
            (34, vec![7]),
            (41, vec![0]),
        ] {
            told.tell(&shop, NOW + DAY * day);
            assert_eq!(known(&told), expected, "day {day}");
        }
        // The next certificate begins anew, and the old one is forgotten.
        told.tell(&[ending(Kind::Client, "leaf", Some(60))], NOW + DAY * 41);
        assert_eq!(known(&told), [30]);
    }
}
