//! The sandbox's control API: plain HTTP on loopback, for tests and for people with `curl`.
//!
//! Owns the second listener's routes: the state, the log, the faults, a session's status, the
//! callbacks and their faults. It changes the ledger through the ledger's own rules. Knows nothing
//! of TLS.

use serde::Deserialize;
use serde_json::json;

use super::BANNER;
use super::api;
use super::bank::{Bank, State};
use super::callbacks::{CallbackError, Callbacks};
use super::faults::{Armed, FaultError, Route};
use super::ledger::SessionStatus;
use super::wire::{Answer, Request};

/// Answers one request.
pub(super) fn answer(bank: &Bank, request: &Request) -> Answer {
    if let Err(refusal) = from_here(request) {
        return refusal;
    }
    let mut state = bank.lock();
    let path: Vec<&str> = request.path.split('/').skip(1).collect();
    match (request.method.as_str(), path.as_slice()) {
        ("GET", [""]) => Answer::text(200, format!("{BANNER}\n\n{ROUTES}\n")),
        ("GET", ["control", "state"]) => Answer::json(200, &state.ledger.snapshot()),
        ("GET", ["control", "log"]) => Answer::json(200, &state.log().collect::<Vec<_>>()),
        ("GET", ["control", "faults"]) => Answer::json(200, &armed(&state)),
        ("DELETE", ["control", "faults"]) => {
            state.faults.clear();
            Answer::json(200, &armed(&state))
        }
        ("POST", ["control", "faults"]) => body(request, |order: FaultOrder| {
            let armed_fault = order.armed().map_err(fault_refused)?;
            state.faults.arm(armed_fault).map_err(fault_refused)?;
            Ok(Answer::json(200, &armed(&state)))
        }),
        ("POST", ["control", "sessions", id, "status"]) => body(request, |order: StatusOrder| {
            let session = state.decide(id, order.status).map_err(api::refused)?;
            Ok(Answer::json(200, &api::status(session)))
        }),
        (_, ["control", "callbacks", ..]) if state.callbacks.is_none() => {
            callback_refused(CallbackError::Off)
        }
        (method, ["control", "callbacks", rest @ ..]) => {
            callbacks(&mut state, request, method, rest)
        }
        _ => Answer::error(404, "route", ROUTES),
    }
}

const ROUTES: &str = "GET /control/state, GET /control/log, GET|POST|DELETE /control/faults, \
                      POST /control/sessions/{id}/status, GET|POST /control/callbacks, \
                      GET|POST|DELETE /control/callbacks/faults";

/// What is below `/control/callbacks`.
fn callbacks(state: &mut State, request: &Request, method: &str, rest: &[&str]) -> Answer {
    if let ("POST", []) = (method, rest) {
        return body(request, |order| {
            let event = state.send_callback(order).map_err(callback_refused)?;
            Ok(Answer::json(202, &event))
        });
    }
    let Some(callbacks) = &mut state.callbacks else {
        return callback_refused(CallbackError::Off);
    };
    match (method, rest) {
        ("GET", []) => {
            let (events, dropped) = (callbacks.events(), callbacks.dropped());
            Answer::json(200, &json!({"events": events, "dropped": dropped}))
        }
        ("GET", ["faults"]) => Answer::json(200, &armed_callbacks(callbacks)),
        ("DELETE", ["faults"]) => {
            callbacks.disarm();
            Answer::json(200, &armed_callbacks(callbacks))
        }
        ("POST", ["faults"]) => body(request, |order: CallbackFaultOrder| {
            let fault = order.fault.parse().map_err(callback_refused)?;
            let armed = callbacks.arm(fault, order.times.unwrap_or(1));
            armed.map_err(callback_refused)?;
            Ok(Answer::json(200, &armed_callbacks(callbacks)))
        }),
        _ => Answer::error(404, "route", ROUTES),
    }
}

fn callback_refused(error: CallbackError) -> Answer {
    let (status, code) = match error {
        CallbackError::Fault | CallbackError::Times | CallbackError::Timestamp => (400, "fault"),
        CallbackError::Text | CallbackError::Header => (400, "body"),
        CallbackError::Held => (409, "held"),
        CallbackError::Off => (409, "callbacks_off"),
        CallbackError::Full => (503, "sandbox_full"),
        CallbackError::Key(_) => (500, "random"),
    };
    Answer::error(status, code, &error.to_string())
}

fn armed_callbacks(callbacks: &Callbacks) -> serde_json::Value {
    let armed = callbacks.armed().map(|(fault, times)| {
        let fault = fault.to_string();
        json!({"fault": fault, "times": times})
    });
    json!({"armed": armed.collect::<Vec<_>>()})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbackFaultOrder {
    fault: String,
    times: Option<u32>,
}

/// Refuses web pages: a name that points here (DNS rebinding), or a script of another site.
fn from_here(request: &Request) -> Result<(), Answer> {
    if !request.is_to_loopback() {
        let message = "`Host` must be 127.0.0.1, localhost or [::1]";
        return Err(Answer::error(403, "host", message));
    }
    let browser = ["origin", "sec-fetch-site"]
        .iter()
        .any(|name| request.header(name).is_some());
    if browser && request.method != "GET" {
        return Err(Answer::error(
            403,
            "browser",
            "the control API is not for web pages",
        ));
    }
    Ok(())
}

fn body<T: for<'a> Deserialize<'a>>(
    request: &Request,
    act: impl FnOnce(T) -> Result<Answer, Answer>,
) -> Answer {
    if !request.is_json() {
        let message = "Content-Type must be application/json";
        return Answer::error(415, "content_type", message);
    }
    match serde_json::from_slice(&request.body) {
        Ok(order) => act(order).unwrap_or_else(|refusal| refusal),
        Err(error) => Answer::error(400, "body", &error.to_string()),
    }
}

fn fault_refused(error: FaultError) -> Answer {
    Answer::error(400, "fault", &error.to_string())
}

fn armed(state: &State) -> serde_json::Value {
    let armed = state.faults.armed().map(|armed| {
        let fault = armed.fault.to_string();
        json!({"fault": fault, "times": armed.times, "route": armed.route})
    });
    json!({"armed": armed.collect::<Vec<_>>()})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrder {
    fault: String,
    times: Option<u32>,
    route: Option<Route>,
}

impl FaultOrder {
    fn armed(&self) -> Result<Armed, FaultError> {
        Ok(Armed {
            fault: self.fault.parse()?,
            route: self.route,
            times: self.times.unwrap_or(1),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusOrder {
    status: SessionStatus,
}
