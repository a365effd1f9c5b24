//! The signed timestamp: one spelling for each moment, and a window around now.
//!
//! A timestamp that is not part of the message proves nothing, so a verifier with such a one cannot be made
//! ([`super::Verifier::new`]). Every unit has spellings of which none is the beginning of another: where a sender signs
//! the timestamp and the body with nothing between them, no digit can move from one to the other.

use std::time::Duration;

use http::HeaderName;
use x509_cert::der::DateTime;

use crate::policy::operation::UnixMillis;

/// Below this `check` warns: banks send the same signed bytes again for days.
pub const TOLERANCE_ADVISED: Duration = Duration::from_secs(24 * 60 * 60);

/// How a moment is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Seconds since 1970: ten digits.
    Seconds,
    /// Milliseconds since 1970: thirteen digits.
    Millis,
    /// RFC 3339, such as `2026-11-24T15:04:05Z`.
    Rfc3339,
}

/// A name that is not on the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected s, ms or rfc3339")]
pub struct UnitError;

impl Unit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Seconds, Self::Millis, Self::Rfc3339];

    /// Reads a name from the configuration.
    ///
    /// # Errors
    /// [`UnitError`].
    pub fn parse(name: &str) -> Result<Self, UnitError> {
        Self::ALL
            .into_iter()
            .find(|unit| unit.as_str() == name)
            .ok_or(UnitError)
    }

    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Rfc3339 => "rfc3339",
        }
    }

    /// The moment that a text is.
    #[must_use]
    pub fn read(self, text: &[u8]) -> Option<UnixMillis> {
        match self {
            // Ten digits last until 2286.
            Self::Seconds => Some(UnixMillis(digits(text, 10)?.checked_mul(1000)?)),
            Self::Millis => Some(UnixMillis(digits(text, 13)?)),
            Self::Rfc3339 => parse_rfc3339(std::str::from_utf8(text).ok()?),
        }
    }
}

/// Which header holds the moment of signing, and how far from now it may be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timestamp {
    /// The header. It must be a part of the message.
    pub header: HeaderName,
    /// How it is written there.
    pub unit: Unit,
    /// How far from now, before or after.
    pub tolerance: Duration,
}

impl Timestamp {
    /// Whether a moment is near enough to now.
    #[must_use]
    pub fn is_fresh(&self, at: UnixMillis, now: UnixMillis) -> bool {
        u128::from(at.0.abs_diff(now.0)) <= self.tolerance.as_millis()
    }
}

/// Exactly so many decimal digits, without a leading zero.
fn digits(text: &[u8], count: usize) -> Option<i64> {
    if text.len() != count || text.first() == Some(&b'0') {
        return None;
    }
    number(text)
}

fn number(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0_i64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0'))?;
        value.checked_mul(10)?.checked_add(i64::from(digit))
    })
}

/// Reads RFC 3339 from 1970 on: `T` and `Z` in upper case, up to nine digits of a second, `Z` or an offset that is not
/// `-00:00`. A leap second is none: no clock here counts it.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<UnixMillis> {
    let (head, rest) = text.as_bytes().split_at_checked(19)?;
    let part = |from: usize, to: usize| number(head.get(from..to)?);
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|&(at, mark)| head.get(at) != Some(&mark)) {
        return None;
    }
    let small = |value: Option<i64>| value.and_then(|value| u8::try_from(value).ok());
    let moment = DateTime::new(
        u16::try_from(part(0, 4)?).ok()?,
        small(part(5, 7))?,
        small(part(8, 10))?,
        small(part(11, 13))?,
        small(part(14, 16))?,
        small(part(17, 19))?,
    )
    .ok()?;
    let (millis, zone) = fraction(rest)?;
    let seconds = i64::try_from(moment.unix_duration().as_secs()).ok()?;
    let seconds = seconds.checked_sub(offset(zone)?)?;
    Some(UnixMillis(seconds.checked_mul(1000)?.checked_add(millis)?))
}

/// The milliseconds of a fraction, if there is one, and what follows it.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(after) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let length = after
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (digits, zone) = after.split_at_checked(length)?;
    if !(1..=9).contains(&length) {
        return None;
    }
    let millis: Vec<u8> = digits.iter().copied().chain(*b"00").take(3).collect();
    Some((number(&millis)?, zone))
}

/// Seconds east of Greenwich.
fn offset(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            let seconds = (hours <= 23 && minutes <= 59).then_some(hours * 3600 + minutes * 60)?;
            match sign {
                b'+' => Some(seconds),
                // RFC 3339, 4.3: "the time in UTC is known, the offset is not". A second spelling of Z.
                _ => (seconds != 0).then_some(-seconds),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_is_read_in_each_unit() {
        let moment = Some(UnixMillis(1_795_532_645_000));
        assert_eq!(Unit::Seconds.read(b"1795532645"), moment);
        assert_eq!(Unit::Millis.read(b"1795532645000"), moment);
        for text in [
            "2026-11-24T15:04:05Z",
            "2026-11-24T18:04:05+03:00",
            "2026-11-24T10:04:05-05:00",
            "2026-11-24T15:04:05.000000000Z",
        ] {
            assert_eq!(Unit::Rfc3339.read(text.as_bytes()), moment, "{text}");
        }
        let read = |text| parse_rfc3339(text).map(|at| at.0);
        assert_eq!(read("1970-01-01T00:00:00.5Z"), Some(500));
        assert_eq!(read("1970-01-01T00:00:00.0019Z"), Some(1));
        assert_eq!(read("2024-02-29T00:00:00Z"), Some(1_709_164_800_000));
        assert_eq!(read("2027-12-31T00:00:00Z"), Some(1_830_211_200_000));
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "179553264",
            "17955326450",
            "0795532645",
            "+795532645",
            "-795532645",
            "1795532645 ",
            "1795532.45",
        ] {
            assert_eq!(Unit::Seconds.read(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Unit::Millis.read(b"1795532645"), None);
        for text in [
            "",
            "2026-11-24",
            "2026-11-24T15:04:05",
            "2026-11-24t15:04:05Z",
            "2026-11-24T15:04:05z",
            "2026-11-24 15:04:05Z",
            "2026-11-24T15:04:05-00:00",
            "2026-11-24T15:04:05+24:00",
            "2026-11-24T15:04:05+03",
            "2026-11-24T15:04:05.Z",
            "2026-11-24T15:04:05.1234567890Z",
            "2026-11-24T15:04:05Z ",
            "2026-11-24T15:04:60Z",
            "2026-02-29T15:04:05Z",
            "2026-13-24T15:04:05Z",
            "1969-12-31T23:59:59Z",
            "+026-11-24T15:04:05Z",
            "2026-11-24T15:04:0éZ",
        ] {
            assert_eq!(Unit::Rfc3339.read(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_window_is_as_wide_before_now_as_after() {
        let timestamp = Timestamp {
            header: HeaderName::from_static("x-timestamp"),
            unit: Unit::Seconds,
            tolerance: Duration::from_secs(300),
        };
        let now = UnixMillis(1_000_000);
        for (at, fresh) in [
            (700_000, true),
            (699_999, false),
            (1_300_000, true),
            (1_300_001, false),
        ] {
            assert_eq!(timestamp.is_fresh(UnixMillis(at), now), fresh, "{at}");
        }
        assert!(!timestamp.is_fresh(UnixMillis(i64::MIN), UnixMillis(i64::MAX)));
    }

    #[test]
    fn units_have_names() {
        for unit in Unit::ALL {
            assert_eq!(Unit::parse(unit.as_str()), Ok(unit));
        }
        assert_eq!(Unit::parse("sec"), Err(UnitError));
    }

    proptest! {
        #[test]
        fn no_timestamp_is_the_beginning_of_another(
            moment in 1_000_000_000_i64..4_000_000_000,
            fraction in "(\\.[0-9]{1,9})?",
            zone in "Z|[+-]0[1-9]:[0-5][0-9]",
            more in "[0-9A-Z:.+-]{1,4}",
        ) {
            let date = DateTime::from_unix_duration(Duration::from_secs(moment as u64)).unwrap().to_string();
            let rfc3339 = format!("{}{fraction}{zone}", date.trim_end_matches('Z'));
            for (unit, text) in [
                (Unit::Seconds, moment.to_string()),
                (Unit::Millis, format!("{moment}123")),
                (Unit::Rfc3339, rfc3339),
            ] {
                prop_assert!(unit.read(text.as_bytes()).is_some(), "{}", text);
                let longer = format!("{text}{more}");
                prop_assert!(unit.read(longer.as_bytes()).is_none());
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for unit in Unit::ALL {
                let _ = unit.read(&bytes);
            }
        }
    }
}
