//! Durations and sizes as an administrator writes them: `5s`, `250ms`, `256KiB`.
//!
//! A unit is always required: a bare `30` leaves open whether seconds or milliseconds were meant.

use std::time::Duration;

/// Why a duration or a size was not understood. The text says what is expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnitError {
    /// Not `<whole number><ms|s|m|h|d>`.
    #[error("expected a whole number and a unit (ms, s, m, h, d), as in `250ms` or `30s`")]
    Duration,
    /// Not `<whole number><B|KiB|MiB|GiB>`.
    #[error("expected a whole number and a unit (B, KiB, MiB, GiB), as in `256KiB`")]
    Size,
    /// The number does not fit.
    #[error("the number is too large")]
    TooLarge,
}

/// Parses `250ms`, `5s`, `10m`, `1h`, `30d`.
///
/// # Errors
/// [`UnitError::Duration`] for any other form, [`UnitError::TooLarge`] when it does not fit 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Duration)?;
    let millis_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(UnitError::Duration),
    };
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    let millis = number
        .checked_mul(millis_per_unit)
        .ok_or(UnitError::TooLarge)?;
    Ok(Duration::from_millis(millis))
}

/// Parses `512B`, `16KiB`, `1MiB`, `2GiB` into bytes.
///
/// # Errors
/// [`UnitError::Size`] for any other form, [`UnitError::TooLarge`] when it does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Size)?;
    let bytes_per_unit: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(UnitError::Size),
    };
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    number
        .checked_mul(bytes_per_unit)
        .ok_or(UnitError::TooLarge)
}

/// Writes a duration in the largest unit that is exact, so that it parses back to itself.
#[must_use]
pub fn format_duration(value: Duration) -> String {
    let millis = value.as_millis();
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ] {
        if millis != 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// Digits, then a unit of letters; neither empty, nothing else (no sign, no space, no fraction).
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    (!number.is_empty()).then_some((number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_written() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_size("256KiB"), Ok(262_144));
        assert_eq!(parse_size("0B"), Ok(0));
    }

    #[test]
    fn a_number_without_a_unit_or_with_anything_else_is_refused() {
        for text in [
            "", "5", "s", "-5s", "5 s", "1.5s", "5S", "5KB", "5kib", "+5s", "5ss",
        ] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration), "{text}");
            assert_eq!(parse_size(text), Err(UnitError::Size), "{text}");
        }
        assert_eq!(
            parse_duration("99999999999999999999s"),
            Err(UnitError::TooLarge)
        );
        assert_eq!(
            parse_size("18446744073709551615KiB"),
            Err(UnitError::TooLarge)
        );
    }

    #[test]
    fn a_formatted_duration_parses_back_to_itself() {
        for millis in [
            0, 1, 250, 1_000, 1_500, 60_000, 3_600_000, 86_400_000, 90_000_000,
        ] {
            let value = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(value)), Ok(value));
        }
    }
}
