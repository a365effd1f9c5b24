//! Whether a guarded request runs, is answered from the journal, or is refused.

use std::time::Duration;

use super::id::{OperationId, Reference};
use super::key::Digest;
use super::state::{Standing, State};

/// How long after a `done` the same request under another key counts as the same refund asked for twice.
pub const DUPLICATE_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The value of `Priorgate-Repeat`: the caller means to do the same thing again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Repeat {
    /// The same request again within a day is a mistake.
    #[default]
    Mistaken,
    /// `Priorgate-Repeat: intended`.
    Intended,
}

impl Repeat {
    /// Reads the header, if there is one.
    ///
    /// # Errors
    /// Any value but `intended`: a misspelt one must not count as none.
    pub fn parse(value: Option<&[u8]>) -> Result<Self, RepeatError> {
        match value {
            None => Ok(Self::Mistaken),
            Some(b"intended") => Ok(Self::Intended),
            Some(_) => Err(RepeatError),
        }
    }
}

/// The header says something else.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("Priorgate-Repeat takes one value, once: intended")]
pub struct RepeatError;

/// What a request asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Asked {
    /// Of the request.
    pub fingerprint: Digest,
    /// Whether the same request may be done again.
    pub repeat: Repeat,
}

/// An operation that the journal knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Known {
    /// Its name.
    pub id: OperationId,
    /// How it stands.
    pub standing: Standing,
    /// Of its request.
    pub fingerprint: Digest,
}

impl Known {
    /// As callers are told.
    #[must_use]
    pub fn reference(&self) -> Reference {
        Reference {
            id: self.id,
            state: self.standing.state,
        }
    }
}

/// Why no guarded request may run, whatever it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closed {
    /// The audit log is so far behind that nothing more may wait for it.
    AuditBehind,
    /// The journal does not know what the audit log knows: it is new, or a restored backup.
    Doubted,
    /// Somebody froze guarded routes.
    Frozen,
}

/// What the journal knows that matters to a request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Situation {
    /// Why no guarded request may run.
    pub closed: Option<Closed>,
    /// The operation under the request's own key.
    pub own: Option<Known>,
    /// Another key's operation that holds the request's subject.
    pub holder: Option<Known>,
    /// Another key's operation with the same fingerprint that became `done` within [`DUPLICATE_WITHIN`].
    pub twin: Option<Known>,
}

/// What is done with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Decision {
    /// It runs.
    Run,
    /// It is answered with what the bank answered then.
    Replay(Known),
    /// It is refused.
    Refuse(Refusal),
}

/// Why it is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// No guarded request may run now.
    Closed(Closed),
    /// The key was used for another request.
    KeyReused(Known),
    /// The key's operation is running.
    InFlight(Known),
    /// The key's operation may have reached the bank.
    OutcomeUnknown(Known),
    /// Another key's operation holds the subject.
    SubjectBusy(Known),
    /// The same request was done under another key.
    Duplicate(Known),
}

/// Decides. The order matters: what the own key says comes first, so that nobody is told of nothing sent while its
/// operation is at the bank; then what other keys say.
pub fn decide(asked: &Asked, situation: &Situation) -> Decision {
    if let Some(own) = situation.own {
        if own.fingerprint != asked.fingerprint {
            return Decision::Refuse(Refusal::KeyReused(own));
        }
        match own.standing.state {
            State::Done => return Decision::Replay(own),
            State::Reserved | State::Sent => return Decision::Refuse(Refusal::InFlight(own)),
            State::Unknown => return Decision::Refuse(Refusal::OutcomeUnknown(own)),
            State::NotSent | State::Refused => {}
        }
    }
    if let Some(closed) = situation.closed {
        return Decision::Refuse(Refusal::Closed(closed));
    }
    // The more telling refusal first: the caller of a duplicate learns that its request was done.
    if let (Some(twin), Repeat::Mistaken) = (situation.twin, asked.repeat) {
        return Decision::Refuse(Refusal::Duplicate(twin));
    }
    match situation.holder {
        Some(holder) => Decision::Refuse(Refusal::SubjectBusy(holder)),
        None => Decision::Run,
    }
}

#[cfg(test)]
mod tests {
    use super::super::UnixMillis;
    use super::*;

    fn known(state: State, request: u8) -> Known {
        Known {
            id: OperationId::new(UnixMillis(1), u32::from(request)),
            standing: Standing::plain(state),
            fingerprint: Digest([request; 32]),
        }
    }

    fn asked() -> Asked {
        Asked {
            fingerprint: Digest([1; 32]),
            repeat: Repeat::Mistaken,
        }
    }

    #[test]
    fn the_own_keys_state_decides_first() {
        let holder = Some(known(State::Unknown, 9));
        for (state, decision) in [
            (State::Done, Decision::Replay(known(State::Done, 1))),
            (
                State::Reserved,
                Decision::Refuse(Refusal::InFlight(known(State::Reserved, 1))),
            ),
            (
                State::Sent,
                Decision::Refuse(Refusal::InFlight(known(State::Sent, 1))),
            ),
            (
                State::Unknown,
                Decision::Refuse(Refusal::OutcomeUnknown(known(State::Unknown, 1))),
            ),
            (
                State::NotSent,
                Decision::Refuse(Refusal::SubjectBusy(known(State::Unknown, 9))),
            ),
            (
                State::Refused,
                Decision::Refuse(Refusal::SubjectBusy(known(State::Unknown, 9))),
            ),
        ] {
            let situation = Situation {
                own: Some(known(state, 1)),
                holder,
                ..Situation::default()
            };
            assert_eq!(decide(&asked(), &situation), decision, "{state}");
        }
    }

    #[test]
    fn a_key_is_for_one_request_whatever_its_state() {
        for state in State::ALL {
            let own = known(state, 2);
            let situation = Situation {
                own: Some(own),
                ..Situation::default()
            };
            let decision = decide(&asked(), &situation);
            assert_eq!(
                decision,
                Decision::Refuse(Refusal::KeyReused(own)),
                "{state}"
            );
        }
    }

    #[test]
    fn what_was_not_sent_or_refused_runs_again_under_its_key() {
        for state in [State::NotSent, State::Refused] {
            let situation = Situation {
                own: Some(known(state, 1)),
                ..Situation::default()
            };
            assert_eq!(decide(&asked(), &situation), Decision::Run);
        }
    }

    #[test]
    fn the_same_request_under_another_key_needs_the_word_intended() {
        let twin = known(State::Done, 1);
        let situation = Situation {
            twin: Some(twin),
            ..Situation::default()
        };
        assert_eq!(
            decide(&asked(), &situation),
            Decision::Refuse(Refusal::Duplicate(twin))
        );
        let intended = Asked {
            repeat: Repeat::Intended,
            ..asked()
        };
        assert_eq!(decide(&intended, &situation), Decision::Run);
        // Whether or not the twin's answer has reached anybody.
        let unheard = Situation {
            holder: Some(twin),
            ..situation
        };
        assert_eq!(
            decide(&asked(), &unheard),
            Decision::Refuse(Refusal::Duplicate(twin))
        );
        // The word does not open a held subject.
        let held = Situation {
            holder: Some(twin),
            ..situation
        };
        assert_eq!(
            decide(&intended, &held),
            Decision::Refuse(Refusal::SubjectBusy(twin))
        );
    }

    #[test]
    fn a_frozen_journal_runs_nothing_and_tells_what_it_knows() {
        let frozen = |own| {
            let situation = Situation {
                closed: Some(Closed::Frozen),
                own,
                ..Situation::default()
            };
            decide(&asked(), &situation)
        };
        let done = known(State::Done, 1);
        let sent = known(State::Sent, 1);
        assert_eq!(frozen(Some(done)), Decision::Replay(done));
        assert_eq!(
            frozen(Some(sent)),
            Decision::Refuse(Refusal::InFlight(sent))
        );
        for own in [None, Some(known(State::NotSent, 1))] {
            assert_eq!(
                frozen(own),
                Decision::Refuse(Refusal::Closed(Closed::Frozen))
            );
        }
        assert_eq!(decide(&asked(), &Situation::default()), Decision::Run);
    }

    #[test]
    fn a_misspelt_repeat_is_no_repeat() {
        assert_eq!(Repeat::parse(None), Ok(Repeat::Mistaken));
        assert_eq!(Repeat::parse(Some(b"intended")), Ok(Repeat::Intended));
        assert_eq!(Repeat::parse(Some(b"Intended")), Err(RepeatError));
        assert_eq!(Repeat::parse(Some(b"")), Err(RepeatError));
    }
}
