//! The page's words in Russian and English, and which of the two a browser gets.

use super::Choice;
use crate::sandbox::ledger::SessionStatus;

/// A language of the page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Language {
    Russian,
    English,
}

/// Everything that the page says.
pub(super) struct Words {
    pub(super) title: &'static str,
    pub(super) warning: &'static str,
    pub(super) shop: &'static str,
    pub(super) order: &'static str,
    pub(super) amount: &'static str,
    pub(super) term: &'static str,
    pub(super) months: &'static str,
    pub(super) monthly: &'static str,
    pub(super) state: &'static str,
    pub(super) ask: &'static str,
    pub(super) back: &'static str,
    pub(super) close: &'static str,
    pub(super) unknown: &'static str,
    pub(super) unclear: &'static str,
    pub(super) elsewhere: &'static str,
    pub(super) comma: char,
}

const RUSSIAN: Words = Words {
    title: "Покупка в рассрочку",
    warning: "Это не банк, а песочница priorgate: деньги ненастоящие, решение выбираете вы.",
    shop: "Магазин",
    order: "Заказ",
    amount: "Сумма",
    term: "Срок",
    months: "мес.",
    monthly: "Платёж в месяц",
    state: "Состояние",
    ask: "Что решит банк?",
    back: "Вернуться в магазин",
    close: "Эту страницу можно закрыть.",
    unknown: "Такой заявки здесь нет. Песочница забывает всё, когда её останавливают.",
    unclear: "Непонятный запрос. Откройте страницу заново и нажмите одну из кнопок.",
    elsewhere: "Запрос пришёл с чужой страницы или на чужое имя. Откройте адрес из payment_url.",
    comma: ',',
};

const ENGLISH: Words = Words {
    title: "Purchase by instalments",
    warning: "This is not a bank. It is priorgate's sandbox: no real money, and you choose what is decided.",
    shop: "Shop",
    order: "Order",
    amount: "Amount",
    term: "Term",
    months: "months",
    monthly: "Each month",
    state: "State",
    ask: "What does the bank decide?",
    back: "Back to the shop",
    close: "You may close this page.",
    unknown: "There is no such application here. The sandbox forgets everything when it stops.",
    unclear: "This was not understood. Open the page again and press one of its buttons.",
    elsewhere: "This came from another page, or under another name. Open the address in payment_url.",
    comma: '.',
};

impl Language {
    pub(super) const ALL: [Self; 2] = [Self::Russian, Self::English];

    /// `lang=ru` or `lang=en` in the query; else what the browser prefers; else Russian, which this
    /// bank's customers read. Belarusian counts as Russian: there is no third set of words.
    pub(super) fn choose(query: &str, accept: Option<&str>) -> Self {
        let asked = query.split('&').find_map(|part| part.strip_prefix("lang="));
        if let Some(language) = asked.and_then(Self::named) {
            return language;
        }
        let mut best = (Self::Russian, 0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.next().map_or(Some(1_000), weight).unwrap_or(0);
            if let Some(language) = Self::named(name).filter(|_| weight > best.1) {
                best = (language, weight);
            }
        }
        best.0
    }

    /// By its tag, with or without a region.
    fn named(tag: &str) -> Option<Self> {
        match tag.split('-').next().unwrap_or_default() {
            name if name.eq_ignore_ascii_case("ru") || name.eq_ignore_ascii_case("be") => {
                Some(Self::Russian)
            }
            name if name.eq_ignore_ascii_case("en") => Some(Self::English),
            _ => None,
        }
    }

    /// As HTML and the query write it.
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::Russian => "ru",
            Self::English => "en",
        }
    }

    /// Its own name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Russian => "Русский",
            Self::English => "English",
        }
    }

    pub(super) const fn words(self) -> &'static Words {
        match self {
            Self::Russian => &RUSSIAN,
            Self::English => &ENGLISH,
        }
    }

    /// A button: what is on it, and what it means.
    pub(super) const fn button(self, choice: Choice) -> (&'static str, &'static str) {
        match (self, choice) {
            (Self::Russian, Choice::Approve) => ("Одобрить", "рассрочка оформлена"),
            (Self::Russian, Choice::Decline) => ("Отказать", "банк не даёт рассрочку"),
            (Self::Russian, Choice::Cancel) => ("Отменить", "покупатель передумал"),
            (Self::Russian, Choice::Later) => ("Решить позже", "заявка остаётся на рассмотрении"),
            (Self::English, Choice::Approve) => ("Approve", "the instalment is agreed"),
            (Self::English, Choice::Decline) => ("Decline", "the bank says no"),
            (Self::English, Choice::Cancel) => ("Cancel", "the customer changed their mind"),
            (Self::English, Choice::Later) => {
                ("Leave pending", "the bank is still looking into it")
            }
        }
    }

    /// A state in words.
    pub(super) const fn status(self, status: SessionStatus) -> &'static str {
        match (self, status) {
            (Self::Russian, SessionStatus::Pending) => "ждёт решения",
            (Self::Russian, SessionStatus::Approved) => "одобрена",
            (Self::Russian, SessionStatus::Rejected) => "отказано",
            (Self::Russian, SessionStatus::Cancelled) => "отменена",
            (Self::Russian, SessionStatus::Refunded) => "деньги возвращены",
            (Self::English, SessionStatus::Pending) => "waits for a decision",
            (Self::English, SessionStatus::Approved) => "approved",
            (Self::English, SessionStatus::Rejected) => "declined",
            (Self::English, SessionStatus::Cancelled) => "cancelled",
            (Self::English, SessionStatus::Refunded) => "refunded",
        }
    }
}

/// `q=0.8` in thousandths.
fn weight(parameter: &str) -> Option<u32> {
    let value = parameter.strip_prefix("q=")?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.len() > 3 || !digits(fraction) {
        return None;
    }
    match whole {
        "1" => Some(1_000),
        "0" => format!("{fraction:0<3}").parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_goes_before_the_browser_and_russian_is_what_is_left() {
        for (query, accept, expected) in [
            ("", None, "ru"),
            ("", Some("de, fr;q=0.5"), "ru"),
            ("", Some("en-GB,en;q=0.9"), "en"),
            ("", Some("be-BY, en;q=0.8"), "ru"),
            ("", Some("en;q=0.3, ru;q=0.7"), "ru"),
            ("", Some("ru;q=0, en;q=0.001"), "en"),
            ("", Some("en;q=2, EN;q=x, ;;,"), "ru"),
            ("lang=en", Some("ru"), "en"),
            ("a=b&lang=ru", Some("en"), "ru"),
            ("lang=xx", Some("en"), "en"),
        ] {
            assert_eq!(
                Language::choose(query, accept).tag(),
                expected,
                "{query} {accept:?}"
            );
        }
    }
}
