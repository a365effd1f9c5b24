//! Exactly one record for each request, whatever ends it: in the log, the metrics and the audit log.
//!
//! A [`Record`] is begun with a request's head and finished with its answer; dropped unfinished (the connection's task
//! was ended with the request still running) it writes `caller_gone` by itself.

use std::sync::Arc;

use tokio::time::Instant;

use crate::audit::{Audit, Request};
use crate::metrics::{Ending, Meter};
use crate::net::clock::unix_millis;
use crate::policy::operation::Reference;
use crate::policy::outcome::Outcome;
use crate::policy::problem::{Code, Fault, Problem};
use crate::policy::route::Method;

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
    meter: &'e Meter,
    audited: Option<&'e Audited>,
    listener: String,
    uid: Option<u32>,
    token: Option<u32>,
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
    /// Begins a record. `meter` is that of requests without a route.
    #[must_use]
    pub fn begin(
        bank: &'e str,
        meter: &'e Meter,
        listener: &str,
        uid: Option<u32>,
        started: Instant,
        id: String,
    ) -> Self {
        Self {
            bank,
            meter,
            audited: None,
            listener: listener.to_owned(),
            uid,
            token: None,
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

    /// Which of the listener's tokens it showed: the place in the configuration, never the token.
    pub fn token(&mut self, place: Option<u32>) {
        self.token = place;
    }

    /// A method that a route may name; others are left out, since a caller can make up any token.
    pub fn method(&mut self, method: Option<Method>) {
        self.method = method;
    }

    /// The route's name, and where its requests are counted; never the path, which holds ids.
    pub fn route(&mut self, name: &str, meter: &'e Meter) {
        name.clone_into(&mut self.route);
        self.meter = meter;
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
        let ending = Ending::Answered(status);
        self.write(ending, status, "", outcome, bytes_out, "", None);
    }

    /// A problem is answered.
    pub fn finish_refused(&mut self, problem: &Problem, cause: &str) {
        let row = problem.code.row();
        if let Some(operation) = problem.operation {
            self.operation(operation);
        }
        let (ending, code) = if self.gone {
            (Ending::CallerGone, "caller_gone")
        } else {
            (Ending::Problem(problem.code), row.code)
        };
        let fault = Some(row.fault);
        self.write(ending, row.status, code, problem.outcome, 0, cause, fault);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of a record, each given by all three ends"
    )]
    fn write(
        &mut self,
        ending: Ending,
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
        let took = self.started.elapsed();
        self.meter.count(ending, outcome, took);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
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
        // Whoever was denied is counted by the second: as many as a stranger likes are one record (`net::denials`).
        if is_denied(code) {
            return;
        }
        audit.request(Request {
            at: unix_millis(),
            bank: Arc::clone(bank),
            listener: std::mem::take(&mut self.listener),
            uid: self.uid,
            token: self.token,
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
        self.write(Ending::CallerGone, 0, "caller_gone", outcome, 0, "", None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::problem::Code;

    fn begin(meter: &Meter) -> Record<'_> {
        Record::begin(
            "b",
            meter,
            "unix:x",
            Some(33),
            Instant::now(),
            "id".to_owned(),
        )
    }

    fn counted(meter: &Meter) -> Vec<(&'static str, &'static str, u64)> {
        let mut all = Vec::new();
        meter.each(|code, outcome, count| {
            if count > 0 {
                all.push((code, outcome.as_str(), count));
            }
        });
        all
    }

    #[test]
    fn a_finished_record_is_counted_once_and_where_its_route_is() {
        let (none, route) = (Meter::default(), Meter::default());
        let mut record = begin(&none);
        record.route("create", &route);
        record.if_dropped(Outcome::Unknown);
        record.finish_answered(200, 2, Outcome::Answered);
        record.finish_refused(&Problem::new(Code::BankTimeout, ""), "");
        drop(record);
        assert_eq!(counted(&route), [("2xx", "answered", 1)]);
        assert_eq!(counted(&none), []);
    }

    #[test]
    fn a_dropped_record_counts_as_what_it_was_at_that_moment() {
        let meter = Meter::default();
        drop(begin(&meter));
        let mut record = begin(&meter);
        record.if_dropped(Outcome::Unknown);
        drop(record);
        let gone = |outcome| ("caller_gone", outcome, 1);
        assert_eq!(counted(&meter), [gone("not_sent"), gone("unknown")]);
    }
}
