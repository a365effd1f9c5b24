//! The page's HTML. Whatever comes from a request is put in by maud, which escapes it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::words::Language;
use super::{Choice, url};
use crate::sandbox::ledger::{Session, SessionStatus};
use crate::sandbox::money::Money;

/// The only style; the policy names its hash.
pub(super) const STYLE: &str = include_str!("page.css");

/// A session: what is bought, and what can be done about it.
pub(super) fn session(session: &Session, language: Language) -> String {
    let words = language.words();
    let pending = session.status == SessionStatus::Pending;
    let sum = |amount: Money| {
        let amount = amount.to_string().replace('.', &words.comma.to_string());
        format!("{amount} {}", session.currency)
    };
    let here = format!("/pay/{}", session.session_id);
    whole(
        language,
        Some(&here),
        html! {
            dl {
                dt { (words.shop) } dd { (session.shop) }
                dt { (words.order) } dd { (session.order_ref) }
                dt { (words.amount) } dd.sum { (sum(session.amount)) }
                dt { (words.term) } dd { (session.term) " " (words.months) }
                dt { (words.monthly) } dd { (sum(monthly(session))) }
                dt { (words.state) }
                dd #state data-status=(session.status.as_str()) { (language.status(session.status)) }
            }
            @if pending {
                form method="post" action={ (here) "?lang=" (language.tag()) } {
                    h2 { (words.ask) }
                    @for choice in Choice::ALL {
                        @let (label, meaning) = language.button(choice);
                        button.(choice.name()) type="submit" name="choice" value=(choice.name()) {
                            strong { (label) } span { (meaning) }
                        }
                    }
                }
            } @else if let Some(url) = url(session, session.status) {
                p { a.back href=(url) rel="noreferrer" { (words.back) } }
            } @else {
                p { (words.close) }
            }
        },
    )
}

/// A sentence instead of a session.
pub(super) fn message(language: Language, text: &str) -> String {
    whole(language, None, html! { p { (text) } })
}

/// What the customer pays each month: rounded up, so that the months cover the sum.
fn monthly(session: &Session) -> Money {
    let months = u64::from(session.term.max(1));
    Money::from_minor(session.amount.minor().div_ceil(months))
}

fn whole(language: Language, here: Option<&str>, inside: Markup) -> String {
    let words = language.words();
    html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (words.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    p.warning role="note" { (words.warning) }
                    h1 { (words.title) }
                    (inside)
                    @if let Some(here) = here {
                        nav {
                            @for other in Language::ALL {
                                @if other == language {
                                    span { (other.name()) }
                                } @else {
                                    a href={ (here) "?lang=" (other.tag()) } hreflang=(other.tag()) lang=(other.tag()) {
                                        (other.name())
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    .into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Session {
        Session {
            session_id: "s-1".to_owned(),
            order_ref: "<b>&\"'17".to_owned(),
            status: SessionStatus::Pending,
            amount: Money::from_minor(14_990),
            refunded: Money::default(),
            currency: "BYN".to_owned(),
            term: 12,
            shop: "<script>shop</script>".to_owned(),
            success_url: Some("https://shop.example/?a=1&b=\"><script>".to_owned()),
            fail_url: Some("https://shop.example/no".to_owned()),
            refunds: Vec::new(),
            refund_requests: 0,
        }
    }

    #[test]
    fn a_pending_session_is_shown_in_both_languages_with_a_button_for_each_choice() {
        let russian = session(&sample(), Language::Russian);
        let english = session(&sample(), Language::English);
        // 149.90 / 12 = 12.4916…
        for (page, parts) in [
            (
                &russian,
                [
                    "lang=\"ru\"",
                    "149,90 BYN",
                    "12,50 BYN",
                    "Одобрить",
                    "Это не банк",
                ],
            ),
            (
                &english,
                [
                    "lang=\"en\"",
                    "149.90 BYN",
                    "12.50 BYN",
                    "Approve",
                    "not a bank",
                ],
            ),
        ] {
            for part in parts {
                assert!(page.contains(part), "{part}: {page}");
            }
            assert_eq!(page.matches("<button").count(), 4, "{page}");
            assert!(page.contains("method=\"post\""), "{page}");
        }
    }

    #[test]
    fn whatever_the_shop_sent_is_escaped_and_there_is_no_script() {
        for status in [SessionStatus::Pending, SessionStatus::Approved] {
            let page = session(&Session { status, ..sample() }, Language::English);
            assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
            assert!(page.contains("&lt;script&gt;shop"), "{page}");
            assert!(
                !page.contains("style=") && !page.contains("onclick"),
                "{page}"
            );
        }
    }

    #[test]
    fn a_decided_session_has_no_buttons_but_a_way_back_that_fits_it() {
        for (status, back) in [
            (SessionStatus::Approved, "https://shop.example/?a=1&amp;b="),
            (SessionStatus::Cancelled, "https://shop.example/no"),
        ] {
            let page = session(&Session { status, ..sample() }, Language::Russian);
            assert!(!page.contains("<button") && page.contains(back), "{page}");
        }
        let nowhere = Session {
            status: SessionStatus::Rejected,
            fail_url: None,
            ..sample()
        };
        let page = session(&nowhere, Language::Russian);
        assert!(
            page.contains("можно закрыть") && !page.contains("shop.example"),
            "{page}"
        );
    }
}
