//! A moment as a record writes it: RFC 3339 in UTC, always with three digits of a second.

use crate::policy::operation::UnixMillis;

const DAY: i64 = 86_400_000;

/// `2026-11-24T17:23:00.123Z`. Years beyond 9999 have more digits; a clock that says so is wrong anyway.
pub(super) fn text(at: UnixMillis) -> String {
    let (days, millis) = (at.0.div_euclid(DAY), at.0.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
    let (second, rest) = (millis / 1_000 % 60, millis % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

/// The civil date of a day since 1970-01-01, in the proleptic Gregorian calendar: eras of 400 years that begin on 1 March,
/// so that a leap day is the last of its year.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// The second of such a text. Strict in its form, and no calendar but for the month: a verifier in another language comes
/// to the same.
pub(super) fn seconds(text: &str) -> Option<i64> {
    const FORM: &[u8; 24] = b"0000-00-00T00:00:00.000Z";
    let fits = |(b, form): (u8, &u8)| match form {
        b'0' => b.is_ascii_digit(),
        form => b == *form,
    };
    if text.len() != FORM.len() || !text.bytes().zip(FORM).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month) = (number(0, 4)?, number(5, 7)?);
    if year == 0 || !(1..=12).contains(&month) {
        return None;
    }
    let day = first_of(year, month) + number(8, 10)? - 1;
    let hours = day * 24 + number(11, 13)?;
    Some((hours * 60 + number(14, 16)?) * 60 + number(17, 19)?)
}

/// The day since 1970-01-01 that a month begins with: [`date`] turned round.
fn first_of(year: i64, month: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let shifted = (month + 9) % 12;
    let of_year = (153 * shifted + 2) / 5;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::signature::parse_rfc3339;

    #[test]
    fn a_moment_reads_back_as_itself() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_000_000_001, "2026-11-18T11:06:40.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(text(UnixMillis(millis)), expected);
        }
        // Some seconds more than 300 days a step, over a century.
        for step in 0..120 {
            let at = UnixMillis(step * (300 * DAY + 12_345_678));
            let read = parse_rfc3339(&text(at)).unwrap();
            assert_eq!(read.0, at.0, "{}", text(at));
            assert_eq!(seconds(&text(at)), Some(at.0 / 1_000), "{}", text(at));
        }
    }
}
