//! A scrape as text: Prometheus 0.0.4, or OpenMetrics 1.0.0 for whoever prefers it.
//!
//! The names of families and labels come from the catalogue alone; only values are passed in. (`prometheus-client` writes
//! OpenMetrics only, in which `promtool check metrics` sees untyped samples, and locks its histograms.)

use std::fmt::Write as _;

use super::catalog::{Family, Kind};
use super::histogram::{BOUNDS, Histogram};

/// How a scrape is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// `application/openmetrics-text`.
    OpenMetrics,
    /// `text/plain`.
    Prometheus,
}

/// A scrape in the making.
#[derive(Debug)]
pub struct Page {
    format: Format,
    text: String,
}

/// The samples of one family.
#[derive(Debug)]
pub struct Samples<'p> {
    text: &'p mut String,
    family: &'static Family,
}

/// A scrape of one bank and one callback has some 15 kB.
const USUAL: usize = 24 << 10;
/// More media ranges than any scraper sends.
const RANGES: usize = 32;

impl Format {
    /// What an `Accept` asks for (RFC 9110 section 12.5.1); Prometheus' own where it does not say.
    #[must_use]
    pub fn wanted(accept: Option<&str>) -> Self {
        let (mut open, mut plain) = (0, 0);
        for range in accept.unwrap_or_default().split(',').take(RANGES) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let quality = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(1_000, thousandths);
            let cell = if media.eq_ignore_ascii_case("application/openmetrics-text") {
                &mut open
            } else if ["text/plain", "text/*", "*/*"]
                .iter()
                .any(|plain| media.eq_ignore_ascii_case(plain))
            {
                &mut plain
            } else {
                continue;
            };
            *cell = quality.max(*cell);
        }
        if open > 0 && open >= plain {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// `0.5` as 500; what is no such number as nothing.
fn thousandths(quality: &str) -> u32 {
    match quality.parse::<f32>() {
        // In 0..=1 nothing is cut off.
        Ok(quality) if (0.0..=1.0).contains(&quality) => (quality * 1_000.0) as u32,
        Ok(_) | Err(_) => 0,
    }
}

impl Page {
    /// An empty one.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            format,
            text: String::with_capacity(USUAL),
        }
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let open = self.format == Format::OpenMetrics;
        let named = match (open, family.kind) {
            // There a counter's family has no `_total`; its samples have.
            (true, Kind::Counter) => family.name.strip_suffix("_total"),
            _ => None,
        };
        let named = named.unwrap_or(family.name);
        let kind = family.kind.as_str();
        let text = &mut self.text;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {named} {}", family.help);
        let _ = writeln!(text, "# TYPE {named} {kind}");
        if open && let Some(unit) = family.unit() {
            let _ = writeln!(text, "# UNIT {named} {unit}");
        }
        Samples { text, family }
    }

    /// The text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Samples<'_> {
    /// A sample: the values of the family's labels, in its order, and the number.
    pub fn count(&mut self, labels: &[&str], value: u64) -> &mut Self {
        self.begin("", labels, None);
        let _ = writeln!(self.text, " {value}");
        self
    }

    /// The same for what is or is not.
    pub fn flag(&mut self, labels: &[&str], value: bool) -> &mut Self {
        self.count(labels, u64::from(value))
    }

    /// The same for seconds, given in milliseconds.
    pub fn millis(&mut self, labels: &[&str], value: i64) -> &mut Self {
        self.begin("", labels, None);
        let sign = if value < 0 { "-" } else { "" };
        let (whole, rest) = (value.unsigned_abs() / 1_000, value.unsigned_abs() % 1_000);
        let _ = writeln!(self.text, " {sign}{whole}.{rest:03}");
        self
    }

    /// A moment that never comes.
    pub fn never(&mut self, labels: &[&str]) -> &mut Self {
        self.begin("", labels, None);
        self.text.push_str(" +Inf\n");
        self
    }

    /// A histogram's samples.
    pub fn histogram(&mut self, labels: &[&str], histogram: &Histogram) -> &mut Self {
        let reading = histogram.read();
        for ((_, bound), count) in BOUNDS.iter().zip(reading.cumulated) {
            self.begin("_bucket", labels, Some(bound));
            let _ = writeln!(self.text, " {count}");
        }
        self.begin("_bucket", labels, Some("+Inf"));
        let _ = writeln!(self.text, " {}", reading.count);
        self.begin("_sum", labels, None);
        let (whole, rest) = (
            reading.sum_micros / 1_000_000,
            reading.sum_micros % 1_000_000,
        );
        let _ = writeln!(self.text, " {whole}.{rest:06}");
        self.begin("_count", labels, None);
        let _ = writeln!(self.text, " {}", reading.count);
        self
    }

    fn begin(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>) {
        debug_assert_eq!(labels.len(), self.family.labels.len());
        self.text.push_str(self.family.name);
        self.text.push_str(suffix);
        let pairs = self.family.labels.iter().zip(labels);
        let pairs = pairs.map(|((name, _), value)| (*name, *value));
        let mut open = '{';
        for (name, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
            self.text.push(open);
            open = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if open == ',' {
            self.text.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const COUNTER: Family = Family {
        name: "x_seconds_total",
        kind: Kind::Counter,
        labels: &[("bank", "which"), ("code", "how")],
        help: "What it is.",
    };
    const TIMES: Family = Family {
        name: "y_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "Times.",
    };

    #[test]
    fn both_formats_name_a_counter_in_their_own_way() {
        let write = |format| {
            let mut page = Page::new(format);
            let mut samples = page.family(&COUNTER);
            samples
                .count(&["a\"b\\c\nd", "2xx"], 7)
                .millis(&["b", ""], -1_050);
            page.finish()
        };
        let samples = "x_seconds_total{bank=\"a\\\"b\\\\c\\nd\",code=\"2xx\"} 7\nx_seconds_total{bank=\"b\",code=\"\"} -1.050\n";
        assert_eq!(
            write(Format::Prometheus),
            format!(
                "# HELP x_seconds_total What it is.\n# TYPE x_seconds_total counter\n{samples}"
            )
        );
        assert_eq!(
            write(Format::OpenMetrics),
            format!(
                "# HELP x_seconds What it is.\n# TYPE x_seconds counter\n# UNIT x_seconds seconds\n{samples}# EOF\n"
            )
        );
    }

    #[test]
    fn a_histogram_has_its_buckets_their_sum_and_their_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(1_500_001));
        let mut page = Page::new(Format::Prometheus);
        page.family(&TIMES).histogram(&[], &histogram);
        let text = page.finish();
        for line in [
            "y_seconds_bucket{le=\"1.0\"} 0\n",
            "y_seconds_bucket{le=\"2.5\"} 1\n",
            "y_seconds_bucket{le=\"+Inf\"} 1\n",
            "y_seconds_sum 1.500001\n",
            "y_seconds_count 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn openmetrics_is_for_whoever_prefers_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, wanted) in [
            (None, Format::Prometheus),
            (Some(""), Format::Prometheus),
            (Some("*/*"), Format::Prometheus),
            (Some("text/html, */*;q=0.8"), Format::Prometheus),
            (Some("application/openmetrics-text;q=0"), Format::Prometheus),
            (
                Some("application/openmetrics-text;q=0.2, text/plain;q=0.5"),
                Format::Prometheus,
            ),
            (
                Some("application/openmetrics-text; q=nan"),
                Format::Prometheus,
            ),
            (Some("Application/OpenMetrics-Text"), Format::OpenMetrics),
            (Some(prometheus), Format::OpenMetrics),
        ] {
            assert_eq!(Format::wanted(accept), wanted, "{accept:?}");
        }
    }
}
