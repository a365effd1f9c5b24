//! Answers to callers: the bank's, or a problem as RFC 9457 `application/problem+json`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use crate::policy::operation::Reference;
use crate::policy::outcome::Outcome;
use crate::policy::problem::Problem;

/// The name of the request id's header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("priorgate-request-id");
/// The name of the outcome's header.
pub const OUTCOME: HeaderName = HeaderName::from_static("priorgate-outcome");

/// The name of the operation's header.
pub const OPERATION: HeaderName = HeaderName::from_static("priorgate-operation");
/// Set on an answer that comes from the journal and not from the bank.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A whole answer, its body in one piece.
pub type Reply = Response<Full<Bytes>>;

/// The members of a problem document (RFC 9457 section 3.1, and ours).
#[derive(Serialize)]
struct Document<'p> {
    r#type: String,
    title: &'p str,
    status: u16,
    detail: &'p str,
    code: &'p str,
    outcome: &'p str,
    request_id: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<Operation>,
}

/// The operation that a problem is about.
#[derive(Serialize)]
struct Operation {
    id: String,
    state: &'static str,
}

/// The answer for a problem. `allow` is the `Allow` header of a 405.
#[must_use]
pub fn problem(problem: &Problem, request_id: &str, allow: Option<&str>) -> Reply {
    let row = problem.code.row();
    let document = Document {
        r#type: format!("urn:priorgate:problem:{}", row.code),
        title: row.title,
        status: row.status,
        detail: &problem.detail,
        code: row.code,
        outcome: problem.outcome.as_str(),
        request_id,
        operation: problem.operation.map(|operation| Operation {
            id: operation.id.to_string(),
            state: operation.state.towards_caller(),
        }),
    };
    // A struct of strings and a number always serialises; an empty body would still carry the headers.
    let body = serde_json::to_vec(&document).unwrap_or_default();
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status(row.status);
    let headers = reply.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = row.retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if let Some(allow) = allow.and_then(|methods| HeaderValue::from_str(methods).ok()) {
        headers.insert(header::ALLOW, allow);
    }
    if row.status == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if row.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    stamp(headers, request_id, problem.outcome, problem.operation);
    reply
}

/// The bank's answer on its way to a caller.
#[derive(Debug)]
pub struct PassedOn {
    /// The bank's status.
    pub status: StatusCode,
    /// Those of its headers that a caller sees.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What became of the request; of the operation, where there is one.
    pub outcome: Outcome,
    /// The operation.
    pub operation: Option<Reference>,
    /// From the journal: the bank gave it to an earlier request.
    pub replayed: bool,
}

/// The bank's answer, passed on.
#[must_use]
pub fn passed_on(answer: PassedOn, request_id: &str) -> Reply {
    let mut reply = Response::new(Full::new(answer.body));
    *reply.status_mut() = answer.status;
    *reply.headers_mut() = answer.headers;
    let headers = reply.headers_mut();
    if answer.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    stamp(headers, request_id, answer.outcome, answer.operation);
    reply
}

/// A short answer of our own: the admin pages.
#[must_use]
pub fn plain(code: u16, content_type: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status(code);
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn stamp(
    headers: &mut HeaderMap,
    request_id: &str,
    outcome: Outcome,
    operation: Option<Reference>,
) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(OUTCOME, HeaderValue::from_static(outcome.as_str()));
    if let Some(operation) = operation
        && let Ok(value) = HeaderValue::from_str(&operation.to_string())
    {
        headers.insert(OPERATION, value);
    }
}

/// Every status here comes from a constant table; the fallback keeps the function total.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::policy::operation::{OperationId, State};
    use crate::policy::problem::{ALL, Code};

    #[tokio::test(flavor = "current_thread")]
    async fn a_problem_document_carries_everything_a_caller_needs() {
        for code in ALL {
            let reply = problem(&Problem::new(code, "why"), "req-1", Some("GET, POST"));
            let row = code.row();
            assert_eq!(reply.status().as_u16(), row.status);
            assert_eq!(reply.headers()[REQUEST_ID], "req-1");
            assert_eq!(reply.headers()[OUTCOME], row.outcome.as_str());
            assert_eq!(reply.headers().contains_key(header::CONNECTION), row.close);
            let body = reply.into_body().collect().await.unwrap().to_bytes();
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["type"], format!("urn:priorgate:problem:{}", row.code));
            assert_eq!(json["code"], row.code);
            assert_eq!(json["status"], row.status);
            assert_eq!(json["detail"], "why");
            assert_eq!(json["request_id"], "req-1");
            assert_eq!(json["outcome"], row.outcome.as_str());
            assert!(json["title"].is_string());
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_operation_is_named_in_a_header_and_in_the_document() {
        let operation = Reference {
            id: OperationId::parse("op_01a1b2c3d4e500000007").unwrap(),
            state: State::Done,
        };
        let about = Problem::new(Code::SubjectBusy, "why").about(operation);
        let reply = problem(&about, "r", None);
        let header = "op_01a1b2c3d4e500000007; state=done";
        assert_eq!(reply.headers()[OPERATION], header);
        assert_eq!(reply.headers()[OUTCOME], "answered");
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["operation"]["id"], "op_01a1b2c3d4e500000007");
        assert_eq!(json["operation"]["state"], "done");
        let reply = problem(&Problem::new(Code::BankTimeout, "why"), "r", None);
        assert!(!reply.headers().contains_key(OPERATION));
    }

    #[test]
    fn a_405_says_what_is_allowed_and_a_401_how_to_authenticate() {
        let reply = problem(
            &Problem::new(Code::MethodNotAllowed, ""),
            "r",
            Some("GET, POST"),
        );
        assert_eq!(reply.headers()[header::ALLOW], "GET, POST");
        let reply = problem(&Problem::new(Code::TokenRequired, ""), "r", None);
        assert_eq!(reply.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
}
