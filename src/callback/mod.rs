//! The story of a notification: accept, head, path, body, proof, journal, answer. Delivery is [`worker`]'s, and never
//! delays the answer.
//!
//! The body stays shut until `policy/signature` has accepted it; what the bank is told is one answer for every rejection,
//! and the record says which.

pub mod alarm;
pub mod record;
pub mod rejected;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request};
use hyper::body::Incoming;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::audit::{self, Audit};
use crate::config::callback::Answer;
use crate::config::{Limits, Timeouts};
use crate::journal::inbox::{Accepted, Event};
use crate::journal::{Journal, JournalError};
use crate::net::accept::Accepted as Connection;
use crate::net::body::{self, BodyError};
use crate::net::clock::unix_millis;
use crate::net::denials::{self, Denials};
use crate::net::guard::{self, Handle};
use crate::net::ids::RequestIds;
use crate::net::peer::Peer;
use crate::net::respond::{self, Reply};
use crate::net::serve;
use crate::net::sockdiag::SockDiag;
use crate::policy::caller::{self, Verdict as Admission};
use crate::policy::denial::Cause;
use crate::policy::event;
use crate::policy::head::{self, Rules as HeadRules};
use crate::policy::operation::MediaType;
use crate::policy::problem::{Code, Problem};
use crate::policy::signature::{Head, Reason, Verdict, Verified, Verifier};
use crate::policy::status::Policy;
use record::{Counts, Record};
use rejected::{Rejected, RejectedBody};

/// What a reload replaces, as one piece.
#[derive(Debug)]
pub struct Generation {
    /// The exact path.
    pub path: String,
    /// The header of the signature.
    pub header: HeaderName,
    /// What a notification must prove.
    pub verifier: Verifier,
    /// The status for a well-formed signature that no key verifies.
    pub on_mismatch: u16,
    /// What in it says which event it is.
    pub event: event::Rules,
    /// What of contradictions.
    pub policy: Policy,
    /// Content types that are taken; empty for any.
    pub content_types: Vec<MediaType>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
    /// For each listener, the uids that may connect, if not everybody.
    pub callers: Vec<Option<Vec<u32>>>,
    /// What the bank wants to hear.
    pub answer: Answer,
}

/// One callback: what stays while generations come and go.
#[derive(Debug)]
pub struct Callback {
    /// Its name.
    pub name: Arc<str>,
    /// The generation in force.
    pub current: watch::Receiver<Arc<Generation>>,
    /// Told to stop.
    pub draining: watch::Receiver<bool>,
    /// Where events are kept.
    pub journal: Journal,
    /// Wakes the worker.
    pub wake: Arc<Notify>,
    /// Verifications at a time: each holds a thread.
    pub verifying: Arc<Semaphore>,
    /// What could not be verified, for operators.
    pub rejected: Arc<Rejected>,
    /// What became of notifications.
    pub counts: Arc<Counts>,
    /// The audit log, if one is kept.
    pub audit: Option<Audit>,
    /// Names for records.
    pub ids: Arc<RequestIds>,
    /// There if a TCP listener has callers.
    pub diag: Option<Arc<SockDiag>>,
    /// Who was denied.
    pub denials: Arc<Denials>,
}

/// One caller's connection.
#[derive(Debug)]
struct Caller {
    listener: Arc<str>,
    index: usize,
    peer: Peer,
}

impl Generation {
    /// Who may connect to a listener, if not everybody.
    fn callers_of(&self, index: usize) -> Option<&[u32]> {
        self.callers.get(index).and_then(Option::as_deref)
    }
}

/// Why whoever is at the other end is none of the callers, if it is none.
fn denied(callers: &[u32], peer: &Peer) -> Option<Cause> {
    let proved = peer.prove().ok();
    let allowed = caller::judge_uid(callers, proved) == Admission::Allow;
    (!allowed).then(|| proved.map_or(Cause::Unproven, |_| Cause::NotListed))
}

impl Callback {
    /// Serves one accepted connection of the listener `index` to its end.
    pub async fn connection(
        self: Arc<Self>,
        accepted: Connection,
        listener: Arc<str>,
        index: usize,
        place: OwnedSemaphorePermit,
    ) {
        let generation = Arc::clone(&self.current.borrow());
        let (timeouts, limits) = (&generation.timeouts, &generation.limits);
        let rules = HeadRules {
            max_bytes: limits.head,
            max_headers: limits.headers,
        };
        let peer = Peer::of(&accepted, self.diag.as_ref());
        // Now, while the caller is most likely to be there: what it is told stands for the whole connection.
        let cause = generation
            .callers_of(index)
            .and_then(|callers| denied(callers, &peer));
        let (place, longest) = match cause {
            None => (Some(place), Duration::MAX),
            Some(_) => {
                drop(place);
                (self.denials.place(), denials::IDLE)
            }
        };
        let Some(_place) = place else {
            if let Some(cause) = cause {
                self.denials.note(&listener, peer.known_uid(), cause);
            }
            return;
        };
        let settings = serve::settings(
            rules,
            timeouts.head.min(longest),
            timeouts.idle.min(longest),
            timeouts.total,
            limits.linger,
        );
        drop(generation);
        let caller = Arc::new(Caller {
            listener,
            index,
            peer,
        });
        let drain = self.draining.clone();
        let service = move |request, handle: Handle| {
            let (callback, caller) = (Arc::clone(&self), Arc::clone(&caller));
            async move { callback.answer(&caller, request, &handle).await }
        };
        match accepted {
            Connection::Tcp(stream) => {
                let _ = stream.set_nodelay(true);
                serve::connection(stream, settings, drain, service).await;
            }
            Connection::Unix(stream) => {
                serve::connection(stream, settings, drain, service).await;
            }
        }
    }

    async fn answer(&self, caller: &Caller, request: Request<Incoming>, handle: &Handle) -> Reply {
        let started = handle.head_started().unwrap_or_else(Instant::now);
        let refused_head = handle.take_refusal();
        let mut record = Record::begin(
            &self.name,
            &self.counts,
            caller.peer.known_uid(),
            started,
            self.ids.next(),
        );
        let generation = Arc::clone(&self.current.borrow());
        match self
            .story(&generation, caller, request, refused_head, &mut record)
            .await
        {
            Ok(()) => {
                record.finish(generation.answer.status, "", false);
                let body = generation.answer.body.clone();
                respond::plain(generation.answer.status, "application/json", body)
            }
            Err(Refusal::Problem(problem)) => {
                record.finish(problem.code.row().status, problem.code.row().code, false);
                let allow = (problem.code == Code::MethodNotAllowed).then_some("POST");
                respond::problem(&problem, record.id(), allow)
            }
            Err(Refusal::Rejected(reason)) => {
                let status = if reason.is_mismatch() {
                    generation.on_mismatch
                } else if reason.is_ours() {
                    503
                } else {
                    403
                };
                record.finish(status, reason.as_str(), true);
                self.rejected(caller, reason.as_str());
                // One answer for all of them: whoever tries signatures learns nothing from it.
                let mut reply = respond::plain(status, "application/json", "{}".to_owned());
                if status == 503 {
                    let later = HeaderValue::from_static("60");
                    reply.headers_mut().insert(http::header::RETRY_AFTER, later);
                }
                reply
            }
        }
    }

    /// For the audit log: as many as a stranger likes are one record a second.
    fn rejected(&self, caller: &Caller, code: &'static str) {
        if let Some(audit) = &self.audit {
            audit.rejected(audit::Rejected {
                callback: Arc::clone(&self.name),
                listener: Arc::clone(&caller.listener),
                uid: caller.peer.prove().ok(),
                code,
            });
        }
    }

    async fn story(
        &self,
        generation: &Arc<Generation>,
        caller: &Caller,
        request: Request<Incoming>,
        refused_head: Option<guard::Refusal>,
        record: &mut Record<'_>,
    ) -> Result<(), Refusal> {
        let callers = generation.callers_of(caller.index);
        if let Some(cause) = callers.and_then(|callers| denied(callers, &caller.peer)) {
            let uid = caller.peer.known_uid();
            self.denials.note(&caller.listener, uid, cause);
            return Err(Problem::new(Code::CallerDenied, "this listener has callers").into());
        }
        if let Some(refusal) = refused_head {
            return Err(head_problem(&refusal).into());
        }
        let (parts, body) = request.into_parts();
        // The query is not signed, and nobody asks for it: dropped, not judged.
        if parts.uri.path() != generation.path {
            return Err(Problem::new(Code::RouteNotFound, "not the path of this callback").into());
        }
        if parts.method != http::Method::POST {
            return Err(Problem::new(Code::MethodNotAllowed, "this path takes POST").into());
        }
        let content_type = parts.headers.get(CONTENT_TYPE).cloned();
        let unwanted = parts.headers.contains_key(CONTENT_ENCODING)
            || !generation.content_types.is_empty()
                && !generation
                    .content_types
                    .iter()
                    .any(|media| media.is(content_type.as_ref().map(HeaderValue::as_bytes)));
        if unwanted {
            return Err(
                Problem::new(Code::UnsupportedMediaType, "not a type of this callback").into(),
            );
        }
        let deadline = Instant::now() + generation.timeouts.body;
        let body = read(body, generation.limits.request_body, deadline).await?;
        record.bytes_in(body.len());
        let head = Head {
            method: &parts.method,
            path: parts.uri.path(),
            headers: &parts.headers,
        };
        let verdict = self.verify(generation, &head, body.clone()).await?;
        let verified = match verdict {
            Verdict::Accepted(verified) => verified,
            Verdict::Rejected(reason) => {
                if reason.is_mismatch() {
                    let message = generation.verifier.message();
                    self.rejected.keep(RejectedBody {
                        at: unix_millis(),
                        reason: reason.as_str(),
                        headers: rejected::looked_at(&generation.header, message, head.headers),
                        body,
                    });
                }
                return Err(Refusal::Rejected(reason));
            }
        };
        let accepted = self
            .keep(generation, verified, &head, content_type.as_ref(), record)
            .await?;
        record.accepted(&accepted);
        Ok(())
    }

    /// Arithmetic with big numbers takes up to some milliseconds: a bounded number at a time, each on a blocking thread.
    async fn verify(
        &self,
        generation: &Arc<Generation>,
        head: &Head<'_>,
        body: Bytes,
    ) -> Result<Verdict, Refusal> {
        let deadline = Instant::now() + generation.timeouts.body;
        let overloaded = || Problem::new(Code::Overloaded, "too many verifications at a time");
        let place = timeout_at(deadline, Arc::clone(&self.verifying).acquire_owned());
        let Ok(Ok(place)) = place.await else {
            return Err(overloaded().into());
        };
        let generation = Arc::clone(generation);
        let (method, path) = (head.method.clone(), head.path.to_owned());
        let headers = head.headers.clone();
        let judged = tokio::task::spawn_blocking(move || {
            let _place = place;
            let head = Head {
                method: &method,
                path: &path,
                headers: &headers,
            };
            generation.verifier.judge(&head, body, unix_millis())
        });
        judged.await.map_err(|_| overloaded().into())
    }

    async fn keep(
        &self,
        generation: &Generation,
        verified: Verified,
        head: &Head<'_>,
        content_type: Option<&HeaderValue>,
        record: &mut Record<'_>,
    ) -> Result<Accepted, Refusal> {
        let key_id = verified.key_id().to_owned();
        record.key(&key_id);
        let body = verified.into_body();
        let identity = generation.event.identify(head.headers, &body);
        record.event(&identity);
        let event = Event {
            source: self.name.to_string(),
            event: identity.id,
            body_hash: identity.body_hash,
            session: identity.session,
            status: identity.status,
            key_id,
            content_type: content_type
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            body,
        };
        // On a task of its own: what is on disk is delivered, also when the bank hangs up before it is told.
        let (journal, wake) = (self.journal.clone(), Arc::clone(&self.wake));
        let policy = generation.policy;
        let accept = tokio::spawn(async move {
            let accepted = journal.accept(event, policy, unix_millis()).await;
            wake.notify_one();
            accepted
        });
        let deadline = Instant::now() + generation.timeouts.total;
        match timeout_at(deadline, accept).await {
            Ok(Ok(Ok(accepted))) => Ok(accepted),
            Ok(Ok(Err(error))) => Err(unavailable(&error).into()),
            Ok(Err(lost)) => Err(unavailable(&JournalError::Internal(lost.to_string())).into()),
            Err(_) => Err(unavailable(&JournalError::Busy).into()),
        }
    }
}

/// What the bank is told instead of its answer.
enum Refusal {
    Problem(Problem),
    Rejected(Reason),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

async fn read(body: Incoming, limit: usize, deadline: Instant) -> Result<Bytes, Problem> {
    body::read(body, limit, deadline)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge => Problem::new(Code::BodyTooLarge, "above limits.request_body"),
            BodyError::TimedOut => Problem::new(Code::RequestTimeout, "not within timeouts.body"),
            BodyError::Gone(_) => Problem::new(Code::BadRequest, "the body was cut short"),
        })
}

fn unavailable(error: &JournalError) -> Problem {
    // The cause is for the operator's log: the bank is on the other side of the internet.
    tracing::warn!(%error, "a verified event was not kept; the bank is asked to send it again");
    Problem::new(Code::JournalUnavailable, "not kept: send it again")
}

fn head_problem(refusal: &guard::Refusal) -> Problem {
    match refusal {
        guard::Refusal::Head(head::Refusal::Malformed(reason)) => {
            Problem::new(Code::BadRequest, reason.as_str())
        }
        guard::Refusal::Head(head::Refusal::LengthRequired) => {
            Problem::new(Code::LengthRequired, "send Content-Length")
        }
        guard::Refusal::Head(head::Refusal::TooLarge) => {
            Problem::new(Code::HeadTooLarge, "above limits.head or limits.headers")
        }
        guard::Refusal::TimedOut => Problem::new(Code::RequestTimeout, "not within timeouts.head"),
        guard::Refusal::Incomplete | guard::Refusal::Lost(_) => {
            Problem::new(Code::BadRequest, "the head was cut short")
        }
    }
}
