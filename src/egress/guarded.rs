//! The story of a guarded request: reserve, connect, commit `sent`, first byte, outcome, commit, answer.
//!
//! It runs in a task of its own: a caller that hangs up cancels nothing, and one that was told `504` may find the answer
//! under its key later. What may happen is decided in `policy/operation`; here is only the order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{Generation, Refusal};
use crate::bank::{Outbound, Refused};
use crate::journal::{self, Attempt, Finish, Journal, JournalError, Reserved, StoredAnswer};
use crate::net::clock::unix_millis;
use crate::net::exchange::Answer;
use crate::net::respond::PassedOn;
use crate::policy::headers::{self, IDEMPOTENCY_KEY, PRIORGATE_REPEAT};
use crate::policy::operation::answer::Guard;
use crate::policy::operation::{
    self, Asked, Closed, Decision, Digest, Key, Known, Reference, Repeat, RepeatError, Rules,
    Situation, State, Subject, decide, fingerprint,
};
use crate::policy::outcome::Outcome;
use crate::policy::problem::{Code, Problem};
use crate::policy::route::{Connection, Route};

/// How long an answer waits for the commit of its outcome: what PHP's own time-out must be above `timeouts.total`. A disk
/// that takes longer keeps nobody from the bank's answer: the row is written when the disk can, or stays `sent`.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);

/// What a caller is told.
type Told = Result<PassedOn, Refusal>;

/// A request that is to run once.
pub(super) struct Guarded {
    pub(super) generation: Arc<Generation>,
    pub(super) journal: Journal,
    pub(super) rules: Arc<Rules>,
    pub(super) connection: Connection,
    pub(super) outbound: Outbound,
    pub(super) total: Instant,
}

/// What the journal must know of a request; `None` for one that is not guarded, since its route leaves it the choice and
/// it has no key.
pub(super) fn asked(
    bank: &str,
    route: &Route,
    rules: &Rules,
    headers: &HeaderMap,
    target: &str,
    body: &[u8],
) -> Result<Option<journal::Request>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return match rules.guard {
            Guard::Optional => Ok(None),
            Guard::Required => {
                let detail = "send an Idempotency-Key that is made once for each refund and kept with it: asking again \
                              under the same key can do no harm. Nothing was sent";
                Err(Problem::new(Code::IdempotencyKeyRequired, detail))
            }
        };
    };
    let bad = |error: &dyn std::fmt::Display| {
        Problem::new(Code::BadRequest, format!("{error}. Nothing was sent"))
    };
    let key = Key::parse(key.as_bytes()).map_err(|error| bad(&error))?;
    let mut repeat = headers.get_all(PRIORGATE_REPEAT).iter();
    let (repeat, twice) = (repeat.next(), repeat.next());
    let repeat = match twice {
        None => Repeat::parse(repeat.map(HeaderValue::as_bytes)),
        Some(_) => Err(RepeatError),
    };
    let repeat = repeat.map_err(|error| bad(&error))?;
    let subject = Subject::extract(&rules.subject, body).map_err(|error| {
        let detail =
            format!("{error}: the gate must know what the request is about. Nothing was sent");
        Problem::new(Code::SubjectRequired, detail)
    })?;
    Ok(Some(journal::Request {
        bank: bank.to_owned(),
        route: route.name.clone(),
        key: key.digest(bank),
        fingerprint: fingerprint(route.method.as_str(), target, body),
        subject: subject.map(|subject| journal::Subject {
            hash: subject.digest(bank),
            pointers: subject.pointers(),
            text: subject.text(),
        }),
        repeat,
        uid: None,
        request_id: String::new(),
    }))
}

impl Guarded {
    /// Runs the request, replays its answer, or refuses it. `on_run` is called when it is about to run.
    pub(super) async fn run(self, request: journal::Request, on_run: impl FnOnce()) -> Told {
        let (bank, key) = (request.bank.clone(), request.key);
        let asked = Asked {
            fingerprint: request.fingerprint,
            repeat: request.repeat,
        };
        let reserve = self.journal.reserve(request, unix_millis());
        let reserved = match timeout_at(self.total, reserve).await {
            Ok(Ok(reserved)) => reserved,
            Ok(Err(error)) => return self.recall(bank, key, &asked, unavailable(&error)).await,
            Err(_) => return self.recall(bank, key, &asked, slow_disk()).await,
        };
        let attempt = match reserved {
            Reserved::Refused(refusal) => return Err(refused(&refusal).into()),
            Reserved::Replay { operation, answer } => return Ok(replay(&operation, answer)),
            Reserved::Run(attempt) => attempt,
        };
        on_run();
        let (tell, told) = oneshot::channel();
        let id = attempt.id();
        tokio::spawn(self.operate(attempt, tell));
        told.await.unwrap_or_else(|_| {
            // The task ends without a word only with the runtime, or by a mistake of ours.
            let reference = Reference {
                id,
                state: State::Unknown,
            };
            let detail =
                "the operation was cut off; ask again with the same key for what became of it";
            Err(Problem::new(Code::OutcomeUnknown, detail)
                .about(reference)
                .into())
        })
    }

    /// The journal takes nothing new. What it knows under the key is told all the same: nobody may hear of nothing sent
    /// while its operation is at the bank.
    async fn recall(&self, bank: String, key: Digest, asked: &Asked, refusal: Refusal) -> Told {
        let Ok(known) = self.journal.recall(bank, key).await else {
            // Not even that: an earlier request under the key may have been sent.
            let detail = "the journal cannot be read now. This request was not sent; whether an earlier one under its key \
                          was is not known here: ask again with the same key, in a moment";
            let problem = Problem {
                outcome: Outcome::Unknown,
                ..Problem::new(Code::JournalUnavailable, detail)
            };
            return Err(Refusal { problem, ..refusal });
        };
        let (own, answer) = known.map_or((None, None), |(own, answer)| (Some(own), answer));
        let situation = Situation {
            own,
            ..Situation::default()
        };
        match decide(asked, &situation) {
            Decision::Replay(known) => Ok(replay(&known, answer)),
            Decision::Refuse(known) => Err(refused(&known).into()),
            Decision::Run => Err(refusal),
        }
    }

    async fn operate(self, mut attempt: Attempt, tell: oneshot::Sender<Told>) {
        let bank = &self.generation.bank;
        let mut ready = match bank.ready(self.connection, self.total).await {
            Ok(ready) => ready,
            Err(refused) => return self.not_sent(attempt, (*refused).into(), tell).await,
        };
        let sent = self.journal.mark_sent(&mut attempt, unix_millis());
        let committed = match timeout_at(self.total, sent).await {
            Ok(Ok(committed)) => committed,
            Ok(Err(error)) => return self.not_sent(attempt, unavailable(&error), tell).await,
            Err(_) => return self.not_sent(attempt, slow_disk(), tell).await,
        };
        let timeouts = &self.generation.timeouts;
        let started = Instant::now();
        let respond_by = started
            .checked_add(timeouts.response)
            .map_or(self.total, |until| until.min(self.total));
        let settle_by = started
            .checked_add(timeouts.settle)
            .map_or(respond_by, |until| until.max(respond_by));
        let place = ready.take_place();
        let exchange = ready.exchange(&self.outbound, committed, settle_by);
        tokio::pin!(exchange);
        let in_time = tokio::select! {
            biased;
            result = exchange.as_mut() => Some(result),
            () = sleep_until(respond_by) => None,
        };
        if let Some(result) = in_time {
            let told = self.settle(&mut attempt, result).await;
            // Whoever asked may be gone: the journal has it.
            let _ = tell.send(told);
            return;
        }
        let late = bank.late_place();
        let finish = Finish::Unknown {
            code: Code::BankTimeout.row().code,
            listening: late.is_some(),
        };
        let state = self.commit(&mut attempt, finish, State::Unknown).await;
        let _ = tell.send(Err(timed_out(&attempt, state, late.is_some()).into()));
        drop(place);
        if late.is_some() {
            let result = exchange.await;
            let told = self.settle(&mut attempt, result).await;
            let state = match &told {
                Ok(passed) => passed.operation,
                Err(refusal) => refusal.problem.operation,
            };
            if let Some(operation) = state {
                tracing::info!(%operation, "a late end of an operation");
            }
        }
    }

    /// Commits what the exchange came to, and gives what the caller is told.
    async fn settle(&self, attempt: &mut Attempt, result: Result<Answer, Box<Refused>>) -> Told {
        let id = attempt.id();
        let answer = match result {
            Ok(answer) => answer,
            Err(refused) => {
                let (finish, state) = match refused.problem.outcome {
                    Outcome::NotSent => (
                        Finish::NotSent {
                            code: refused.problem.code.row().code,
                        },
                        State::NotSent,
                    ),
                    Outcome::Answered | Outcome::Unknown => (
                        Finish::Unknown {
                            code: refused.problem.code.row().code,
                            listening: false,
                        },
                        State::Unknown,
                    ),
                };
                let state = self.commit(attempt, finish, state).await;
                return Err(about(*refused, Reference { id, state }));
            }
        };
        let content_type = answer.headers.get(header::CONTENT_TYPE);
        let ending = self.rules.classify(
            answer.status.as_u16(),
            content_type.map(HeaderValue::as_bytes),
        );
        let headers = headers::towards_caller(answer.headers);
        let finish = Finish::Answered {
            ending,
            answer: StoredAnswer {
                status: answer.status,
                headers: headers.clone(),
                body: answer.body.clone(),
            },
        };
        let state = self.commit(attempt, finish, ending.state()).await;
        Ok(PassedOn {
            status: answer.status,
            headers,
            body: answer.body,
            // The bank's answer is known, whatever our disk says.
            outcome: ending.state().outcome(),
            operation: Some(Reference { id, state }),
            replayed: false,
        })
    }

    /// Commits an end. If that fails the row stays as it was, and so does the state that the caller is told.
    async fn commit(&self, attempt: &mut Attempt, finish: Finish, wanted: State) -> State {
        let before = match wanted {
            // Nothing was sent, whatever the row says.
            State::NotSent => State::NotSent,
            _ => State::Sent,
        };
        let id = attempt.id();
        let finish = self.journal.finish(attempt, finish, unix_millis());
        match timeout(COMMIT_PATIENCE, finish).await {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => {
                tracing::error!(operation = %id, %error, "the outcome of an operation was not written");
                before
            }
            Err(_) => {
                tracing::error!(operation = %id, "the outcome of an operation waits for the disk");
                before
            }
        }
    }

    async fn not_sent(&self, mut attempt: Attempt, refusal: Refusal, tell: oneshot::Sender<Told>) {
        let finish = Finish::NotSent {
            code: refusal.problem.code.row().code,
        };
        let state = self.commit(&mut attempt, finish, State::NotSent).await;
        let reference = Reference {
            id: attempt.id(),
            state,
        };
        let _ = tell.send(Err(Refusal {
            problem: refusal.problem.about(reference),
            ..refusal
        }));
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self {
            problem: refused.problem,
            cause: refused.cause,
            allow: None,
        }
    }
}

/// The problem keeps its own outcome, which is what was proved of this attempt.
fn about(refused: Refused, reference: Reference) -> Refusal {
    let outcome = refused.problem.outcome;
    Refusal {
        problem: Problem {
            outcome,
            ..refused.problem.about(reference)
        },
        cause: refused.cause,
        allow: None,
    }
}

fn timed_out(attempt: &Attempt, state: State, listening: bool) -> Problem {
    let then = if listening {
        "the gate listens on until timeouts.settle, and asking again with the same key gives a late answer"
    } else {
        "asking again with the same key shows how it stands"
    };
    let detail = format!(
        "no complete answer came within timeouts.response. The bank may have acted on the request; {then}"
    );
    Problem {
        outcome: Outcome::Unknown,
        ..Problem::new(Code::BankTimeout, detail).about(Reference {
            id: attempt.id(),
            state,
        })
    }
}

fn replay(operation: &Known, answer: Option<StoredAnswer>) -> PassedOn {
    let answer = answer.unwrap_or_else(|| StoredAnswer {
        // Only what a person resolved without an answer has none.
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )]),
        body: Bytes::from_static(b"{}"),
    });
    PassedOn {
        status: answer.status,
        headers: answer.headers,
        body: answer.body,
        outcome: operation.standing.state.outcome(),
        operation: Some(operation.reference()),
        replayed: true,
    }
}

fn unavailable(error: &JournalError) -> Refusal {
    let what = match error {
        JournalError::Closed(Closed::Frozen) => {
            "guarded routes are frozen by an operator (`priorgate operations thaw` ends that)"
        }
        JournalError::Closed(Closed::Doubted) => {
            "the journal does not know what the audit log knows (it is new, or a restored backup), so a refund might be done \
             twice: `priorgate operations reconcile` takes what is missing from the audit log"
        }
        JournalError::Closed(Closed::AuditBehind) => {
            "the audit log is not written (is its disk full?), and nothing more may wait for it"
        }
        JournalError::Full => "the journal's disk is full; it is tried again when there is space",
        JournalError::Busy => "too much waits for the journal's disk; try again",
        JournalError::Held => "another program holds the journal; try again",
        JournalError::Failed => {
            "the journal's disk failed, and the gate restarts; try again in a moment"
        }
        JournalError::Internal(_)
        | JournalError::NotFound
        | JournalError::Forbidden(_)
        | JournalError::Stale => {
            "the journal did not take the operation; the gate's log has the cause"
        }
    };
    let problem = Problem::new(
        Code::JournalUnavailable,
        format!("{what}. Nothing was sent"),
    );
    Refusal {
        problem,
        cause: error.to_string(),
        allow: None,
    }
}

fn slow_disk() -> Refusal {
    let detail = "the journal's disk did not answer within timeouts.total. Nothing was sent";
    Problem::new(Code::JournalUnavailable, detail).into()
}

/// What a caller is told of a refusal, and what to do about it.
fn refused(refusal: &operation::Refusal) -> Problem {
    let (code, known, detail) = match refusal {
        operation::Refusal::Closed(closed) => {
            return unavailable(&JournalError::Closed(*closed)).problem;
        }
        operation::Refusal::KeyReused(known) => (
            Code::IdempotencyKeyReused,
            known,
            format!(
                "{} was another request under this key: each refund needs a key of its own, and a repeat must be the same \
                 byte for byte. Nothing was sent",
                known.id
            ),
        ),
        operation::Refusal::InFlight(known) => (
            Code::OperationInFlight,
            known,
            format!(
                "{} under this key is running: ask again with the same key for its answer. Nothing was sent a second time",
                known.id
            ),
        ),
        operation::Refusal::OutcomeUnknown(known) => (Code::OutcomeUnknown, known, unknown(known)),
        operation::Refusal::SubjectBusy(known) => (Code::SubjectBusy, known, busy(known)),
        operation::Refusal::Duplicate(known) => (
            Code::DuplicateRequest,
            known,
            format!(
                "the same request was done as {} within 24 hours, under another key. If it is really meant a second time, \
                 send `Priorgate-Repeat: intended`. Nothing was sent",
                known.id
            ),
        ),
    };
    Problem::new(code, detail).about(known.reference())
}

fn unknown(known: &Known) -> String {
    let id = known.id;
    if known.standing.listening {
        format!(
            "the bank has {id} and has not answered yet; the gate still listens: ask again with the same key. Nothing was \
             sent a second time"
        )
    } else {
        format!(
            "{id} may have reached the bank, and no answer is known. Nothing was sent a second time. Ask the bank whether it \
             has it; then an operator ends it with `priorgate operations resolve {id}`"
        )
    }
}

fn busy(known: &Known) -> String {
    let id = known.id;
    let why = match known.standing.state {
        State::Reserved | State::Sent => "is running",
        State::Done => "was done, but its answer has reached nobody",
        State::Unknown | State::Refused | State::NotSent => {
            "may have reached the bank, and no answer is known"
        }
    };
    format!(
        "another key's operation {id} on the same subject {why}: ask again with that key, or see `priorgate operations show \
         {id}`. Nothing was sent"
    )
}
