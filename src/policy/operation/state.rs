//! The states of an operation and every step between them. What is not a step here cannot happen.

use std::fmt;

use super::answer::Ending;
use crate::policy::outcome::Outcome;

/// What is known of an operation.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum State {
    /// The key is taken; nothing has left the machine.
    Reserved,
    /// On disk before the first byte: the bank may have the request.
    Sent,
    /// A definitive answer of the bank, kept and replayed.
    Done,
    /// The bank answered and did nothing.
    Refused,
    /// Provably, the bank has read nothing.
    NotSent,
    /// The bank may have acted.
    Unknown,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Reserved,
        Self::Sent,
        Self::Done,
        Self::Refused,
        Self::NotSent,
        Self::Unknown,
    ];

    /// The state's name in commands and in the journal.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Sent => "sent",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        }
    }

    /// Reads [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The state in `Priorgate-Operation`: a caller need not tell `reserved` from `sent`.
    #[must_use]
    pub const fn towards_caller(self) -> &'static str {
        match self {
            Self::Reserved | Self::Sent => "open",
            Self::Done | Self::Refused | Self::NotSent | Self::Unknown => self.as_str(),
        }
    }

    /// What a caller is told of an operation in this state.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Done | Self::Refused => Outcome::Answered,
            Self::NotSent => Outcome::NotSent,
            Self::Reserved | Self::Sent | Self::Unknown => Outcome::Unknown,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state with the two facts that go with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// The state.
    pub state: State,
    /// `unknown`, but the attempt still listens for a late answer.
    pub listening: bool,
    /// `done`, and the answer was handed to a caller that was there (or a person has seen to it).
    pub delivered: bool,
}

/// What a person decided about an `unknown` operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resolution {
    /// The bank has it: the key replays the answer that the person gives.
    Done,
    /// The bank has it not: the key may run again.
    NotSent,
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// Its key is asked for again and may run.
    Reserve,
    /// The attempt is about to write.
    Sent,
    /// The attempt proved that nothing was read.
    NotSent,
    /// The bank gave a whole answer.
    Answered(Ending),
    /// No usable answer; `listening` for a late one.
    Lost {
        /// Whether the attempt goes on listening.
        listening: bool,
    },
    /// The process that ran it is gone.
    Restart,
    /// The answer was handed to a caller.
    Delivered,
    /// A person lets the subject go.
    Release,
    /// A person found out what became of it.
    Resolve(Resolution),
}

impl Standing {
    /// A state without more to say about it.
    #[must_use]
    pub const fn plain(state: State) -> Self {
        Self {
            state,
            listening: false,
            delivered: false,
        }
    }

    /// A new operation.
    pub const NEW: Self = Self::plain(State::Reserved);

    /// Whether another key for the same subject must wait: while it is open or unknown, and while its answer has reached
    /// nobody. A new key does not walk around an unknown outcome.
    #[must_use]
    pub const fn holds(self) -> bool {
        match self.state {
            State::Reserved | State::Sent | State::Unknown => true,
            State::Done => !self.delivered,
            State::Refused | State::NotSent => false,
        }
    }

    /// The standing after an event; `None` for a step that does not exist.
    #[must_use]
    pub fn after(self, event: Event) -> Option<Self> {
        use State::{Done, NotSent, Refused, Reserved, Sent, Unknown};
        let next = match (self.state, event) {
            (NotSent | Refused, Event::Reserve) => Self::NEW,
            (Reserved, Event::Sent) => Self::plain(Sent),
            (Reserved, Event::NotSent | Event::Restart) | (Sent, Event::NotSent) => {
                Self::plain(NotSent)
            }
            (Sent, Event::Answered(ending)) => Self::plain(ending.state()),
            (Sent, Event::Lost { listening }) => Self {
                listening,
                ..Self::plain(Unknown)
            },
            (Sent | Unknown, Event::Restart) => Self::plain(Unknown),
            // A late end of the attempt itself; after it nobody listens any more.
            (Unknown, Event::NotSent) if self.listening => Self::plain(NotSent),
            (Unknown, Event::Answered(ending)) if self.listening => Self::plain(ending.state()),
            (Unknown, Event::Lost { listening: false }) if self.listening => Self::plain(Unknown),
            (Unknown, Event::Resolve(Resolution::NotSent)) if !self.listening => {
                Self::plain(NotSent)
            }
            // A person who resolves has seen the answer.
            (Unknown, Event::Resolve(Resolution::Done)) if !self.listening => Self {
                delivered: true,
                ..Self::plain(Done)
            },
            (Done, Event::Delivered) => Self {
                delivered: true,
                ..self
            },
            (Done, Event::Release) if !self.delivered => Self {
                delivered: true,
                ..self
            },
            _ => return None,
        };
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standings() -> Vec<Standing> {
        let flag = |state, listening, delivered| Standing {
            state,
            listening,
            delivered,
        };
        vec![
            flag(State::Reserved, false, false),
            flag(State::Sent, false, false),
            flag(State::Done, false, false),
            flag(State::Done, false, true),
            flag(State::Refused, false, false),
            flag(State::NotSent, false, false),
            flag(State::Unknown, false, false),
            flag(State::Unknown, true, false),
        ]
    }

    const EVENTS: [(&str, Event); 13] = [
        ("reserve", Event::Reserve),
        ("sent", Event::Sent),
        ("not sent", Event::NotSent),
        ("answer done", Event::Answered(Ending::Done)),
        ("answer refused", Event::Answered(Ending::Refused)),
        ("answer unknown", Event::Answered(Ending::Unknown)),
        ("lost", Event::Lost { listening: false }),
        ("late", Event::Lost { listening: true }),
        ("restart", Event::Restart),
        ("delivered", Event::Delivered),
        ("release", Event::Release),
        ("resolve not sent", Event::Resolve(Resolution::NotSent)),
        ("resolve done", Event::Resolve(Resolution::Done)),
    ];

    fn name(standing: Standing) -> String {
        let mark = match (standing.listening, standing.delivered) {
            (true, _) => " listening",
            (_, true) => " delivered",
            _ => "",
        };
        format!("{}{mark}", standing.state)
    }

    /// Every step that exists; all others are forbidden.
    const STEPS: [(&str, &str, &str); 24] = [
        ("reserved", "sent", "sent"),
        ("reserved", "not sent", "not_sent"),
        ("reserved", "restart", "not_sent"),
        ("sent", "not sent", "not_sent"),
        ("sent", "answer done", "done"),
        ("sent", "answer refused", "refused"),
        ("sent", "answer unknown", "unknown"),
        ("sent", "lost", "unknown"),
        ("sent", "late", "unknown listening"),
        ("sent", "restart", "unknown"),
        ("done", "delivered", "done delivered"),
        ("done", "release", "done delivered"),
        ("done delivered", "delivered", "done delivered"),
        ("refused", "reserve", "reserved"),
        ("not_sent", "reserve", "reserved"),
        ("unknown", "restart", "unknown"),
        ("unknown", "resolve not sent", "not_sent"),
        ("unknown", "resolve done", "done delivered"),
        ("unknown listening", "not sent", "not_sent"),
        ("unknown listening", "answer done", "done"),
        ("unknown listening", "answer refused", "refused"),
        ("unknown listening", "answer unknown", "unknown"),
        ("unknown listening", "lost", "unknown"),
        ("unknown listening", "restart", "unknown"),
    ];

    #[test]
    fn these_steps_exist_and_no_other() {
        let mut found = Vec::new();
        for standing in standings() {
            for (event_name, event) in EVENTS {
                if let Some(next) = standing.after(event) {
                    found.push((name(standing), event_name, name(next)));
                }
            }
        }
        let expected: Vec<_> = STEPS
            .iter()
            .map(|&(from, event, to)| (from.to_owned(), event, to.to_owned()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn no_event_but_a_persons_ends_an_unknown_that_nobody_listens_for() {
        let unknown = Standing::plain(State::Unknown);
        for (event_name, event) in EVENTS {
            let Some(next) = unknown.after(event) else {
                continue;
            };
            let by_hand = matches!(event, Event::Resolve(_));
            assert!(by_hand || next == unknown, "{event_name}");
        }
    }

    #[test]
    fn what_is_open_or_undelivered_holds_its_subject() {
        let holding: Vec<_> = standings()
            .into_iter()
            .filter(|standing| standing.holds())
            .map(name)
            .collect();
        let expected = ["reserved", "sent", "done", "unknown", "unknown listening"];
        assert_eq!(holding, expected);
    }

    #[test]
    fn callers_see_five_states_and_three_outcomes() {
        let seen = State::ALL.map(|state| (state.towards_caller(), state.outcome().as_str()));
        assert_eq!(
            seen,
            [
                ("open", "unknown"),
                ("open", "unknown"),
                ("done", "answered"),
                ("refused", "answered"),
                ("not_sent", "not_sent"),
                ("unknown", "unknown"),
            ]
        );
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("open"), None);
    }
}
