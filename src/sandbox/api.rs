//! What the sandbox bank does with one request: find the route, check, act, answer.
//!
//! Owns the three routes of the bank's API (two from the source article, `GET /installment/{id}`
//! assumed) and the order of fault, check and act. Gives back an answer and the fault to play; it
//! does not touch a socket.

use serde::Serialize;
use serde_json::json;

use super::bank::{Bank, LogEvent, State};
use super::faults::{Fault, Route};
use super::ledger::{Client, LedgerError, NewSession, Refund, Session, SessionStatus};
use super::order::{CreateOrder, Invalid, RefundOrder};
use super::pki::SERVER_NAMES;
use super::wire::{Answer, Request};

/// An order whose reference begins so waits for its customer, whatever `--auto-approve` says.
const WAITS: &str = "pending";

/// Handles a request that was read whole. It is counted and logged when this returns, so whoever
/// has the answer finds it in the ledger.
pub(super) fn handle(bank: &Bank, request: &Request, client: &Client) -> (Answer, Option<Fault>) {
    let operation = Operation::read(request);
    let mut state = bank.lock();
    state.ledger.requested(client);
    let (answer, fault) = judge(bank, &mut state, operation, (request, client));
    let line = format!("{} {}", request.method, request.path);
    let played = (Some(answer.status), fault.map(|fault| fault.to_string()));
    bank.record(&mut state, LogEvent::Request, line, Some(client), played);
    (answer, fault)
}

fn judge(
    bank: &Bank,
    state: &mut State,
    operation: Result<Operation, Answer>,
    (request, client): (&Request, &Client),
) -> (Answer, Option<Fault>) {
    let mut fault = state.faults.take(route(request).ok());
    if let (None, Ok(operation)) = (fault, &operation) {
        fault = match operation.magic(state) {
            Ok(fault) => fault,
            Err(answer) => return (answer, None),
        };
    }
    let answer = match fault {
        Some(Fault::Redirect) => Answer::error(302, "redirect", "this fault was asked for")
            .with("Location", "https://elsewhere.sandbox.example/"),
        Some(Fault::Status(status)) => Answer::error(status, "fault", "this fault was asked for"),
        Some(fault) if !fault.acts() => Answer::error(503, "fault", "this is never sent"),
        Some(_) | None => operation
            .and_then(|operation| operation.act(bank, state, client))
            .unwrap_or_else(|refusal| refusal),
    };
    (answer, fault)
}

/// A request that may be acted on.
#[derive(Debug)]
enum Operation {
    Create(CreateOrder),
    Refund(RefundOrder),
    Status(String),
}

impl Operation {
    fn read(request: &Request) -> Result<Self, Answer> {
        let route = route(request)?;
        if !names_us(&request.host) {
            let message = "`Host` is none of the names in the bank's certificate";
            return Err(Answer::error(421, "misdirected", message));
        }
        if route == Route::Status {
            // The article's client sends its (empty) data with GET as well.
            if !matches!(request.body.as_slice(), b"" | b"[]" | b"{}") {
                return Err(Answer::error(400, "body", "a status request has no body"));
            }
            let id = request.path.rsplit('/').next().unwrap_or_default();
            return Ok(Self::Status(id.to_owned()));
        }
        if !request.is_json() {
            let message = "Content-Type must be application/json";
            return Err(Answer::error(415, "content_type", message));
        }
        if request.header("content-encoding").is_some() {
            let message = "Content-Encoding is not understood";
            return Err(Answer::error(415, "content_encoding", message));
        }
        let refuse = |invalid: Invalid| Answer::error(400, invalid.code, &invalid.message);
        match route {
            Route::Refund => RefundOrder::read(&request.body).map(Self::Refund),
            Route::Create | Route::Status => CreateOrder::read(&request.body).map(Self::Create),
        }
        .map_err(refuse)
    }

    /// The fault that the order's reference asks for.
    fn magic(&self, state: &mut State) -> Result<Option<Fault>, Answer> {
        let (order_ref, route) = match self {
            Self::Create(order) => (order.order_ref.clone(), Route::Create),
            Self::Refund(refund) => match state.ledger.session(&refund.session_id) {
                Ok(session) => (session.order_ref.clone(), Route::Refund),
                Err(_) => return Ok(None),
            },
            Self::Status(_) => return Ok(None),
        };
        let fault = state.faults.magic(&order_ref, route);
        fault.map_err(|error| Answer::error(400, "fault", &format!("`{order_ref}`: {error}")))
    }

    fn act(self, bank: &Bank, state: &mut State, client: &Client) -> Result<Answer, Answer> {
        let no_randomness = || Answer::error(500, "random", "the machine gave no randomness");
        match self {
            Self::Create(order) => {
                let id = bank.identifier("s").ok_or_else(no_randomness)?;
                let new = NewSession {
                    order_ref: order.order_ref,
                    amount: order.amount,
                    currency: order.currency,
                    term: order.term,
                    shop: client.common_name.clone(),
                    success_url: order.success_url,
                    fail_url: order.fail_url,
                };
                let waits = new.order_ref.starts_with(WAITS);
                state.ledger.create(&id, new).map_err(refused)?;
                if bank.auto_approve && !waits {
                    let decided = state.decide(&id, SessionStatus::Approved);
                    decided.map_err(refused)?;
                }
                let created = Created {
                    payment_url: format!("{}{id}", bank.pay_url),
                    session_id: id,
                };
                Ok(Answer::json(201, &created))
            }
            Self::Refund(refund) => {
                let refund_id = bank.identifier("r").ok_or_else(no_randomness)?;
                let record = Refund {
                    refund_id: refund_id.clone(),
                    amount: refund.amount,
                    reason: refund.reason,
                };
                let refunded = state.refund(&refund.session_id, record);
                refunded.map_err(refused)?;
                Ok(Answer::json(200, &json!({"refund_id": refund_id})))
            }
            Self::Status(id) => {
                let session = state.ledger.session(&id).map_err(refused)?;
                Ok(Answer::json(200, &status(session)))
            }
        }
    }
}

/// The answer to a create request, in the article's order of fields.
#[derive(Serialize)]
struct Created {
    session_id: String,
    payment_url: String,
}

/// What a shop may know of its session.
pub(super) fn status(session: &Session) -> serde_json::Value {
    json!({
        "session_id": session.session_id,
        "status": session.status,
        "amount": session.amount,
        "refunded": session.refunded,
        "currency": session.currency,
        "order_ref": session.order_ref,
    })
}

/// The ledger's no, as the bank's answer.
pub(super) fn refused(error: LedgerError) -> Answer {
    let (status, code) = match error {
        LedgerError::Full => (503, "sandbox_full"),
        LedgerError::NotApproved => (409, "not_approved"),
        LedgerError::RefundTooLarge => (422, "refund_too_large"),
        LedgerError::Transition => (409, "transition"),
        LedgerError::Unknown => (404, "session_unknown"),
    };
    Answer::error(status, code, &error.to_string())
}

/// Which route a request means; `create` and `refund` are never sessions.
fn route(request: &Request) -> Result<Route, Answer> {
    let wrong = |allow: &str| {
        let message = format!("this path takes {allow} only");
        Answer::error(405, "method", &message).with("Allow", allow)
    };
    let missing = || Answer::error(404, "route", "there is no such path at this bank");
    let name = request.path.strip_prefix("/installment/");
    let name = name.ok_or_else(missing)?;
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match (name, request.method.as_str()) {
        ("create", "POST") => Ok(Route::Create),
        ("refund", "POST") => Ok(Route::Refund),
        ("create" | "refund", _) => Err(wrong("POST")),
        ("", _) => Err(missing()),
        (id, _) if id.len() > 64 || !id.bytes().all(word) => Err(missing()),
        (_, "GET") => Ok(Route::Status),
        _ => Err(wrong("GET")),
    }
}

/// Is this host, with or without a port, a name of the bank's certificate?
fn names_us(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => (name, None),
        Some((name, rest)) => match rest.strip_prefix(':') {
            Some(port) => (name, Some(port)),
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok());
    port_is_good
        && SERVER_NAMES
            .iter()
            .any(|ours| ours.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_in_the_certificate_are_hosts() {
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:9443",
            "[::1]",
            "[::1]:1",
        ] {
            assert!(names_us(host), "{host}");
        }
        for host in [
            "",
            "localhost:",
            "localhost:x",
            "evil.example",
            "[::1]x",
            "::1",
            "[::1",
        ] {
            assert!(!names_us(host), "{host}");
        }
    }
}
