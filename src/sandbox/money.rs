//! Amounts of the sandbox bank: whole kopecks, read from the text of a JSON token.
//!
//! Owns the grammar of an amount and the arithmetic over it. No float ever holds money here: a
//! JSON number is read as the text that it was written as. Knows nothing of orders or sessions.

use std::fmt;

use serde::{Serialize, Serializer};

/// More digits than any instalment has; they keep every sum far inside the integers used.
const MAX_INTEGER_DIGITS: usize = 12;

/// An amount in minor units (kopecks of BYN).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Money(u64);

impl Money {
    /// An amount of this many minor units.
    #[must_use]
    pub const fn from_minor(minor: u64) -> Self {
        Self(minor)
    }

    /// The amount in minor units.
    #[must_use]
    pub const fn minor(self) -> u64 {
        self.0
    }

    /// Reads a JSON string (`"149.90"`) or number (`149.9`) with at most two decimals: no sign, no
    /// exponent, no leading zero.
    #[must_use]
    pub fn from_json_token(token: &str) -> Option<Self> {
        scaled(unquoted(token), 2).map(Self)
    }

    /// `None` when the sum does not fit.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `None` when `other` is the larger one.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The price of a line, rounded half up to the kopeck (a kilogram and a half of something).
    #[must_use]
    pub fn checked_mul(self, quantity: Quantity) -> Option<Self> {
        let thousandths = u128::from(self.0).checked_mul(u128::from(quantity.0))?;
        u64::try_from(thousandths.checked_add(500)? / 1_000)
            .ok()
            .map(Self)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How many pieces, or how much, of an item: thousandths, never zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quantity(u64);

impl Quantity {
    /// Reads a JSON string or number above zero with at most three decimals.
    #[must_use]
    pub fn from_json_token(token: &str) -> Option<Self> {
        scaled(unquoted(token), 3)
            .filter(|thousandths| *thousandths > 0)
            .map(Self)
    }
}

/// What is between the quotes of a JSON string, or the token itself. An escape stays in and is
/// refused with every other character that is no digit and no point.
fn unquoted(token: &str) -> &str {
    token
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(token)
}

/// A plain decimal, times ten to the power of `decimals`.
fn scaled(text: &str, decimals: usize) -> Option<u64> {
    let (integer, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = integer.len() > 1 && integer.starts_with('0');
    if integer.is_empty()
        || integer.len() > MAX_INTEGER_DIGITS
        || fraction.len() > decimals
        || leading_zero
        || !digits(integer)
        || !digits(fraction)
    {
        return None;
    }
    format!("{integer}{fraction:0<decimals$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_numbers_are_read_to_the_kopeck() {
        for (token, minor) in [
            ("149.9", 14_990),
            ("\"149.90\"", 14_990),
            ("0.01", 1),
            ("\"0.30\"", 30),
            ("1200", 120_000),
            ("0", 0),
            ("999999999999.99", 99_999_999_999_999),
        ] {
            assert_eq!(
                Money::from_json_token(token),
                Some(Money::from_minor(minor)),
                "{token}"
            );
        }
    }

    #[test]
    fn anything_but_a_plain_decimal_is_no_amount() {
        for token in [
            "",
            "\"\"",
            "-1",
            "+1",
            "1e2",
            "1.0e+25",
            "1.",
            ".5",
            "1.005",
            "0.30000000000000004",
            "\"1,50\"",
            "\" 1\"",
            "\"007\"",
            "\"\\u0031\"",
            "null",
            "[1]",
            "1000000000000",
            "\"1",
            "\"١\"",
        ] {
            assert_eq!(Money::from_json_token(token), None, "{token}");
        }
    }

    #[test]
    fn amounts_are_written_with_two_decimals() {
        for (minor, text) in [(0, "0.00"), (5, "0.05"), (14_990, "149.90")] {
            assert_eq!(Money::from_minor(minor).to_string(), text);
        }
    }

    #[test]
    fn a_line_is_rounded_half_up_to_the_kopeck() {
        let line = |price: &str, quantity: &str| {
            Money::from_json_token(price)?.checked_mul(Quantity::from_json_token(quantity)?)
        };
        assert_eq!(line("49.90", "3"), Some(Money::from_minor(14_970)));
        assert_eq!(line("0.01", "0.5"), Some(Money::from_minor(1)));
        assert_eq!(line("0.01", "0.499"), Some(Money::from_minor(0)));
        assert_eq!(line("1.00", "0"), None);
        let huge = "999999999999";
        assert_eq!(line(huge, huge), None, "does not fit and does not wrap");
    }
}
