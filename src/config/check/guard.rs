//! The once guard's keys: of a route, and the journal that they need.

use super::Checker;
use crate::config::file::Idempotency;
use crate::config::{Bank, Journal, file};
use crate::policy::operation::answer::Guard;
use crate::policy::operation::{Rules, StatusPattern};
use crate::policy::route::Method;

impl Checker {
    /// How a route is guarded.
    pub(super) fn guard(&mut self, at: &str, raw: &file::Route) -> Option<Rules> {
        let guard = match raw.idempotency {
            Some(Idempotency::Required) => Guard::Required,
            Some(Idempotency::Optional) => Guard::Optional,
            Some(Idempotency::None) | None => {
                let keys = [
                    ("subject", raw.subject.is_some()),
                    ("definitive", raw.definitive.is_some()),
                    ("refused", raw.refused.is_some()),
                    ("answer_types", raw.answer_types.is_some()),
                ];
                for (key, _) in keys.into_iter().filter(|(_, given)| *given) {
                    self.mistake(
                        format!("{at}.{key}"),
                        "means nothing on a route that is not guarded",
                        "add `idempotency: required` (or `optional`), or remove it",
                    );
                }
                return None;
            }
        };
        if raw.method.0 == Method::Get {
            self.mistake(
                format!("{at}.idempotency"),
                "a GET changes nothing, so there is nothing to guard",
                "remove it",
            );
        }
        let subject: Vec<_> = raw
            .subject
            .iter()
            .flatten()
            .map(|pointer| pointer.0.clone())
            .collect();
        if guard == Guard::Required && subject.is_empty() {
            self.mistake(
                format!("{at}.subject"),
                "missing: a second key could walk around an unknown outcome",
                "add `subject: [/session_id]`, JSON pointers to what the operation is about",
            );
        }
        let mut rules = Rules::new(guard, subject);
        let patterns = |raw: &Option<Vec<crate::config::scalar::Statuses>>| {
            raw.as_ref()
                .map(|list| list.iter().map(|status| status.0).collect::<Vec<_>>())
        };
        if let Some(refused) = patterns(&raw.refused) {
            rules.refused = refused;
        }
        match patterns(&raw.definitive) {
            Some(definitive) => {
                rules.definitive = definitive;
                for status in &rules.definitive {
                    let both =
                        matches!(status, StatusPattern::Exact(_)) && rules.refused.contains(status);
                    if both {
                        self.mistake(
                            format!("{at}.definitive"),
                            "a status stands in refused as well (by default 401, 403 and 429)",
                            "decide: refused may run again under its key, definitive never does",
                        );
                    }
                }
            }
            // A status that the config calls refused is no longer definitive by default.
            None => rules
                .definitive
                .retain(|status| !rules.refused.contains(status)),
        }
        let success = |status: &StatusPattern| {
            matches!(
                status,
                StatusPattern::Class(2) | StatusPattern::Exact(200..=299)
            )
        };
        let doubtful = |status: &StatusPattern| {
            matches!(
                status,
                StatusPattern::Class(4 | 5) | StatusPattern::Exact(408 | 500..=599)
            )
        };
        if rules.refused.iter().any(doubtful) {
            self.mistake(
                format!("{at}.refused"),
                "a 408, a 5xx or a whole class may come after the bank has acted, or from a gateway before it",
                "list single 4xx statuses with which the bank says that it did nothing",
            );
        }
        if rules.refused.iter().any(success) {
            self.mistake(
                format!("{at}.refused"),
                "a 2xx says that the bank has acted",
                "list only statuses with which the bank says that it did nothing",
            );
        }
        if let Some(types) = &raw.answer_types {
            rules.answer_types = types.iter().map(|media| media.0.clone()).collect();
            if types.is_empty() {
                self.mistake(
                    format!("{at}.answer_types"),
                    "an empty list makes every outcome unknown",
                    "list the content types of the bank's answers, or leave it out",
                );
            }
        }
        Some(rules)
    }

    /// What holds for all routes together.
    pub(super) fn journal(&mut self, banks: &[Bank], journal: Option<&Journal>) {
        for (index, bank) in banks.iter().enumerate() {
            let guarded: Vec<_> = bank
                .routes
                .iter()
                .enumerate()
                .filter_map(|(at, route)| Some((at, route, route.rules.as_ref()?)))
                .collect();
            if let (Some((at, route, _)), None) = (guarded.first(), journal) {
                self.mistake(
                    format!("banks[{index}].routes[{at}].idempotency"),
                    format!(
                        "route `{}` is guarded, and there is no journal to keep its operations",
                        route.name
                    ),
                    "add `journal: {sqlite: /var/lib/priorgate/journal.db}`",
                );
            }
            for (position, (at, route, rules)) in guarded.iter().enumerate() {
                // Two sets that share a pointer but are not the same would not see each other: a refund by one route and a
                // cancellation by the other would both run.
                let clash = guarded.iter().take(position).find(|(_, _, other)| {
                    let shared = rules
                        .subject
                        .iter()
                        .any(|pointer| other.subject.contains(pointer));
                    let same = rules
                        .subject
                        .iter()
                        .all(|pointer| other.subject.contains(pointer))
                        && other
                            .subject
                            .iter()
                            .all(|pointer| rules.subject.contains(pointer));
                    shared && !same
                });
                if let Some((_, other, _)) = clash {
                    self.mistake(
                        format!("banks[{index}].routes[{at}].subject"),
                        format!("shares a pointer with route `{}` but is not the same: the two would not see each other", other.name),
                        format!("give `{}` and `{}` the same subject, or subjects with no pointer in common", route.name, other.name),
                    );
                }
            }
        }
    }
}
