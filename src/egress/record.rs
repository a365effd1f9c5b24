//! Exactly one record for each request, whatever ends it.
//!
//! A [`Record`] is begun with a request's head and finished with its answer; dropped unfinished (the connection's task
//! was ended with the request still running) it writes `caller_gone` by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::audit::{Audit, Denied, Request};
use crate::net::clock::unix_millis;
use crate::policy::operation::Reference;
use crate::policy::outcome::Outcome;
use crate::policy::problem::{Code, Fault, Problem};
use crate::policy::route::Method;

/// How many requests ended with each outcome.
#[derive(Debug, Default)]
pub struct Counts {
    answered: AtomicU64,
    not_sent: AtomicU64,
    unknown: AtomicU64,
}

impl Counts {
    /// The count for an outcome.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.cell(outcome).load(Ordering::Relaxed)
    }

    fn cell(&self, outcome: Outcome) -> &AtomicU64 {
        match outcome {
            Outcome::Answered => &self.answered,
            Outcome::NotSent => &self.not_sent,
            Outcome::Unknown => &self.unknown,
        }
    }
}

/// The audit log, for the requests of one bank.
#[derive(Clone, Debug)]
pub struct Audited {
    /// The log.
    pub audit: Audit,
    /// The bank's name.
    pub bank: Arc<str>,
}

/// One request's record in the making.
#[derive(Debug)]
pub struct Record<'e> {
    bank: &'e str,
    counts: &'e Counts,
    audited: Option<&'e Audited>,
    listener: String,
    uid: Option<u32>,
    started: Instant,
    id: String,
    method: Option<Method>,
    route: String,
    bytes_in: usize,
    operation: Option<Reference>,
    gone: bool,
    outcome_if_dropped: Outcome,
    written: bool,
}

impl<'e> Record<'e> {
    /// Begins a record.
    #[must_use]
    pub fn begin(
        bank: &'e str,
        counts: &'e Counts,
        listener: &str,
        uid: Option<u32>,
        started: Instant,
        id: String,
    ) -> Self {
        Self {
            bank,
            counts,
            audited: None,
            listener: listener.to_owned(),
            uid,
            started,
            id,
            method: None,
            route: String::new(),
            bytes_in: 0,
            operation: None,
            gone: false,
            outcome_if_dropped: Outcome::NotSent,
            written: false,
        }
    }

    /// The audit log gets it as well.
    #[must_use]
    pub fn audited(mut self, audited: Option<&'e Audited>) -> Self {
        self.audited = audited;
        self
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When the head's first byte came.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// A method that a route may name; others are left out, since a caller can make up any token.
    pub fn method(&mut self, method: Option<Method>) {
        self.method = method;
    }

    /// The route's name; never the path, which holds ids.
    pub fn route(&mut self, name: &str) {
        name.clone_into(&mut self.route);
    }

    /// The body's size.
    pub fn bytes_in(&mut self, bytes: usize) {
        self.bytes_in = bytes;
    }

    /// The operation of a guarded request.
    pub fn operation(&mut self, operation: Reference) {
        self.operation = Some(operation);
    }

    /// The caller left before its request was complete; an answer is made all the same, in case it only closed its
    /// sending half.
    pub fn caller_gone(&mut self) {
        self.gone = true;
    }

    /// What the outcome is if nobody finishes this record.
    pub fn if_dropped(&mut self, outcome: Outcome) {
        self.outcome_if_dropped = outcome;
    }

    /// The bank's answer is passed on.
    pub fn finish_answered(&mut self, status: u16, bytes_out: usize, outcome: Outcome) {
        self.write(status, "", outcome, bytes_out, "", None);
    }

    /// A problem is answered.
    pub fn finish_refused(&mut self, problem: &Problem, cause: &str) {
        let row = problem.code.row();
        if let Some(operation) = problem.operation {
            self.operation(operation);
        }
        let code = if self.gone { "caller_gone" } else { row.code };
        self.write(row.status, code, problem.outcome, 0, cause, Some(row.fault));
    }

    fn write(
        &mut self,
        status: u16,
        code: &'static str,
        outcome: Outcome,
        bytes_out: usize,
        cause: &str,
        fault: Option<Fault>,
    ) {
        if self.written {
            return;
        }
        self.written = true;
        self.counts.cell(outcome).fetch_add(1, Ordering::Relaxed);
        let milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Without one the field is left out.
        let operation = self.operation.map(tracing::field::display);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "priorgate::request",
                    bank = self.bank,
                    route = self.route,
                    method = self.method.map_or("", Method::as_str),
                    status,
                    code,
                    outcome = outcome.as_str(),
                    request_id = self.id,
                    operation,
                    listener = self.listener,
                    uid = self.uid,
                    bytes_in = self.bytes_in,
                    bytes_out,
                    ms = milliseconds,
                    cause,
                    "request"
                )
            };
        }
        // One record a request whatever the level means elsewhere: what an operator must act on stands out. But not for
        // whoever is nobody's caller: it can ask as often as it likes, and has its one line a second (net/denials).
        match fault {
            _ if is_denied(code) => line!(debug),
            Some(Fault::Bank | Fault::Operator | Fault::Us) => line!(warn),
            Some(Fault::Caller) | None => line!(info),
        }
        self.audit(status, code, outcome, bytes_out, milliseconds);
    }

    /// For the log's thread: what is here is moved, not copied, since nothing comes after.
    fn audit(
        &mut self,
        status: u16,
        code: &'static str,
        outcome: Outcome,
        bytes_out: usize,
        ms: u64,
    ) {
        let Some(Audited { audit, bank }) = self.audited else {
            return;
        };
        let listener = std::mem::take(&mut self.listener);
        if is_denied(code) {
            // As many as a stranger likes: one record a second.
            audit.denied(Denied {
                at: Arc::clone(bank),
                callback: false,
                listener,
                uid: self.uid,
                code,
            });
            return;
        }
        audit.request(Request {
            at: unix_millis(),
            bank: Arc::clone(bank),
            listener,
            uid: self.uid,
            token: None,
            // The answer needs it once more.
            request_id: self.id.clone(),
            method: self.method.map_or("", Method::as_str),
            route: std::mem::take(&mut self.route),
            status,
            code,
            outcome: outcome.as_str(),
            operation: self.operation.map(|operation| operation.id),
            bytes_in: self.bytes_in as u64,
            bytes_out: bytes_out as u64,
            ms,
        });
    }
}

/// Whether nobody knows yet that it is a caller.
fn is_denied(code: &str) -> bool {
    let unknown = [Code::CallerDenied, Code::TokenRequired];
    unknown.iter().any(|denied| denied.row().code == code)
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome_if_dropped;
        self.write(0, "caller_gone", outcome, 0, "", None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::problem::Code;

    fn begin(counts: &Counts) -> Record<'_> {
        Record::begin(
            "b",
            counts,
            "unix:x",
            Some(33),
            Instant::now(),
            "id".to_owned(),
        )
    }

    #[test]
    fn a_finished_record_is_counted_once() {
        let counts = Counts::default();
        let mut record = begin(&counts);
        record.if_dropped(Outcome::Unknown);
        record.finish_answered(200, 2, Outcome::Answered);
        record.finish_refused(&Problem::new(Code::BankTimeout, ""), "");
        drop(record);
        assert_eq!(
            (counts.of(Outcome::Answered), counts.of(Outcome::Unknown)),
            (1, 0)
        );
    }

    #[test]
    fn a_dropped_record_counts_as_what_it_was_at_that_moment() {
        let counts = Counts::default();
        drop(begin(&counts));
        assert_eq!(counts.of(Outcome::NotSent), 1);
        let mut record = begin(&counts);
        record.if_dropped(Outcome::Unknown);
        drop(record);
        assert_eq!(counts.of(Outcome::Unknown), 1);
    }
}
