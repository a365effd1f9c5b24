//! Sending one request: a place, a connection, the exchange, and one more try if provably nothing was sent.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Full;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::breaker::{Breaker, Permission};
use super::dial::{DialError, Dialler};
use super::pool::Pool;
use super::resolve::Resolver;
use crate::config::{self, Limits, Timeouts};
use crate::metrics::Histogram;
use crate::net::exchange::{self, Answer, AnswerLimits, Failed, Link};
use crate::policy::operation::BootTime;
use crate::policy::outcome::{self, End, Outcome};
use crate::policy::problem::{Code, Problem};
use crate::policy::route::Connection;
use crate::tls::client::HandshakeError;

/// One generation of a bank: built whole, published whole, retired whole.
#[derive(Debug)]
pub struct Bank {
    authority: HeaderValue,
    dialler: Dialler,
    resolver: Arc<Resolver>,
    pool: Arc<Pool>,
    breaker: Mutex<Breaker>,
    places: Semaphore,
    late: Semaphore,
    waiting: AtomicUsize,
    timeouts: Timeouts,
    limits: Limits,
    counts: Arc<Counts>,
}

/// Counts that outlive a generation.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections made.
    pub opened: AtomicU64,
    /// Requests sent over a connection that had served before.
    pub reused: AtomicU64,
    /// Connections that stand now.
    pub open: Arc<AtomicUsize>,
    /// How long requests waited for a place.
    pub queue: Histogram,
    /// From a request's first byte to the end of its answer.
    pub exchange: Histogram,
    /// Handshakes.
    pub handshake: Histogram,
}

/// A request for the bank, as the caller sent it and the policies let it through.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// The route's method.
    pub method: &'static str,
    /// Path and query, undecoded.
    pub target: String,
    /// Only what may pass.
    pub headers: HeaderMap,
    /// Byte for byte.
    pub body: Bytes,
}

/// No answer: what the caller is told, and what the operator's log says besides.
#[derive(Debug)]
pub struct Refused {
    /// For the caller.
    pub problem: Problem,
    /// For the log: the cause in the words of the layer that noticed it.
    pub cause: String,
}

impl Refused {
    fn new(problem: Problem, cause: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            problem,
            cause: cause.into(),
        })
    }
}

/// What a [`Bank`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The value of `Host`.
    pub authority: HeaderValue,
    /// How to connect.
    pub dialler: Dialler,
    /// Where to.
    pub resolver: Arc<Resolver>,
    /// What is kept.
    pub pool: config::Pool,
    /// When to stop dialling.
    pub breaker: config::Breaker,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
    /// Counts of all generations.
    pub counts: Arc<Counts>,
}

/// How long a probe waits for a bank that refuses the certificate after the handshake.
const SECOND_THOUGHTS: Duration = Duration::from_secs(1);

impl Bank {
    /// Makes a connection of its own, sends nothing on it, and gives how long that took. Neither pool nor breaker learn
    /// of it: a person asks.
    ///
    /// # Errors
    /// Why there is none, or why the bank did not keep it.
    pub async fn probe(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        let deadline = begun.checked_add(self.timeouts.connect).unwrap_or(begun);
        let addresses = self.resolver.addresses(deadline).await;
        let dialled = self.dialler.dial(&addresses, deadline).await;
        let link = dialled.map_err(|error| exchange::chain(&error))?;
        let took = begun.elapsed();
        match link.ends_within(SECOND_THOUGHTS).await {
            None => Ok(took),
            Some(why) => Err(why),
        }
    }
}

/// A place at the bank and a connection, for one request.
#[derive(Debug)]
pub struct Ready<'b> {
    bank: &'b Bank,
    place: Option<SemaphorePermit<'b>>,
    link: Link,
    connection: Connection,
}

/// A request under way whose caller may stop waiting while it goes on.
#[derive(Debug)]
pub struct LatePlace<'b>(#[expect(dead_code, reason = "held, not read")] SemaphorePermit<'b>);

impl<'b> Ready<'b> {
    /// Sends the request, which was committed as sent at `committed`, and gives the whole answer.
    ///
    /// # Errors
    /// [`Refused`]; its problem's outcome says whether the bank may have acted.
    pub async fn exchange(
        mut self,
        outbound: &Outbound,
        committed: BootTime,
        deadline: Instant,
    ) -> Result<Answer, Box<Refused>> {
        let request = self.bank.request(outbound)?;
        let limits = self.bank.answer_limits();
        self.link.first_byte_after(committed);
        let begun = Instant::now();
        let result = self.link.exchange(request, deadline, limits).await;
        self.bank.counts.exchange.observe(begun.elapsed());
        match result {
            Ok(answer) => {
                self.bank.keep(self.link, self.connection).await;
                Ok(answer)
            }
            Err(failed) => Err(self.bank.explain(outcome::judge(&failed.attempt), &failed)),
        }
    }

    /// Takes the place out: whoever holds it decides when another request may have it.
    pub fn take_place(&mut self) -> Option<SemaphorePermit<'b>> {
        self.place.take()
    }
}

impl Bank {
    /// Puts a generation together. Must be called inside the serving runtime.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            authority: parts.authority,
            dialler: parts.dialler,
            resolver: parts.resolver,
            pool: Pool::new(parts.pool),
            breaker: Mutex::new(Breaker::new(parts.breaker.failures, parts.breaker.cooldown)),
            places: Semaphore::new(parts.limits.concurrency),
            late: Semaphore::new(parts.limits.concurrency),
            waiting: AtomicUsize::new(0),
            timeouts: parts.timeouts,
            limits: parts.limits,
            counts: parts.counts,
        }
    }

    /// Sends a request and gives the whole answer. `on_outcome` is told what the outcome would be if the caller's
    /// handler were dropped at this moment: `Unknown` from just before the first byte may go out.
    ///
    /// # Errors
    /// [`Refused`]; its problem's outcome says whether the bank may have acted.
    pub async fn send(
        &self,
        outbound: Outbound,
        connection: Connection,
        total: Instant,
        mut on_outcome: impl FnMut(Outcome),
    ) -> Result<Answer, Box<Refused>> {
        let _place = self.place(total).await?;
        let mut first = true;
        loop {
            let mut link = self.link(connection, first, total).await?;
            let request = self.request(&outbound)?;
            let begun = Instant::now();
            let deadline = earlier(begun, self.timeouts.response, total);
            on_outcome(Outcome::Unknown);
            let result = link.exchange(request, deadline, self.answer_limits()).await;
            self.counts.exchange.observe(begun.elapsed());
            let failed = match result {
                Ok(answer) => {
                    self.keep(link, connection).await;
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let verdict = outcome::judge(&failed.attempt);
            on_outcome(verdict.outcome);
            let again = first
                && verdict.outcome == Outcome::NotSent
                && verdict.code != Code::IdentityRefused
                && failed.attempt.end != End::TimedOut;
            if !again {
                return Err(self.explain(verdict, &failed));
            }
            tracing::debug!(
                cause = failed.cause,
                "nothing was sent; trying once on a new connection"
            );
            first = false;
        }
    }

    /// A place and a connection for one request that is committed as sent before it is. It is never tried twice.
    ///
    /// # Errors
    /// [`Refused`]; nothing was sent.
    pub async fn ready(
        &self,
        connection: Connection,
        total: Instant,
    ) -> Result<Ready<'_>, Box<Refused>> {
        let place = self.place(total).await?;
        let link = self.link(connection, true, total).await?;
        Ok(Ready {
            bank: self,
            place: Some(place),
            link,
            connection,
        })
    }

    /// A connection: a kept one where that will do.
    async fn link(
        &self,
        connection: Connection,
        kept: bool,
        total: Instant,
    ) -> Result<Link, Box<Refused>> {
        let idle = match connection {
            Connection::Pooled if kept => self.pool.take(),
            Connection::Pooled | Connection::Fresh => None,
        };
        match idle {
            Some(link) => {
                self.counts.reused.fetch_add(1, Ordering::Relaxed);
                Ok(link)
            }
            None => self.connect(total).await,
        }
    }

    async fn keep(&self, mut link: Link, connection: Connection) {
        if connection == Connection::Pooled && link.is_done().await {
            self.pool.put(link);
        }
    }

    fn request(&self, outbound: &Outbound) -> Result<Request<Full<Bytes>>, Box<Refused>> {
        exchange::request(
            outbound.method,
            &outbound.target,
            &self.authority,
            outbound.headers.clone(),
            outbound.body.clone(),
        )
        .map_err(|error| {
            let problem = Problem::new(Code::BadRequest, "the request target cannot be sent");
            Refused::new(problem, error.to_string())
        })
    }

    /// Room to listen for a late answer, beside the places at the bank: as many again, so that what hangs there does not
    /// keep everybody else out.
    #[must_use]
    pub fn late_place(&self) -> Option<LatePlace<'_>> {
        self.late.try_acquire().ok().map(LatePlace)
    }

    /// Closes what is idle; requests that run end as they would have.
    pub fn retire(&self) {
        self.pool.retire();
    }

    /// Idle connections.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.pool.idle()
    }

    /// Requests at the bank, or on the way to it.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.limits
            .concurrency
            .saturating_sub(self.places.available_permits())
    }

    /// Requests that wait for a place.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The breaker's state, for the status.
    #[must_use]
    pub fn breaker_state(&self) -> &'static str {
        self.breaker().state()
    }

    /// The resolver: kept over a reload that does not change the name.
    #[must_use]
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }

    async fn place(&self, total: Instant) -> Result<SemaphorePermit<'_>, Box<Refused>> {
        if let Ok(permit) = self.places.try_acquire() {
            self.counts.queue.observe_nothing();
            return Ok(permit);
        }
        let overloaded = |detail: &str| Refused::new(Problem::new(Code::Overloaded, detail), "");
        let _waiting = Waiting::enter(&self.waiting, self.limits.queue).ok_or_else(|| {
            overloaded("limits.concurrency requests are at the bank and limits.queue are waiting; try again")
        })?;
        let begun = Instant::now();
        let until = earlier(begun, self.timeouts.connect, total);
        let acquired = timeout_at(until, self.places.acquire()).await;
        self.counts.queue.observe(begun.elapsed());
        match acquired {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(overloaded(
                "no place at the bank became free within timeouts.connect; try again",
            )),
        }
    }

    async fn connect(&self, total: Instant) -> Result<Link, Box<Refused>> {
        if self.breaker().ask(Instant::now()) == Permission::Refuse {
            let detail = "the bank was unreachable just now; it is dialled again after breaker.cooldown. \
                          Nothing was sent";
            return Err(Refused::new(
                Problem::new(Code::BankUnreachable, detail),
                "breaker open",
            ));
        }
        let mut trial = Trial {
            breaker: &self.breaker,
            settled: false,
        };
        let until = earlier(Instant::now(), self.timeouts.connect, total);
        let addresses = self.resolver.addresses(until).await;
        let result = self.dialler.dial(&addresses, until).await;
        if let Some(reachable) = result
            .as_ref()
            .map_or_else(DialError::reachable, |_| Some(true))
        {
            trial.settle(reachable);
        }
        let mut link =
            result.map_err(|error| Refused::new(problem_of(&error), error.to_string()))?;
        link.counted(&self.counts.open);
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        Ok(link)
    }

    fn explain(&self, verdict: outcome::Verdict, failed: &Failed) -> Box<Refused> {
        let what = failed.attempt.end.describe();
        let detail = match (verdict.code, verdict.outcome) {
            (Code::IdentityRefused, _) => {
                "the bank refused the client certificate before it read the request. Nothing was sent: check with the \
                 bank that this certificate is the registered one"
                    .to_owned()
            }
            (_, Outcome::NotSent) => format!("{what}. Nothing was sent: it is safe to try again"),
            (_, Outcome::Answered | Outcome::Unknown) => format!(
                "{what}. The bank may have acted on the request: ask the bank what became of it before repeating it"
            ),
        };
        let problem = Problem {
            outcome: verdict.outcome,
            ..Problem::new(verdict.code, detail)
        };
        Refused::new(problem, failed.cause.clone())
    }

    fn answer_limits(&self) -> AnswerLimits {
        AnswerLimits {
            head: self.limits.head,
            body: self.limits.response_body,
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `now + wait`, but not after `limit`.
fn earlier(now: Instant, wait: Duration, limit: Instant) -> Instant {
    now.checked_add(wait)
        .map_or(limit, |until| until.min(limit))
}

/// A place in the queue, given back on drop.
struct Waiting<'b>(&'b AtomicUsize);

impl<'b> Waiting<'b> {
    fn enter(count: &'b AtomicUsize, limit: usize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(count);
        (before < limit).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A permitted connect: told to the breaker, or given back if it taught nothing of the bank (the caller's handler was
/// dropped half way, or this machine was at its own limits).
struct Trial<'b> {
    breaker: &'b Mutex<Breaker>,
    settled: bool,
}

impl Trial<'_> {
    fn settle(&mut self, reachable: bool) {
        self.settled = true;
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        breaker.record(reachable, Instant::now());
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.breaker
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .abandon();
        }
    }
}

/// What a caller is told when there is no connection. Addresses stay in the log.
fn problem_of(error: &DialError) -> Problem {
    let (code, detail) = match error {
        DialError::NoAddress => (
            Code::BankUnreachable,
            "DNS: the bank's name does not resolve. Nothing was sent".to_owned(),
        ),
        DialError::Tcp { source, .. } => (
            Code::BankUnreachable,
            format!("TCP: no connection to the bank ({}). Nothing was sent", source.kind()),
        ),
        DialError::Http(_) | DialError::ThreadLost => (
            Code::BankUnreachable,
            "the connection to the bank could not be used. Nothing was sent".to_owned(),
        ),
        DialError::Exhausted(_) => (
            Code::Overloaded,
            "this machine gives no further connection (files, ports or memory); try again. Nothing was sent".to_owned(),
        ),
        DialError::ThreadsBusy => (
            Code::Overloaded,
            "no thread for a TLS handshake became free within timeouts.connect; try again, and see threads.handshakes"
                .to_owned(),
        ),
        DialError::TimedOut => {
            let detail = "no connection to the bank within timeouts.connect. Nothing was sent";
            return Problem::new(Code::BankTimeout, detail).not_sent();
        }
        DialError::Handshake { source, .. } => match source {
            HandshakeError::CertificateRefused(_) => (
                Code::IdentityRefused,
                "TLS: the bank refused the client certificate. Nothing was sent: check with the bank that this \
                 certificate is the registered one"
                    .to_owned(),
            ),
            HandshakeError::Failed(_) => (
                Code::BankUnreachable,
                "TLS: the handshake with the bank did not complete. Nothing was sent; the gate's log has the cause"
                    .to_owned(),
            ),
            HandshakeError::NotAsked => (
                Code::BankUntrusted,
                "TLS: the server asked for no client certificate, so it is not the bank's API. Nothing was sent: \
                 check url"
                    .to_owned(),
            ),
            HandshakeError::KeyChanged | HandshakeError::Signing(_) => (
                Code::IdentityUnavailable,
                "the private key could not sign the handshake. Nothing was sent; the gate's log has the cause"
                    .to_owned(),
            ),
            HandshakeError::Untrusted(reason) => (
                Code::BankUntrusted,
                format!("TLS: the server's certificate was not accepted: {reason}. Nothing was sent"),
            ),
        },
    };
    Problem::new(code, detail)
}
