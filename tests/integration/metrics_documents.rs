//! docs/metrics.md, the alerts and the dashboard, held to the catalogue of the code.
//!
//! `UPDATE_GOLDEN=1 cargo test metrics_documents` writes docs/metrics.md anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use priorgate::metrics::catalog::{ALL, Kind};
use serde_json::Value;

const ALERTS: &str = "contrib/prometheus/alerts.yaml";
const ALERT_TESTS: &str = "contrib/prometheus/alerts.test.yaml";
const DASHBOARD: &str = "contrib/grafana/dashboard.json";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The rules of the alerts' file.
fn rules() -> Vec<Value> {
    let all: Value = serde_yaml::from_str(&read(ALERTS)).unwrap();
    let groups = all["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    rules.cloned().collect()
}

fn alerts() -> Vec<Value> {
    let mut alerts = rules();
    alerts.retain(|rule| rule["alert"].is_string());
    alerts
}

/// Names of ours in an expression: families, and series of histograms.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with("priorgate_"))
        .map(str::to_owned)
        .collect()
}

/// Every name that a scrape can have.
fn known() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for family in ALL {
        names.insert(family.name.to_owned());
        if family.kind == Kind::Histogram {
            for suffix in ["_bucket", "_sum", "_count"] {
                names.insert(format!("{}{suffix}", family.name));
            }
        }
    }
    names
}

fn document() -> String {
    let mut text = String::from(
        "# Metrics and alarms\n\n\
         Made from the code by `UPDATE_GOLDEN=1 cargo test metrics_documents`; a test holds the two together.\n\n\
         `GET /metrics` on `admin.tcp` (loopback, `Host` checked) gives all of it as Prometheus text, or as OpenMetrics to \
         whoever prefers that in `Accept`. Units are seconds and bytes. Histograms have the same bounds, from 0.5 ms to \
         30 s. What the configuration does not have (an audit log, a keyholder, callbacks) has no samples. A counter begins \
         at 0 with the process, and a reload resets none.\n\n\
         A label's values come from the configuration or from a table of the program, never from a request: no path, header, \
         method or token makes a new series. `route` is empty where a request was refused before it had a route. Keyholder, \
         disk, certificates and the audit log's backlog are looked at every five seconds.\n\n\
         Beside it are `/livez` (the process answers), `/readyz` (200, or 503 with everything that fails: a bank without its \
         identity, a keyholder that does not answer, a journal that does not write, a listener that is down; no bank is \
         dialled for it) and `/status.json` (what `priorgate status` prints).\n\n\
         ## Families\n\n| name | kind | labels | what it says |\n|---|---|---|---|\n",
    );
    for family in ALL {
        let labels: Vec<_> = family
            .labels
            .iter()
            .map(|(name, meaning)| format!("`{name}`: {meaning}"))
            .collect();
        let (name, kind, labels) = (family.name, family.kind.as_str(), labels.join("; "));
        writeln!(text, "| `{name}` | {kind} | {labels} | {} |", family.help).unwrap();
    }
    text.push_str(
        "\n## Alarms\n\n\
         The gate tells its log of each of these itself, once when it begins; `priorgate status` and `/status.json` list \
         them as warnings for as long as they last. Certificates and keys are told about 30, 14, 7 and 1 days before their \
         end and when it has come, once for each in a process; `priorgate check` exits with 1 from 30 days on (`--days` says \
         otherwise). A callback's key that another one follows is a rotation, and no alarm.\n\n\
         `contrib/prometheus/alerts.yaml` has the same for Prometheus (its `job` is `priorgate`), and \
         `contrib/grafana/dashboard.json` a dashboard.\n\n| alert | severity | what to do |\n|---|---|---|\n",
    );
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let severity = alert["labels"]["severity"].as_str().unwrap();
        let what = alert["annotations"]["do"].as_str().unwrap();
        writeln!(text, "| `{name}` | {severity} | {what} |").unwrap();
    }
    text
}

#[test]
fn the_document_is_what_the_code_has() {
    let made = document();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path("docs/metrics.md"), &made).unwrap();
    }
    assert_eq!(read("docs/metrics.md"), made);
}

#[test]
fn alerts_and_dashboard_read_only_what_a_scrape_has() {
    let known = known();
    for rule in rules() {
        let unknown: Vec<_> = named(rule["expr"].as_str().unwrap())
            .difference(&known)
            .cloned()
            .collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", rule["alert"]);
    }
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut read = BTreeSet::new();
    for target in targets {
        read.extend(named(target["expr"].as_str().unwrap()));
    }
    let unknown: Vec<_> = read.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(read.len() > 25, "{read:?}");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
}

#[test]
fn every_alert_says_what_to_do_and_has_its_test() {
    let tests = read(ALERT_TESTS);
    let alerts = alerts();
    assert!(alerts.len() >= 20, "{}", alerts.len());
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap();
        for text in ["summary", "do"] {
            assert!(
                alert["annotations"][text].as_str().unwrap().len() > 10,
                "{name}"
            );
        }
        // Once quiet, once firing.
        assert!(
            tests.matches(&format!("alertname: {name}\n")).count() >= 1,
            "{name}"
        );
        assert!(tests.contains(&format!("alertname: {name}}}\n")), "{name}");
    }
}

#[test]
fn a_name_that_no_scrape_has_is_noticed() {
    let names = named(
        "rate(priorgate_requests_total{bank=\"b\"}[5m]) + priorgate:left_seconds + priorgate_nothing",
    );
    let unknown: Vec<_> = names.difference(&known()).cloned().collect();
    assert_eq!(unknown, ["priorgate_nothing"]);
}
