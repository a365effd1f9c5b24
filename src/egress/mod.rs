//! The story of a request from PHP to the bank: accept, caller, head, route, headers, body, bank, answer, record.
//!
//! It decides nothing itself: it asks the policies in the contract's order and turns each refusal into a problem.

pub mod callers;
mod guarded;
pub mod record;

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_ENCODING;
use http::{HeaderName, HeaderValue, Request};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use crate::audit::Audit;
use crate::bank::{Bank, Outbound};
use crate::config::{Limits, Timeouts};
use crate::journal::{self, Journal};
use crate::metrics::{Meter, Requests};
use crate::net::accept::Accepted;
use crate::net::body::{self, BodyError};
use crate::net::clock::unix_millis;
use crate::net::denials::{self, Denials};
use crate::net::guard::{self, Handle};
use crate::net::ids::RequestIds;
use crate::net::peer::Peer;
use crate::net::presence::Presence;
use crate::net::respond::{self, PassedOn, Reply};
use crate::net::serve;
use crate::policy::caller::Access;
use crate::policy::head::{self, Rules};
use crate::policy::headers;
use crate::policy::operation::{Reference, State};
use crate::policy::outcome::Outcome;
use crate::policy::problem::{Code, Problem};
use crate::policy::route::{self, Method, Route, Verdict as RouteVerdict};
use crate::tls::identity::Leaf;
use crate::tls::store::Store;
use callers::Callers;
use guarded::Guarded;
use record::{Audited, Record};

/// Everything about one bank that a reload replaces, as one piece.
#[derive(Debug)]
pub struct Generation {
    /// 1 at start, one more with each reload.
    pub number: u64,
    /// The allow-list.
    pub routes: Vec<Route>,
    /// Where the requests of each route are counted, in the order of the allow-list.
    pub meters: Vec<Arc<Meter>>,
    /// Further request headers that pass.
    pub pass: Vec<HeaderName>,
    /// Headers that we add.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
    /// What each listener asks of its callers, in the order of the config.
    pub access: Vec<Access>,
    /// The way to the bank.
    pub bank: Bank,
    /// The bank's origin, for the status.
    pub url: String,
    /// Our certificate and its key, for the status; `None` for plaintext.
    pub identity: Option<Arc<Store>>,
    /// The certificates of `trust.ca_file`, for the status.
    pub cas: Vec<Leaf>,
}

/// One bank's egress: what stays while generations come and go.
#[derive(Debug)]
pub struct Egress {
    name: String,
    current: watch::Receiver<Arc<Generation>>,
    draining: watch::Receiver<bool>,
    requests: Arc<Requests>,
    ids: Arc<RequestIds>,
    journal: Option<Journal>,
    audited: Option<Audited>,
    callers: Callers,
}

impl Generation {
    /// Where the requests of a route of this allow-list are counted.
    fn meter(&self, route: &Route) -> Option<&Meter> {
        let mut pairs = self.routes.iter().zip(&self.meters);
        let found = pairs.find(|(one, _)| std::ptr::eq(*one, route));
        found.map(|(_, meter)| &**meter)
    }
}

/// One caller's connection, judged once.
#[derive(Debug)]
struct Caller {
    listener: Arc<str>,
    index: usize,
    peer: Peer,
    /// For guarded requests: whether it is still there when its answer is.
    presence: Option<Presence>,
}

impl Caller {
    /// Whether an answer can be handed over. Where that cannot be seen it counts as not.
    fn is_there(&self) -> bool {
        self.presence.as_ref().is_some_and(Presence::is_there)
    }
}

/// A refusal on its way out: the problem, what the log adds, and the `Allow` header of a 405.
struct Refusal {
    problem: Problem,
    cause: String,
    allow: Option<String>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            cause: String::new(),
            allow: None,
        }
    }
}

impl Egress {
    /// Joins the parts.
    #[must_use]
    pub fn new(
        name: String,
        current: watch::Receiver<Arc<Generation>>,
        draining: watch::Receiver<bool>,
        ids: Arc<RequestIds>,
        journal: Option<Journal>,
        callers: Callers,
        requests: Arc<Requests>,
    ) -> Self {
        Self {
            name,
            current,
            draining,
            requests,
            ids,
            journal,
            audited: None,
            callers,
        }
    }

    /// Requests go to the audit log as well.
    #[must_use]
    pub fn audited(mut self, audit: Option<&Audit>) -> Self {
        self.audited = audit.map(|audit| Audited {
            audit: audit.clone(),
            bank: self.name.as_str().into(),
        });
        self
    }

    /// The generation that serves new requests.
    #[must_use]
    pub fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.current.borrow())
    }

    /// What became of the requests so far.
    #[must_use]
    pub fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// Who was denied.
    #[must_use]
    pub fn denials(&self) -> &Denials {
        &self.callers.denials
    }

    /// The bank's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Serves one accepted connection of the listener `index` to its end.
    pub async fn connection(
        self: Arc<Self>,
        accepted: Accepted,
        listener: Arc<str>,
        index: usize,
        place: OwnedSemaphorePermit,
    ) {
        let generation = self.generation();
        let (timeouts, limits) = (&generation.timeouts, &generation.limits);
        let rules = Rules {
            max_bytes: limits.head,
            max_headers: limits.headers,
        };
        let peer = Peer::of(&accepted, self.callers.diag.as_ref());
        // Now, while the caller is most likely to be there: what it is told stands for the whole connection.
        let access = generation.access.get(index);
        let allowed = access.is_none_or(|access| self.callers.knows(access, &peer));
        let (place, longest) = if allowed {
            (Some(place), Duration::MAX)
        } else {
            drop(place);
            (self.callers.denials.place(), denials::IDLE)
        };
        let Some(_place) = place else {
            if let Some(access) = access {
                // Counted, as every denial is.
                let _ = self.callers.admit_uid(access, &listener, &peer);
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
        let guards = self.journal.is_some();
        let presence = guards.then(|| match &accepted {
            Accepted::Tcp(stream) => Presence::of(stream),
            Accepted::Unix(stream) => Presence::of(stream),
        });
        let caller = Arc::new(Caller {
            listener,
            index,
            peer,
            presence: presence.and_then(Result::ok),
        });
        let service = {
            let (egress, caller) = (Arc::clone(&self), Arc::clone(&caller));
            move |request, handle: Handle| {
                let (egress, caller) = (Arc::clone(&egress), Arc::clone(&caller));
                async move { egress.answer(&caller, request, &handle).await }
            }
        };
        let drain = self.draining.clone();
        let handle = match accepted {
            Accepted::Tcp(stream) => {
                // An answer is small and complete: send it at once.
                let _ = stream.set_nodelay(true);
                serve::connection(stream, settings, drain, service).await
            }
            Accepted::Unix(stream) => serve::connection(stream, settings, drain, service).await,
        };
        // A head that had begun when the connection ended (a drain, mostly): a request that nobody answered.
        if handle.unserved() {
            let mut record = self.record(&caller, Instant::now(), self.ids.next());
            if *self.draining.borrow() {
                record.finish_refused(&draining(), "");
            }
        }
    }

    fn record(&self, caller: &Caller, started: Instant, id: String) -> Record<'_> {
        Record::begin(
            &self.name,
            self.requests.unrouted(),
            &caller.listener,
            caller.peer.known_uid(),
            started,
            id,
        )
        .audited(self.audited.as_ref())
    }

    async fn answer(&self, caller: &Caller, request: Request<Incoming>, handle: &Handle) -> Reply {
        let started = handle.head_started().unwrap_or_else(Instant::now);
        let refused_head = handle.take_refusal();
        let id = match (&refused_head, request.headers().get(headers::X_REQUEST_ID)) {
            (None, Some(id)) if headers::is_sane_request_id(id.as_bytes()) => {
                id.to_str().map_or_else(|_| self.ids.next(), str::to_owned)
            }
            _ => self.ids.next(),
        };
        // Before the record, which counts where the generation says.
        let generation = self.generation();
        let mut record = self.record(caller, started, id);
        match self
            .story(&generation, caller, request, refused_head, &mut record)
            .await
        {
            Ok(answer) => {
                if let Some(operation) = answer.operation {
                    record.operation(operation);
                    self.hand_over(operation, caller);
                }
                let status = answer.status.as_u16();
                record.finish_answered(status, answer.body.len(), answer.outcome);
                respond::passed_on(answer, record.id())
            }
            Err(refusal) => {
                record.finish_refused(&refusal.problem, &refusal.cause);
                respond::problem(&refusal.problem, record.id(), refusal.allow.as_deref())
            }
        }
    }

    /// The answer of a `done` operation is about to be written to a caller that is there: its subject is free.
    fn hand_over(&self, operation: Reference, caller: &Caller) {
        if let Some(journal) = &self.journal
            && operation.state == State::Done
            && caller.is_there()
        {
            journal.delivered(operation.id, unix_millis());
        }
    }

    /// The contract's order (design: accept → caller check → parse → route → headers → connection → send → answer).
    async fn story<'g>(
        &self,
        generation: &'g Arc<Generation>,
        caller: &Caller,
        request: Request<Incoming>,
        refused_head: Option<guard::Refusal>,
        record: &mut Record<'g>,
    ) -> Result<PassedOn, Refusal> {
        let access = generation
            .access
            .get(caller.index)
            .ok_or_else(listener_unknown)?;
        // A uid is known before a byte is read; a token only after the head was.
        self.callers
            .admit_uid(access, &caller.listener, &caller.peer)?;
        if let Some(refusal) = refused_head {
            return Err(head_problem(&refusal, record).into());
        }
        let (parts, body) = request.into_parts();
        let tokens = headers::tokens(&parts.headers);
        let token = self
            .callers
            .admit_token(access, &caller.listener, &caller.peer, &tokens)?;
        record.token(token);
        let method = Method::parse(parts.method.as_str());
        record.method(method);
        let target = parts.uri.path_and_query();
        let path = target.map_or("/", |target| target.path());
        let query = target.is_some_and(|target| target.query().is_some());
        let route = match route::find(&generation.routes, parts.method.as_str(), path, query) {
            RouteVerdict::Allow(route) => route,
            verdict => return Err(route_refusal(verdict, &generation.routes, path)),
        };
        if let Some(meter) = generation.meter(route) {
            record.route(&route.name, meter);
        }
        headers::judge(&parts.headers, &generation.pass, caller.peer.is_tcp())
            .map_err(header_problem)?;
        let total = record.started() + generation.timeouts.total;
        let body = self.body(generation, body, total, record).await?;
        let mut sent = headers::towards_bank(&parts.headers, &generation.pass, &generation.set);
        if let Ok(id) = HeaderValue::from_str(record.id()) {
            sent.insert(headers::X_REQUEST_ID, id);
        }
        let outbound = Outbound {
            method: route.method.as_str(),
            target: target.map_or_else(|| "/".to_owned(), |target| target.as_str().to_owned()),
            headers: sent,
            body,
        };
        let asked = match &route.rules {
            None => None,
            Some(rules) => {
                let target = &outbound.target;
                guarded::asked(
                    &self.name,
                    route,
                    rules,
                    &parts.headers,
                    target,
                    &outbound.body,
                )?
                .map(|asked| (Arc::clone(rules), asked))
            }
        };
        let Some((rules, asked)) = asked else {
            let sent = generation
                .bank
                .send(outbound, route.connection, total, |outcome| {
                    record.if_dropped(outcome)
                });
            let answer = sent.await.map_err(|refused| Refusal::from(*refused))?;
            return Ok(PassedOn {
                status: answer.status,
                headers: headers::towards_caller(answer.headers),
                body: answer.body,
                outcome: Outcome::Answered,
                operation: None,
                replayed: false,
            });
        };
        let Some(journal) = &self.journal else {
            return Err(no_journal().into());
        };
        let asked = journal::Request {
            uid: caller.peer.known_uid(),
            request_id: record.id().to_owned(),
            ..asked
        };
        let guarded = Guarded {
            generation: Arc::clone(generation),
            journal: journal.clone(),
            rules,
            connection: route.connection,
            outbound,
            total,
        };
        // Boxed, so that requests that are not guarded do not carry its state around.
        Box::pin(guarded.run(asked, || record.if_dropped(Outcome::Unknown))).await
    }

    async fn body(
        &self,
        generation: &Generation,
        body: Incoming,
        total: Instant,
        record: &mut Record<'_>,
    ) -> Result<bytes::Bytes, Refusal> {
        let deadline = (Instant::now() + generation.timeouts.body).min(total);
        let limit = generation.limits.request_body;
        match body::read(body, limit, deadline).await {
            Ok(body) => {
                record.bytes_in(body.len());
                Ok(body)
            }
            Err(BodyError::TooLarge) => Err(Problem::new(
                Code::BodyTooLarge,
                format!(
                    "the body is larger than limits.request_body ({limit} bytes). Nothing was sent"
                ),
            )
            .into()),
            Err(BodyError::TimedOut) => Err(Problem::new(
                Code::RequestTimeout,
                "the body did not arrive within timeouts.body. Nothing was sent",
            )
            .into()),
            Err(BodyError::Gone(_)) => {
                record.caller_gone();
                let detail =
                    "the body ended before Content-Length bytes had arrived. Nothing was sent";
                Err(Problem::new(Code::BadRequest, detail).into())
            }
        }
    }
}

/// A guarded route without a journal: the config's check and a reload's refuse that.
fn no_journal() -> Problem {
    Problem::new(
        Code::JournalUnavailable,
        "this gate was started without a journal; restart it. Nothing was sent",
    )
}

fn draining() -> Problem {
    Problem::new(
        Code::Draining,
        "the gate is shutting down; try again in a moment. Nothing was sent",
    )
}

/// A listener without an entry in the generation: cannot happen while a reload refuses to change listeners.
fn listener_unknown() -> Refusal {
    Problem::new(Code::CallerDenied, "this listener is no longer configured").into()
}

fn head_problem(refusal: &guard::Refusal, record: &mut Record<'_>) -> Problem {
    match refusal {
        guard::Refusal::Head(head::Refusal::Malformed(reason)) => Problem::new(
            Code::BadRequest,
            format!("{}. Nothing was sent", reason.as_str()),
        ),
        guard::Refusal::Head(head::Refusal::LengthRequired) => Problem::new(
            Code::LengthRequired,
            "Transfer-Encoding is not accepted: send Content-Length. Nothing was sent",
        ),
        guard::Refusal::Head(head::Refusal::TooLarge) => Problem::new(
            Code::HeadTooLarge,
            "the head is above limits.head or limits.headers. Nothing was sent",
        ),
        guard::Refusal::TimedOut => Problem::new(
            Code::RequestTimeout,
            "the head did not arrive within timeouts.head. Nothing was sent",
        ),
        guard::Refusal::Incomplete | guard::Refusal::Lost(_) => {
            record.caller_gone();
            Problem::new(
                Code::BadRequest,
                "the head ended before its empty line. Nothing was sent",
            )
        }
    }
}

fn route_refusal(verdict: RouteVerdict<'_>, routes: &[Route], path: &str) -> Refusal {
    match verdict {
        RouteVerdict::MethodNotAllowed => {
            let allow = route::allowed_methods(routes, path);
            let detail = format!("this path takes {allow}. Nothing was sent");
            let problem = Problem::new(Code::MethodNotAllowed, detail);
            Refusal { problem, cause: String::new(), allow: Some(allow) }
        }
        RouteVerdict::QueryNotAllowed(route) => Problem::new(
            Code::BadRequest,
            format!("route {} takes no query; `query: true` would allow one. Nothing was sent", route.name),
        )
        .into(),
        RouteVerdict::NotFound | RouteVerdict::Allow(_) => Problem::new(
            Code::RouteNotFound,
            "no route of this bank has this path; paths are compared byte by byte. Nothing was sent",
        )
        .into(),
    }
}

fn header_problem(refusal: headers::Refusal) -> Refusal {
    use headers::Refusal as Header;
    let (code, detail) = match refusal {
        Header::Browser => (
            Code::BrowserRequest,
            "the request carries Origin or Sec-Fetch-*, as a browser's does. Nothing was sent"
                .to_owned(),
        ),
        Header::ContentEncoding => (
            Code::UnsupportedMediaType,
            format!(
                "{CONTENT_ENCODING} is only accepted where headers.pass names it. Nothing was sent"
            ),
        ),
        Header::Doubled(name) => (
            Code::BadRequest,
            format!("{name} stands more than once. Nothing was sent"),
        ),
        Header::Host => (
            Code::BadRequest,
            "Host must be 127.0.0.1, localhost or [::1] on this listener. Nothing was sent"
                .to_owned(),
        ),
        Header::Proxied(name) => (
            Code::ProxiedRequest,
            format!(
                "the request carries {name}: a proxy hands on somebody else's request. Nothing was sent"
            ),
        ),
        Header::Underscore => (
            Code::BadRequest,
            "a header name holds an underscore, which PHP folds into a hyphen. Nothing was sent"
                .to_owned(),
        ),
    };
    Problem::new(code, detail).into()
}
