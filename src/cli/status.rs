//! `priorgate status`: the running gate's own account, as JSON or as a table for people.
//!
//! It owns how the document looks on a terminal. Text in it may come from elsewhere (the subject of
//! a certificate), so none is printed as it is.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::style::{Style, printable};
use super::{OK, PROBLEM, Target, client, complain, failed, print_json};
use crate::admin::status::{
    Audit, Bank, Breaker, Callback, Certificate, Confinement, Denied, Journal, ListenAddress,
    Phase, Status,
};

const DAY: u64 = 86_400;
/// Days before its end from which a certificate is marked: banks take weeks to issue one.
const SOON: u64 = 30;

/// Asks and prints. Gives the exit code.
pub(super) fn run(target: &Target, style: Style, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let socket = match target.socket() {
        Ok(socket) => socket,
        Err(failure) => return failed(failure, target.json, out, err),
    };
    let document = match client::ask(&socket, &json!({"command": "status"})) {
        Ok(document) => document,
        Err(error) => return failed(error.into(), target.json, out, err),
    };
    if target.json {
        print_json(out, &document);
        return OK;
    }
    let Ok(status) = serde_json::from_value::<Status>(document) else {
        complain(
            err,
            "the gate is of another version than this command; --json shows its status",
        );
        return PROBLEM;
    };
    let _ = Table {
        out,
        style,
        now: SystemTime::now(),
    }
    .print(&status);
    OK
}

struct Table<'o> {
    out: &'o mut dyn Write,
    style: Style,
    now: SystemTime,
}

impl Table<'_> {
    fn print(&mut self, status: &Status) -> io::Result<()> {
        let style = self.style;
        let phase = status.phase.to_string();
        let phase = match status.phase {
            Phase::Ready => style.good(&phase),
            Phase::Starting | Phase::Reloading | Phase::Draining => style.warn(&phase),
        };
        let name = style.bold(&format!("priorgate {}", printable(&status.version)));
        writeln!(self.out, "{name}  {phase}")?;
        let since = self
            .now
            .duration_since(status.started_at.into())
            .unwrap_or_default();
        let process = format!(
            "{}, up {} since {}",
            status.pid,
            span(since),
            status.started_at
        );
        self.row("process", &process)?;
        self.row("config", &printable(&status.config))?;
        let reload = match &status.last_reload {
            None => "none".to_owned(),
            Some(reload) if reload.ok => format!("{} {}", style.good("ok"), reload.at),
            Some(reload) => {
                let why = printable(reload.error.as_deref().unwrap_or("unknown"));
                format!("{} {}: {why}", style.bad("failed"), reload.at)
            }
        };
        self.row("last reload", &reload)?;
        self.rows(
            "confinement",
            self.confinement(&status.confinement).into_iter(),
        )?;
        if let Some(keyholder) = &status.keyholder {
            let up = if keyholder.up {
                "up".to_owned()
            } else {
                style.bad("does not answer: no new connection to a bank can be made")
            };
            let signer = keyholder.pid.map(|pid| format!(", signer {pid}"));
            let signer = signer.unwrap_or_default();
            let (signatures, restarts) = (keyholder.signatures, keyholder.restarts);
            let line = format!("{up}{signer}, {signatures} signatures, {restarts} restarts");
            self.row("keyholder", &line)?;
        }
        if let Some(journal) = &status.journal {
            self.rows("journal", self.journal(journal).into_iter())?;
        }
        if let Some(audit) = &status.audit {
            self.rows("audit log", self.audit(audit).into_iter())?;
        }
        let admin = [&status.admin.unix, &status.admin.tcp];
        self.rows("admin", admin.into_iter().flatten().map(|at| printable(at)))?;
        if status.log_dropped > 0 {
            let dropped = format!("{} lines dropped", status.log_dropped);
            self.row("log", &style.warn(&dropped))?;
        }
        self.rows(
            "warnings",
            status
                .warnings
                .iter()
                .map(|text| style.warn(&printable(text))),
        )?;
        for bank in &status.banks {
            writeln!(self.out)?;
            self.bank(bank)?;
        }
        for callback in &status.callbacks {
            writeln!(self.out)?;
            self.callback(callback)?;
        }
        Ok(())
    }

    fn callback(&mut self, callback: &Callback) -> io::Result<()> {
        let style = self.style;
        let name = style.bold(&format!("callback {}", printable(&callback.name)));
        writeln!(self.out, "{name}  {}", printable(&callback.path))?;
        let listen = callback.listen.iter().map(|listen| match listen {
            ListenAddress::Unix(at) | ListenAddress::Tcp(at) => printable(at),
        });
        self.rows("listen", listen)?;
        let rejected = format!("{} rejected", callback.rejected);
        let rejected = if callback.rejected > 0 {
            style.warn(&rejected)
        } else {
            rejected
        };
        self.row(
            "events",
            &format!(
                "{} accepted, {} repeated, {rejected}, {} refused",
                callback.accepted, callback.repeated, callback.refused
            ),
        )?;
        let dead = format!("{} dead", callback.dead);
        let dead = if callback.dead > 0 {
            style.bad(&dead)
        } else {
            dead
        };
        let held = format!("{} held", callback.held);
        let held = if callback.held > 0 {
            style.warn(&held)
        } else {
            held
        };
        let since = callback
            .oldest
            .map_or_else(String::new, |oldest| format!(" since {oldest}"));
        self.row(
            "shop",
            &format!("{} waiting{since}, {held}, {dead}", callback.waiting),
        )?;
        self.denied(&callback.denied)
    }

    fn bank(&mut self, bank: &Bank) -> io::Result<()> {
        let style = self.style;
        let name = style.bold(&format!("bank {}", printable(&bank.name)));
        writeln!(
            self.out,
            "{name}  {} ({})",
            printable(&bank.url),
            bank.transport
        )?;
        let listen = bank.listen.iter().map(|listen| match listen {
            ListenAddress::Unix(at) | ListenAddress::Tcp(at) => printable(at),
        });
        self.rows("listen", listen)?;
        self.row("generation", &bank.generation.to_string())?;
        if let Some(certificate) = &bank.certificate {
            let lines = [
                printable(&certificate.subject),
                self.expiry(certificate),
                format!("key sha256 {}", printable(&certificate.spki_sha256)),
            ];
            self.rows("certificate", lines.into_iter())?;
        }
        self.rows("addresses", bank.addresses.iter().map(|at| printable(at)))?;
        let breaker = bank.breaker.to_string();
        let breaker = match bank.breaker {
            Breaker::Closed => breaker,
            Breaker::Open => style.bad("open: too many connects failed, not dialled for a while"),
            Breaker::Probing => style.warn(&breaker),
        };
        self.row("breaker", &breaker)?;
        let pool = bank.pool;
        let pool = format!(
            "{} idle, {} opened, {} reused",
            pool.idle, pool.opened, pool.reused
        );
        self.row("pool", &pool)?;
        self.row(
            "now",
            &format!("{} in flight, {} queued", bank.in_flight, bank.queued),
        )?;
        let requests = bank.requests;
        let unknown = format!("{} unknown", requests.unknown);
        let unknown = if requests.unknown > 0 {
            style.warn(&unknown)
        } else {
            unknown
        };
        let (answered, not_sent) = (requests.answered, requests.not_sent);
        self.row(
            "requests",
            &format!("{answered} answered, {not_sent} not sent, {unknown}"),
        )?;
        self.denied(&bank.denied)
    }

    /// Nothing where nobody was denied.
    fn denied(&mut self, denied: &Denied) -> io::Result<()> {
        if denied.total == 0 {
            return Ok(());
        }
        let mut text = format!("{} requests", denied.total);
        if let Some(last) = &denied.last {
            let uid = last
                .uid
                .map_or_else(|| "an unknown uid".to_owned(), |uid| format!("uid {uid}"));
            let (cause, listener) = (printable(&last.cause), printable(&last.listener));
            text = format!("{text}, last {}: {uid} on {listener} ({cause})", last.at);
        }
        let text = self.style.warn(&text);
        self.row("denied", &text)
    }

    /// The file, what is wrong with it, and what in it waits for somebody.
    fn journal(&self, journal: &Journal) -> Vec<String> {
        let style = self.style;
        let unknown = format!("{} unknown", journal.unknown);
        let unknown = if journal.unknown > 0 {
            style.warn(&unknown)
        } else {
            unknown
        };
        let counts = format!(
            "{} open, {unknown}, {} answered to nobody",
            journal.open, journal.undelivered
        );
        let mut lines = vec![printable(&journal.file), counts];
        if let Some(why) = &journal.failed {
            lines.push(style.bad(&format!("failed: {}", printable(why))));
        }
        if journal.doubted {
            lines.push(style.bad(
                "does not know what the audit log knows: guarded requests are refused until `priorgate operations reconcile`",
            ));
        }
        if journal.frozen {
            lines.push(style.warn("frozen: guarded requests are refused"));
        }
        if journal.full {
            lines.push(style.bad("no space: new operations are refused"));
        }
        lines
    }

    /// The level, and a line for each list that is not empty.
    fn confinement(&self, confinement: &Confinement) -> Vec<String> {
        let style = self.style;
        let list = |items: &[String]| printable(&items.join(", "));
        let mut lines = vec![printable(&confinement.level)];
        if !confinement.in_force.is_empty() {
            lines.push(format!("in force: {}", list(&confinement.in_force)));
        }
        if !confinement.missing.is_empty() {
            lines.push(style.bad(&format!("missing: {}", list(&confinement.missing))));
        }
        if !confinement.not_offered.is_empty() {
            let items = list(&confinement.not_offered);
            lines.push(style.warn(&format!("not offered by this kernel: {items}")));
        }
        if let Some(why) = &confinement.restart_needed {
            lines.push(style.bad(&format!("restart needed: {}", printable(why))));
        }
        lines
    }

    /// The file, how far it is, and how far it is signed.
    fn audit(&self, audit: &Audit) -> Vec<String> {
        let style = self.style;
        let signed = match (audit.signs, audit.signed) {
            (false, _) => style.warn("not signed"),
            (true, 0) => "nothing signed yet".to_owned(),
            (true, seq) => format!("signed up to {seq}"),
        };
        let mut counts = format!("record {}, {signed}", audit.seq);
        if audit.lost > 0 {
            counts.push_str(&style.warn(&format!(", {} lost", audit.lost)));
        }
        let mut lines = vec![printable(&audit.file), counts];
        if let Some(why) = &audit.failing {
            lines.push(style.bad(&format!("not written: {}", printable(why))));
        }
        if let Some(why) = &audit.unsigned {
            lines.push(style.bad(&format!("not signed: {}", printable(why))));
        }
        lines
    }

    fn expiry(&self, certificate: &Certificate) -> String {
        let end = certificate.not_after;
        let days = |left: Duration| left.as_secs() / DAY;
        match SystemTime::from(end).duration_since(self.now) {
            Ok(left) if days(left) < SOON => self
                .style
                .warn(&format!("until {end}, {} days left", days(left))),
            Ok(left) => format!("until {end}, {} days left", days(left)),
            Err(past) => {
                let text = format!("expired {end}, {} days ago", days(past.duration()));
                self.style.bad(&text)
            }
        }
    }

    /// Lines under one name; nothing when there are none.
    fn rows(&mut self, name: &str, values: impl Iterator<Item = String>) -> io::Result<()> {
        let mut name = name;
        for value in values {
            self.row(name, &value)?;
            name = "";
        }
        Ok(())
    }

    fn row(&mut self, name: &str, value: &str) -> io::Result<()> {
        let name = self.style.dim(&format!("{name:<12}"));
        writeln!(self.out, "  {name} {value}")
    }
}

/// The two largest units, as people say it.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours) = (seconds / DAY, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::tests::sample;
    use crate::admin::status::{LastReload, Timestamp};

    fn printed(status: &Status, now: SystemTime) -> String {
        let mut out = Vec::new();
        Table {
            out: &mut out,
            style: Style::plain(),
            now,
        }
        .print(status)
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_table_shows_what_an_administrator_asks_for() {
        let expected = "\
priorgate 0.1.0  ready
  process      4711, up 1d 1h since 2026-09-21T14:13:20Z
  config       /etc/priorgate/config.yaml
  last reload  none
  confinement  required
               in force: not dumpable, seccomp
               not offered by this kernel: Landlock scopes
  keyholder    up, signer 4713, 17 signatures, 0 restarts
  journal      /var/lib/priorgate/journal.db
               1 open, 2 unknown, 3 answered to nobody
  admin        /run/priorgate/admin.sock

bank priorbank  https://api.bank.example (mtls)
  listen       /run/priorgate/priorbank.sock
               127.0.0.1:9180
  generation   1
  certificate  CN=shop
               until 2027-01-15T08:00:00Z, 114 days left
               key sha256 KEY
  addresses    192.0.2.7
  breaker      closed
  pool         1 idle, 2 opened, 40 reused
  now          3 in flight, 0 queued
  requests     41 answered, 2 not sent, 1 unknown
  denied       3 requests, last 2026-09-21T14:13:20Z: uid 1001 on tcp:127.0.0.1:9180 (not_listed)

callback priorbank  /bank/priorbank/callback
  listen       127.0.0.1:9181
  events       5 accepted, 6 repeated, 7 rejected, 8 refused
  shop         9 waiting, 10 held, 11 dead
";
        let expected = expected.replace("KEY", &"ab".repeat(32));
        assert_eq!(printed(&sample(), at(1_790_000_000 + 90_000)), expected);
    }

    #[test]
    fn trouble_is_shown() {
        let mut status = sample();
        status.last_reload = Some(LastReload {
            at: Timestamp::from(at(1_790_000_060)),
            ok: false,
            error: Some("the key does\nnot fit".to_owned()),
        });
        status.log_dropped = 3;
        status.warnings = vec!["unsafe_listen is on".to_owned()];
        status.banks[0].breaker = Breaker::Open;
        let text = printed(&status, at(1_800_000_000 + 3 * DAY));
        for line in [
            "last reload  failed 2026-09-21T14:14:20Z: the key does\u{fffd}not fit\n",
            "log          3 lines dropped\n",
            "warnings     unsafe_listen is on\n",
            "expired 2027-01-15T08:00:00Z, 3 days ago\n",
            "breaker      open",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_subject_cannot_steer_the_terminal() {
        let mut status = sample();
        let certificate = status.banks[0].certificate.as_mut().unwrap();
        certificate.subject = "CN=\u{1b}]0;owned\u{7}\nready".to_owned();
        let text = printed(&status, at(1_790_000_000));
        assert!(
            text.contains("CN=\u{fffd}]0;owned\u{fffd}\u{fffd}ready"),
            "{text}"
        );
    }

    #[test]
    fn a_span_has_its_two_largest_units() {
        let said = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([said(0), said(61), said(3_720)], ["0s", "1m 1s", "1h 2m"]);
        assert_eq!(said(2 * DAY + 3 * 3600 + 59), "2d 3h");
    }
}
