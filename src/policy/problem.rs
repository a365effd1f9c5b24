//! Every error that a caller can be answered with: one table from code to status, title, outcome and blame.

use crate::policy::operation::Reference;
use crate::policy::outcome::Outcome;

/// The stable code of a problem (RFC 9457 extension member `code`). Names never change once released.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Code {
    /// Malformed head, ambiguous framing, refused header.
    BadRequest,
    /// The bank closed or reset after the first byte was written.
    BankDisconnected,
    /// Truncated, oversized or malformed answer, or a redirect.
    BankReplyInvalid,
    /// A deadline towards the bank passed.
    BankTimeout,
    /// DNS, TCP or TLS did not complete.
    BankUnreachable,
    /// Chain, name or pin did not verify, or no client certificate was asked for.
    BankUntrusted,
    /// The request's body is above the limit.
    BodyTooLarge,
    /// `Origin` or `Sec-Fetch-*`.
    BrowserRequest,
    /// The uid is not on the list.
    CallerDenied,
    /// The gate is shutting down.
    Draining,
    /// The same request was done under another key.
    DuplicateRequest,
    /// The request's head is above the limit.
    HeadTooLarge,
    /// A guarded route without a key.
    IdempotencyKeyRequired,
    /// The key was used for another request.
    IdempotencyKeyReused,
    /// The bank refused our certificate.
    IdentityRefused,
    /// The private key could not be used.
    IdentityUnavailable,
    /// The operation cannot be written down.
    JournalUnavailable,
    /// A body without `Content-Length`.
    LengthRequired,
    /// The path is known, the method is not its.
    MethodNotAllowed,
    /// The operation under the key is running.
    OperationInFlight,
    /// The operation under the key may have reached the bank.
    OutcomeUnknown,
    /// No place and no queue left.
    Overloaded,
    /// `Forwarded`, `Via` and the like.
    ProxiedRequest,
    /// The caller was too slow.
    RequestTimeout,
    /// No route has this path.
    RouteNotFound,
    /// Another operation holds the subject.
    SubjectBusy,
    /// The body does not name what it is about.
    SubjectRequired,
    /// The token is missing or wrong.
    TokenRequired,
    /// A `Content-Encoding` that is not passed.
    UnsupportedMediaType,
}

/// Whose fault a problem is. Decides the level of its log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The bank, or the network towards it.
    Bank,
    /// The program that called.
    Caller,
    /// Whoever configured or runs the gate.
    Operator,
    /// This program.
    Us,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row {
    /// The stable code.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// A short, constant title.
    pub title: &'static str,
    /// The outcome, where the code alone decides it.
    pub outcome: Outcome,
    /// Whose fault it is.
    pub fault: Fault,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u32>,
    /// Whether the caller's connection ends with this answer.
    pub close: bool,
}

/// Every code, for tests and documentation.
pub const ALL: [Code; 29] = [
    Code::BadRequest,
    Code::BankDisconnected,
    Code::BankReplyInvalid,
    Code::BankTimeout,
    Code::BankUnreachable,
    Code::BankUntrusted,
    Code::BodyTooLarge,
    Code::BrowserRequest,
    Code::CallerDenied,
    Code::Draining,
    Code::DuplicateRequest,
    Code::HeadTooLarge,
    Code::IdempotencyKeyRequired,
    Code::IdempotencyKeyReused,
    Code::IdentityRefused,
    Code::IdentityUnavailable,
    Code::JournalUnavailable,
    Code::LengthRequired,
    Code::MethodNotAllowed,
    Code::OperationInFlight,
    Code::OutcomeUnknown,
    Code::Overloaded,
    Code::ProxiedRequest,
    Code::RequestTimeout,
    Code::RouteNotFound,
    Code::SubjectBusy,
    Code::SubjectRequired,
    Code::TokenRequired,
    Code::UnsupportedMediaType,
];

impl Code {
    /// The code's row. `BankTimeout` is the one code with two outcomes: its row says `unknown`, the worse one, and
    /// whoever can prove `not_sent` says so on the [`Problem`].
    #[must_use]
    pub const fn row(self) -> Row {
        use Fault::{Bank, Caller, Operator, Us};
        use Outcome::{Answered, NotSent, Unknown};
        // Columns: code, status, title, outcome, fault, Retry-After, close.
        let (code, status, title, outcome, fault, retry_after, close) = match self {
            Self::BadRequest => (
                "bad_request",
                400,
                "The request is malformed",
                NotSent,
                Caller,
                None,
                true,
            ),
            Self::BankDisconnected => (
                "bank_disconnected",
                502,
                "The bank closed the connection before its answer was complete",
                Unknown,
                Bank,
                None,
                false,
            ),
            Self::BankReplyInvalid => (
                "bank_reply_invalid",
                502,
                "The bank's answer could not be used",
                Unknown,
                Bank,
                None,
                false,
            ),
            Self::BankTimeout => (
                "bank_timeout",
                504,
                "The bank did not answer in time",
                Unknown,
                Bank,
                None,
                false,
            ),
            Self::BankUnreachable => (
                "bank_unreachable",
                502,
                "No connection to the bank",
                NotSent,
                Bank,
                None,
                false,
            ),
            Self::BankUntrusted => (
                "bank_untrusted",
                502,
                "The remote did not prove that it is the bank",
                NotSent,
                Bank,
                None,
                false,
            ),
            Self::BodyTooLarge => (
                "body_too_large",
                413,
                "The request body is too large",
                NotSent,
                Caller,
                None,
                true,
            ),
            Self::BrowserRequest => (
                "browser_request",
                403,
                "Browsers may not call this gate",
                NotSent,
                Caller,
                None,
                true,
            ),
            Self::CallerDenied => (
                "caller_denied",
                403,
                "This caller may not use this listener",
                NotSent,
                Caller,
                None,
                true,
            ),
            Self::Draining => (
                "draining",
                503,
                "The gate is shutting down",
                NotSent,
                Operator,
                Some(1),
                true,
            ),
            Self::DuplicateRequest => (
                "duplicate_request",
                409,
                "The same request was done under another key",
                Answered,
                Caller,
                None,
                false,
            ),
            Self::HeadTooLarge => (
                "head_too_large",
                431,
                "The request head is too large",
                NotSent,
                Caller,
                None,
                true,
            ),
            Self::IdempotencyKeyRequired => (
                "idempotency_key_required",
                400,
                "This route needs an Idempotency-Key",
                NotSent,
                Caller,
                None,
                false,
            ),
            Self::IdentityRefused => (
                "identity_refused",
                502,
                "The bank refused the client certificate",
                NotSent,
                Operator,
                None,
                false,
            ),
            Self::IdempotencyKeyReused => (
                "idempotency_key_reused",
                422,
                "The Idempotency-Key was used for another request",
                Unknown,
                Caller,
                None,
                false,
            ),
            Self::IdentityUnavailable => (
                "identity_unavailable",
                502,
                "The private key could not be used",
                NotSent,
                Operator,
                None,
                false,
            ),
            Self::JournalUnavailable => (
                "journal_unavailable",
                503,
                "The operation cannot be written down",
                NotSent,
                Operator,
                Some(2),
                false,
            ),
            Self::LengthRequired => (
                "length_required",
                411,
                "Content-Length is required",
                NotSent,
                Caller,
                None,
                true,
            ),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                405,
                "The route does not take this method",
                NotSent,
                Caller,
                None,
                false,
            ),
            Self::OperationInFlight => (
                "operation_in_flight",
                409,
                "The operation under this key is running",
                Unknown,
                Caller,
                Some(2),
                false,
            ),
            Self::Overloaded => (
                "overloaded",
                503,
                "Too many requests at a time",
                NotSent,
                Us,
                Some(1),
                false,
            ),
            Self::OutcomeUnknown => (
                "outcome_unknown",
                409,
                "The operation under this key may have reached the bank",
                Unknown,
                Operator,
                None,
                false,
            ),
            Self::ProxiedRequest => (
                "proxied_request",
                403,
                "Proxied requests may not use this gate",
                NotSent,
                Caller,
                None,
                true,
            ),
            Self::RequestTimeout => (
                "request_timeout",
                408,
                "The request did not arrive in time",
                NotSent,
                Caller,
                None,
                true,
            ),
            Self::RouteNotFound => (
                "route_not_found",
                404,
                "No route has this path",
                NotSent,
                Caller,
                None,
                false,
            ),
            Self::SubjectBusy => (
                "subject_busy",
                409,
                "Another operation on the same subject is not over",
                Unknown,
                Caller,
                None,
                false,
            ),
            Self::TokenRequired => (
                "token_required",
                401,
                "A valid token is required",
                NotSent,
                Caller,
                None,
                true,
            ),
            Self::SubjectRequired => (
                "subject_required",
                400,
                "The body does not name what it is about",
                NotSent,
                Caller,
                None,
                false,
            ),
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                415,
                "The content encoding is not accepted",
                NotSent,
                Caller,
                None,
                true,
            ),
        };
        Row {
            code,
            status,
            title,
            outcome,
            fault,
            retry_after,
            close,
        }
    }
}

/// A problem on its way to a caller: a code and what to say about this one case.
///
/// `detail` is public to the local caller: it names what happened and what to do next, and never holds a secret, a
/// body, a query or a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// One or two sentences for whoever reads the caller's log.
    pub detail: String,
    /// What became of the request; of the operation, where there is one.
    pub outcome: Outcome,
    /// The operation that the problem is about.
    pub operation: Option<Reference>,
}

impl Problem {
    /// A problem with the outcome of its row.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            outcome: code.row().outcome,
            operation: None,
        }
    }

    /// The same, about an operation, whose outcome it takes over.
    #[must_use]
    pub fn about(self, operation: Reference) -> Self {
        Self {
            outcome: operation.state.outcome(),
            operation: Some(operation),
            ..self
        }
    }

    /// The same, proven not to have left the machine.
    #[must_use]
    pub fn not_sent(self) -> Self {
        Self {
            outcome: Outcome::NotSent,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_what_the_contract_says() {
        let expected = [
            ("bad_request", 400, "not_sent"),
            ("bank_disconnected", 502, "unknown"),
            ("bank_reply_invalid", 502, "unknown"),
            ("bank_timeout", 504, "unknown"),
            ("bank_unreachable", 502, "not_sent"),
            ("bank_untrusted", 502, "not_sent"),
            ("body_too_large", 413, "not_sent"),
            ("browser_request", 403, "not_sent"),
            ("caller_denied", 403, "not_sent"),
            ("draining", 503, "not_sent"),
            ("duplicate_request", 409, "answered"),
            ("head_too_large", 431, "not_sent"),
            ("idempotency_key_required", 400, "not_sent"),
            ("idempotency_key_reused", 422, "unknown"),
            ("identity_refused", 502, "not_sent"),
            ("identity_unavailable", 502, "not_sent"),
            ("journal_unavailable", 503, "not_sent"),
            ("length_required", 411, "not_sent"),
            ("method_not_allowed", 405, "not_sent"),
            ("operation_in_flight", 409, "unknown"),
            ("outcome_unknown", 409, "unknown"),
            ("overloaded", 503, "not_sent"),
            ("proxied_request", 403, "not_sent"),
            ("request_timeout", 408, "not_sent"),
            ("route_not_found", 404, "not_sent"),
            ("subject_busy", 409, "unknown"),
            ("subject_required", 400, "not_sent"),
            ("token_required", 401, "not_sent"),
            ("unsupported_media_type", 415, "not_sent"),
        ];
        let rows = ALL.map(|code| {
            let row = code.row();
            (row.code, row.status, row.outcome.as_str())
        });
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_503_says_when_to_come_back_and_so_does_what_is_running() {
        for code in ALL {
            assert_eq!(
                code.row().status == 503 || code == Code::OperationInFlight,
                code.row().retry_after.is_some(),
                "{code:?}"
            );
        }
    }
}
