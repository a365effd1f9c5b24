//! The bodies of the sandbox bank's two POST requests, read strictly.
//!
//! Owns which fields there are, what they may hold and what must agree with what. An unknown or
//! doubled field is an error: a typo must not pass the test environment. The shape follows the
//! source article; the bank's real one is not public. Knows nothing of sessions or HTTP.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::money::{Money, Quantity};

const MAX_ITEMS: usize = 100;
const MAX_REF: usize = 64;
const MAX_TEXT: usize = 500;
const MAX_URL: usize = 2_000;
const MAX_TERM: u32 = 60;

/// Why a body was refused: a stable code and a sentence.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Invalid {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Invalid {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// A checked `POST /installment/create`.
#[derive(Debug)]
pub(super) struct CreateOrder {
    pub(super) order_ref: String,
    pub(super) amount: Money,
    pub(super) currency: String,
    pub(super) term: u32,
    pub(super) success_url: Option<String>,
    pub(super) fail_url: Option<String>,
}

impl CreateOrder {
    pub(super) fn read(body: &[u8]) -> Result<Self, Invalid> {
        let raw: RawCreate = from_json(body)?;
        text("order_ref", &raw.order_ref, MAX_REF)?;
        let amount = amount("amount", &raw.amount)?;
        if raw.currency != "BYN" {
            return Err(Invalid::new("currency", "`currency` must be BYN"));
        }
        let term = raw.term.get().trim_matches('"').parse().ok();
        let term = term
            .filter(|months| (1..=MAX_TERM).contains(months))
            .ok_or_else(|| {
                let message = format!("`term` must be a whole number of months, 1 to {MAX_TERM}");
                Invalid::new("term", message)
            })?;
        if raw.items.is_empty() || raw.items.len() > MAX_ITEMS {
            let message = format!("`items` must hold 1 to {MAX_ITEMS} items");
            return Err(Invalid::new("items", message));
        }
        let mut total = Money::default();
        for (at, item) in raw.items.iter().enumerate() {
            let sum = item.line(at)?;
            total = total
                .checked_add(sum)
                .ok_or_else(|| Invalid::new("items", "the items' sum is too large"))?;
        }
        if total != amount {
            let message = format!("the items sum to {total}, but `amount` is {amount}");
            return Err(Invalid::new("items_sum", message));
        }
        if let Some(customer) = &raw.customer {
            customer.check()?;
        }
        for (name, url) in [
            ("success_url", &raw.success_url),
            ("fail_url", &raw.fail_url),
            ("callback_url", &raw.callback_url),
        ] {
            let Some(url) = url else { continue };
            text(name, url, MAX_URL)?;
            if !url.starts_with("https://") && !url.starts_with("http://") {
                let message = format!("`{name}` must begin with https:// or http://");
                return Err(Invalid::new("url", message));
            }
        }
        Ok(Self {
            order_ref: raw.order_ref,
            amount,
            currency: raw.currency,
            term,
            success_url: raw.success_url,
            fail_url: raw.fail_url,
        })
    }
}

/// A checked `POST /installment/refund`.
#[derive(Debug)]
pub(super) struct RefundOrder {
    pub(super) session_id: String,
    pub(super) amount: Money,
    pub(super) reason: Option<String>,
}

impl RefundOrder {
    pub(super) fn read(body: &[u8]) -> Result<Self, Invalid> {
        let raw: RawRefund = from_json(body)?;
        text("session_id", &raw.session_id, MAX_REF)?;
        if let Some(reason) = &raw.reason {
            text("reason", reason, MAX_TEXT)?;
        }
        Ok(Self {
            amount: amount("amount", &raw.amount)?,
            session_id: raw.session_id,
            reason: raw.reason,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCreate {
    order_ref: String,
    amount: Box<RawValue>,
    currency: String,
    term: Box<RawValue>,
    items: Vec<RawItem>,
    customer: Option<RawCustomer>,
    success_url: Option<String>,
    fail_url: Option<String>,
    callback_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawItem {
    name: String,
    qty: Box<RawValue>,
    price: Box<RawValue>,
}

impl RawItem {
    /// What the line costs.
    fn line(&self, at: usize) -> Result<Money, Invalid> {
        let invalid = |what: &str| Invalid::new("items", format!("`items[{at}].{what}"));
        text("items[].name", &self.name, MAX_TEXT)?;
        let quantity = Quantity::from_json_token(self.qty.get())
            .ok_or_else(|| invalid("qty` must be above zero, with at most three decimals"))?;
        let price = Money::from_json_token(self.price.get())
            .ok_or_else(|| invalid("price` must be an amount with at most two decimals"))?;
        price
            .checked_mul(quantity)
            .ok_or_else(|| invalid("price` times the quantity is too large"))
    }
}

/// Names and contacts are checked and forgotten: nothing here needs a person's data.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCustomer {
    name: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    middle_name: Option<String>,
    phone: Option<String>,
    email: Option<String>,
}

impl RawCustomer {
    fn check(&self) -> Result<(), Invalid> {
        for (name, value) in [
            ("customer.name", &self.name),
            ("customer.first_name", &self.first_name),
            ("customer.last_name", &self.last_name),
            ("customer.middle_name", &self.middle_name),
            ("customer.phone", &self.phone),
            ("customer.email", &self.email),
        ] {
            let Some(value) = value else { continue };
            // A shop whose customer left a field empty sends it empty.
            if !value.is_empty() {
                text(name, value, MAX_TEXT)?;
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRefund {
    session_id: String,
    amount: Box<RawValue>,
    reason: Option<String>,
}

fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Invalid> {
    serde_json::from_slice(body).map_err(|error| Invalid::new("body", error.to_string()))
}

fn amount(name: &str, token: &RawValue) -> Result<Money, Invalid> {
    Money::from_json_token(token.get())
        .filter(|amount| *amount > Money::default())
        .ok_or_else(|| {
            let message = format!("`{name}` must be above zero, with at most two decimals");
            Invalid::new("amount", message)
        })
}

fn text(name: &str, value: &str, max: usize) -> Result<(), Invalid> {
    let length = value.chars().count();
    if length == 0 || length > max || value.chars().any(char::is_control) {
        let message = format!("`{name}` must hold 1 to {max} characters, none of them a control");
        return Err(Invalid::new("text", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"order_ref":"17","amount":149.9,"currency":"BYN","term":"12",
        "items":[{"name":"Чайник «Заря»","qty":2,"price":"49.95"},
                 {"name":"\u0414\u043e\u0441\u0442\u0430\u0432\u043a\u0430","qty":1,"price":50}],
        "customer":{"name":"Анна","phone":"+375290000000","email":""},
        "success_url":"https://shop.example/ok","fail_url":null}"#;

    fn code(body: &str) -> &'static str {
        CreateOrder::read(body.as_bytes()).unwrap_err().code
    }

    #[test]
    fn an_order_with_cyrillic_items_and_mixed_amounts_is_read() {
        let order = CreateOrder::read(GOOD.as_bytes()).unwrap();
        assert_eq!(order.amount, Money::from_minor(14_990));
        assert_eq!((order.order_ref.as_str(), order.term), ("17", 12));
    }

    #[test]
    fn each_mistake_in_an_order_has_its_code() {
        for (from, to, expected) in [
            ("\"order_ref\":\"17\",", "", "body"),
            ("\"order_ref\":\"17\"", "\"order_ref\":17", "body"),
            ("\"term\"", "\"terms\"", "body"),
            ("{\"order_ref\"", "{\"amount\":1,\"order_ref\"", "body"),
            ("\"qty\":2", "\"qty\":2,\"sku\":1", "body"),
            ("\"name\":\"Анна\"", "\"surname\":\"x\"", "body"),
            ("\"order_ref\":\"17\"", "\"order_ref\":\"\"", "text"),
            ("\"order_ref\":\"17\"", "\"order_ref\":\"1\\n7\"", "text"),
            ("149.9", "149.91", "items_sum"),
            ("149.9", "149.900", "amount"),
            ("149.9", "0", "amount"),
            ("149.9", "-149.9", "amount"),
            ("149.9", "1.499e2", "amount"),
            ("149.9", "[149.9]", "amount"),
            ("BYN", "USD", "currency"),
            ("\"12\"", "0", "term"),
            ("\"12\"", "1.5", "term"),
            ("\"qty\":2", "\"qty\":0", "items"),
            ("\"49.95\"", "\"49.955\"", "items"),
            ("https://shop.example/ok", "javascript:1", "url"),
        ] {
            let body = GOOD.replacen(from, to, 1);
            assert_ne!(body, GOOD, "{from}");
            assert_eq!(code(&body), expected, "{from} -> {to}");
        }
        let none = r#"{"order_ref":"1","amount":1,"currency":"BYN","term":1,"items":[]}"#;
        assert_eq!(code(none), "items");
        assert_eq!(code(&format!("{GOOD} x")), "body");
    }

    #[test]
    fn a_refund_names_session_amount_and_perhaps_a_reason() {
        let read = |body: &str| RefundOrder::read(body.as_bytes());
        let refund = read(r#"{"session_id":"s","amount":"1.5","reason":"Возврат"}"#).unwrap();
        assert_eq!(refund.amount, Money::from_minor(150));
        assert_eq!(refund.reason.as_deref(), Some("Возврат"));
        assert!(read(r#"{"session_id":"s","amount":1}"#).is_ok());
        for body in [
            r#"{"amount":1}"#,
            r#"{"session_id":"s"}"#,
            r#"{"session_id":"s","amount":0}"#,
            r#"{"session_id":"","amount":1}"#,
            r#"{"session_id":"s","amount":1,"currency":"BYN"}"#,
            r#"{"session_id":"s","amount":1,"reason":""}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
    }
}
