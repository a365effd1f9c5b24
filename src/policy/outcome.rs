//! From what was seen of an attempt to what became of the request: the table that money depends on.
//!
//! `not_sent` is a proof, never a guess. Three things prove it: the connection never stood; hyper gave the request
//! back unserialised; or the socket accepted no byte since the connection was taken for this request (counted below
//! TLS, after every later write was made impossible). A fourth is the protocol's: a TLS 1.3 server that refuses our
//! certificate with an alert has read no request (RFC 8446 section 4.4.2.4 and 4.6.1: until it has accepted the
//! certificate it sends neither data nor tickets, so either of them takes the proof away).

use crate::policy::problem::Code;

/// The answer to the caller's only question after an error: did the request leave this machine?
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// The bank answered, and the answer was passed on.
    Answered,
    /// Provably, the bank has read nothing of the request.
    NotSent,
    /// The bank may have acted on it.
    Unknown,
}

impl Outcome {
    /// The value of `Priorgate-Outcome`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        }
    }
}

/// What was seen of a request on a standing connection that brought no usable answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// The request came back before any of it was serialised.
    pub handed_back: bool,
    /// Bytes that the socket accepted since checkout, read after the meter was poisoned.
    pub written: u64,
    /// What TLS tells about our certificate.
    pub certificate: Certificate,
    /// How it ended.
    pub end: End,
}

/// What TLS tells about our certificate, at the end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certificate {
    /// No alert about it, or plaintext HTTP.
    NotQuestioned,
    /// TLS 1.3: an alert about the certificate, on a connection that never gave plaintext or a ticket.
    Refused,
    /// An alert about the certificate that proves nothing: after plaintext or a ticket, or on TLS 1.2, where the
    /// handshake had already been completed.
    RefusedLate,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Closed or reset before the first byte of an answer.
    Closed,
    /// The answer's head or framing is no HTTP.
    Malformed,
    /// A redirect: never followed, never passed on.
    Redirect,
    /// `101`, which nobody asked for.
    SwitchedProtocols,
    /// The deadline passed.
    TimedOut,
    /// The answer is above the limit.
    TooLarge,
    /// Closed or reset inside the answer.
    Truncated,
}

/// The code and the outcome of a failed attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Verdict {
    /// What the caller is answered.
    pub code: Code,
    /// What became of the request.
    pub outcome: Outcome,
}

/// Judges a failed attempt.
pub fn judge(attempt: &Attempt) -> Verdict {
    let verdict = |code, outcome| Verdict { code, outcome };
    if attempt.certificate == Certificate::Refused {
        return verdict(Code::IdentityRefused, Outcome::NotSent);
    }
    if attempt.handed_back || attempt.written == 0 {
        let code = match attempt.end {
            End::TimedOut => Code::BankTimeout,
            // Whatever an unasked bank said: the request met no connection that would take it.
            End::Closed
            | End::Malformed
            | End::Redirect
            | End::SwitchedProtocols
            | End::TooLarge
            | End::Truncated => Code::BankUnreachable,
        };
        return verdict(code, Outcome::NotSent);
    }
    let code = match attempt.end {
        End::Closed => Code::BankDisconnected,
        End::TimedOut => Code::BankTimeout,
        End::Malformed
        | End::Redirect
        | End::SwitchedProtocols
        | End::TooLarge
        | End::Truncated => Code::BankReplyInvalid,
    };
    verdict(code, Outcome::Unknown)
}

impl End {
    /// One sentence for the problem's detail.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Closed => "the connection was closed before an answer",
            Self::Malformed => "the answer was not valid HTTP",
            Self::Redirect => "the bank answered with a redirect, which is never followed",
            Self::SwitchedProtocols => "the bank switched protocols unasked",
            Self::TimedOut => "no complete answer came within the deadline",
            Self::TooLarge => "the answer was larger than the configured limit",
            Self::Truncated => "the answer ended before it was complete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [End; 7] = [
        End::Closed,
        End::Malformed,
        End::Redirect,
        End::SwitchedProtocols,
        End::TimedOut,
        End::TooLarge,
        End::Truncated,
    ];

    fn attempt(written: u64, end: End) -> Attempt {
        Attempt {
            handed_back: false,
            written,
            certificate: Certificate::NotQuestioned,
            end,
        }
    }

    #[test]
    fn once_a_byte_was_written_nothing_but_a_refused_certificate_is_not_sent() {
        for end in ENDS {
            assert_eq!(judge(&attempt(1, end)).outcome, Outcome::Unknown, "{end:?}");
            let late = Attempt {
                certificate: Certificate::RefusedLate,
                ..attempt(1, end)
            };
            assert_eq!(judge(&late).outcome, Outcome::Unknown, "{end:?}");
            let refused = Attempt {
                certificate: Certificate::Refused,
                ..attempt(1, end)
            };
            assert_eq!(judge(&refused).code, Code::IdentityRefused, "{end:?}");
            assert_eq!(judge(&refused).outcome, Outcome::NotSent, "{end:?}");
        }
    }

    #[test]
    fn an_unwritten_request_is_not_sent_however_it_ended() {
        for end in ENDS {
            assert_eq!(judge(&attempt(0, end)).outcome, Outcome::NotSent, "{end:?}");
            let back = Attempt {
                handed_back: true,
                ..attempt(77, end)
            };
            assert_eq!(judge(&back).outcome, Outcome::NotSent, "{end:?}");
        }
    }

    #[test]
    fn each_end_has_its_code() {
        let code = |written, end| judge(&attempt(written, end)).code;
        assert_eq!(code(1, End::Closed), Code::BankDisconnected);
        assert_eq!(code(1, End::TimedOut), Code::BankTimeout);
        assert_eq!(code(0, End::TimedOut), Code::BankTimeout);
        assert_eq!(code(0, End::Closed), Code::BankUnreachable);
        for end in [
            End::Malformed,
            End::Redirect,
            End::SwitchedProtocols,
            End::TooLarge,
            End::Truncated,
        ] {
            assert_eq!(code(1, end), Code::BankReplyInvalid, "{end:?}");
            assert_eq!(code(0, end), Code::BankUnreachable, "{end:?}");
        }
    }
}
