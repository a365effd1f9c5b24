//! What the customer sees at the bank: the page behind a session's `payment_url`.
//!
//! Owns the page's routes, what each button does, and where the customer goes afterwards. Works
//! without scripts and asks for nothing but itself. Reading order: [`answer`], then `view` (the
//! HTML) and `words` (both languages).

mod back;
mod view;
mod words;

use base64ct::{Base64, Encoding as _};
use sha2::{Digest as _, Sha256};

use self::back::Back;
use self::view::STYLE;
use self::words::Language;
use super::bank::{Bank, LogEvent, State};
use super::ledger::{LedgerError, Session, SessionStatus};
use super::wire::{Answer, Request};

/// What the customer, or the bank in their sight, decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Choice {
    Approve,
    Decline,
    Cancel,
    Later,
}

impl Choice {
    const ALL: [Self; 4] = [Self::Approve, Self::Decline, Self::Cancel, Self::Later];

    /// As the form sends it.
    const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Decline => "decline",
            Self::Cancel => "cancel",
            Self::Later => "later",
        }
    }

    /// What becomes of the session.
    const fn status(self) -> SessionStatus {
        match self {
            Self::Approve => SessionStatus::Approved,
            Self::Decline => SessionStatus::Rejected,
            Self::Cancel => SessionStatus::Cancelled,
            Self::Later => SessionStatus::Pending,
        }
    }

    fn read(body: &[u8]) -> Option<Self> {
        let name = body.strip_prefix(b"choice=")?;
        Self::ALL
            .into_iter()
            .find(|choice| choice.name().as_bytes() == name)
    }
}

/// Answers one request of a browser.
pub(super) fn answer(bank: &Bank, request: &Request) -> Answer {
    let (path, query) = request.target();
    let language = Language::choose(query, request.header("accept-language"));
    if !request.is_to_loopback() {
        return page(
            403,
            &view::message(language, language.words().elsewhere),
            &[],
        );
    }
    let Some(id) = path.strip_prefix("/pay/") else {
        return page(404, &view::message(language, language.words().unknown), &[]);
    };
    let mut state = bank.lock();
    let shown = match request.method.as_str() {
        "GET" => state
            .ledger
            .session(id)
            .map(|session| show(200, session, language)),
        "POST" if !is_from_here(request) => {
            return page(
                403,
                &view::message(language, language.words().elsewhere),
                &[],
            );
        }
        "POST" => match Choice::read(&request.body) {
            Some(choice) => chosen(bank, &mut state, id, choice, language),
            None => return page(400, &view::message(language, language.words().unclear), &[]),
        },
        _ => {
            let refused = view::message(language, language.words().unclear);
            return page(405, &refused, &[]).with("Allow", "GET, POST");
        }
    };
    shown.unwrap_or_else(|_| page(404, &view::message(language, language.words().unknown), &[]))
}

/// A form of this page's own: nobody else's page decides for the customer.
fn is_from_here(request: &Request) -> bool {
    let own = format!("http://{}", request.host);
    request.header("origin").is_none_or(|origin| origin == own)
        && request
            .header("sec-fetch-site")
            .is_none_or(|site| site == "same-origin")
        && request
            .header("content-type")
            .is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

/// Decides, tells the shop as any decision does, and sends the customer back. A second click of the
/// same button is no second decision.
fn chosen(
    bank: &Bank,
    state: &mut State,
    id: &str,
    choice: Choice,
    language: Language,
) -> Result<Answer, LedgerError> {
    let answer = match state.decide(id, choice.status()) {
        Ok(session) => match back(session, choice.status()) {
            Some(Back { location, .. }) => {
                page(303, &view::session(session, language), &[]).with("Location", &location)
            }
            None => show(200, session, language),
        },
        // Decided already, in another way: the page says how.
        Err(LedgerError::Transition) => show(409, state.ledger.session(id)?, language),
        Err(error) => return Err(error),
    };
    let line = format!("{} {id}", choice.name());
    let played = (Some(answer.status), None);
    bank.record(state, LogEvent::Customer, line, None, played);
    Ok(answer)
}

fn show(status: u16, session: &Session, language: Language) -> Answer {
    let backs: Vec<String> = [SessionStatus::Approved, SessionStatus::Rejected]
        .into_iter()
        .filter_map(|status| Some(back(session, status)?.origin))
        .collect();
    page(status, &view::session(session, language), &backs)
}

/// Where the customer goes: who agreed, or waits for the bank's decision, to the shop's
/// `success_url`. A shop must not take that for money.
fn back(session: &Session, status: SessionStatus) -> Option<Back> {
    Back::read(url(session, status)?)
}

/// The shop's address for a customer whose session is so.
fn url(session: &Session, status: SessionStatus) -> Option<&str> {
    match status {
        SessionStatus::Approved | SessionStatus::Pending => session.success_url.as_deref(),
        SessionStatus::Rejected | SessionStatus::Cancelled | SessionStatus::Refunded => {
            session.fail_url.as_deref()
        }
    }
}

/// A page that may load nothing, run nothing, stand in no frame, and send its form only here.
/// A browser holds the redirect after a form to `form-action` too: hence the shop's origins.
fn page(status: u16, html: &str, backs: &[String]) -> Answer {
    let style = Base64::encode_string(&Sha256::digest(STYLE));
    let mut policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; frame-ancestors 'none'; \
         form-action 'self'"
    );
    for origin in backs {
        policy.push(' ');
        policy.push_str(origin);
    }
    Answer::html(status, html.to_owned())
        .with("Content-Security-Policy", &policy)
        .with("X-Content-Type-Options", "nosniff")
        // `no-referrer` would make the form's own `Origin` `null`.
        .with("Referrer-Policy", "same-origin")
        .with("Cache-Control", "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_forms_own_words_are_choices() {
        for choice in Choice::ALL {
            let body = format!("choice={}", choice.name());
            assert_eq!(Choice::read(body.as_bytes()), Some(choice));
        }
        for body in [
            "",
            "choice=",
            "choice=APPROVE",
            "choice=approve&choice=cancel",
            "approve",
        ] {
            assert_eq!(Choice::read(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn the_policy_names_the_style_and_the_shop_and_nothing_else() {
        let answer = page(200, "", &["https://shop.example".to_owned()]);
        let bytes = String::from_utf8(answer.bytes(0, false)).unwrap();
        let policy = bytes
            .lines()
            .find(|line| line.starts_with("Content-Security-Policy: "));
        let policy = policy.unwrap();
        assert!(
            policy.contains("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(
            policy.ends_with("form-action 'self' https://shop.example"),
            "{policy}"
        );
        assert!(
            !policy.contains("unsafe") && !policy.contains("script"),
            "{policy}"
        );
    }
}
