//! The name of an operation in headers, commands and records.

use std::fmt;

use super::state::State;

/// `op_` and 20 hexadecimal digits: 48 bits of time, then 32 bits that tell two of one millisecond apart. It means nothing
/// to the bank and holds nothing of the request.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OperationId {
    millis: u64,
    unique: u32,
}

const PREFIX: &str = "op_";
const TIME_DIGITS: usize = 12;
const TIME_MAX: u64 = (1 << 48) - 1;

impl OperationId {
    /// An id of this moment.
    #[must_use]
    pub fn new(now: super::UnixMillis, unique: u32) -> Self {
        Self {
            millis: u64::try_from(now.0).unwrap_or(0) & TIME_MAX,
            unique,
        }
    }

    /// Reads an id as it is printed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() != TIME_DIGITS + 8 || !digits.bytes().all(hex) {
            return None;
        }
        let (millis, unique) = digits.split_at_checked(TIME_DIGITS)?;
        Some(Self {
            millis: u64::from_str_radix(millis, 16).ok()?,
            unique: u32::from_str_radix(unique, 16).ok()?,
        })
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:012x}{:08x}", self.millis, self.unique)
    }
}

/// An operation and its state, as callers are told: `op_…; state=done`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reference {
    /// Its name.
    pub id: OperationId,
    /// Its state.
    pub state: State,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; state={}", self.id, self.state.towards_caller())
    }
}

#[cfg(test)]
mod tests {
    use super::super::UnixMillis;
    use super::*;

    #[test]
    fn an_id_reads_back_as_itself_and_nothing_else_is_one() {
        let id = OperationId::new(UnixMillis(1_795_000_000_000), 7);
        assert_eq!(OperationId::parse(&id.to_string()), Some(id));
        let text = id.to_string();
        for wrong in [
            "",
            "op_",
            "op_xyz",
            &text[1..],
            &text.to_uppercase(),
            &format!("{text}0"),
        ] {
            assert_eq!(OperationId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn later_ids_sort_later() {
        let early = OperationId::new(UnixMillis(1), u32::MAX).to_string();
        assert!(early < OperationId::new(UnixMillis(2), 0).to_string());
    }
}
