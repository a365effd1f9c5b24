//! A scrape of a running gate, as samples.

use std::collections::BTreeMap;

use super::eventually;
use super::gate::Gate;

/// The samples by name and labels, as they are written.
#[derive(Clone, Debug)]
pub(crate) struct Scrape(pub(crate) BTreeMap<String, String>);

impl Scrape {
    pub(crate) fn of(gate: &Gate) -> Self {
        let answer = gate.admin_tcp().get("/metrics");
        assert_eq!(answer.status, 200);
        Self::parse(str::from_utf8(&answer.body).unwrap())
    }

    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut samples = BTreeMap::new();
        for line in lines {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let twice = samples.insert(series.to_owned(), value.to_owned());
            assert_eq!(twice, None, "{series} twice");
        }
        Self(samples)
    }

    /// The value of a series. Panics without it.
    pub(crate) fn value(&self, series: &str) -> f64 {
        let value = self.0.get(series);
        let value = value.unwrap_or_else(|| panic!("no {series}: {:#?}", self.0));
        value.parse().unwrap()
    }

    /// Whether a family has a sample.
    pub(crate) fn has(&self, family: &str) -> bool {
        self.0.keys().any(|series| {
            let name = series.split('{').next().unwrap();
            name == family || name.strip_suffix("_bucket") == Some(family)
        })
    }
}

/// Scrapes until the series has a value that `holds` likes.
pub(crate) fn until_value(gate: &Gate, series: &str, holds: impl Fn(f64) -> bool) {
    let mut last = None;
    eventually(series, || {
        let scrape = Scrape::of(gate);
        let value = scrape.value(series);
        if last.replace(value) != Some(value) {
            println!("{series} {value}");
        }
        holds(value).then_some(())
    });
}
