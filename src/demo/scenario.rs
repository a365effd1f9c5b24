//! What the demo plays: each step a request, what must become of it, and one line about it.

use std::io::{self, Write};
use std::time::Duration;

use super::client::{Answer, Target, send};
use super::stage::Stage;
use super::{callbacks, refunds};
use crate::cli::style::Style;

/// An order as the shop sends it; the prices add up, the names are Cyrillic.
pub(super) const ORDER: &str = r#"{"order_ref":"demo-1","amount":"1250.50","currency":"BYN","term":12,"items":[{"name":"Холодильник","qty":1,"price":"1000.50"},{"name":"Чайник","qty":2,"price":"125.00"}]}"#;

/// One line of the play.
pub(super) struct Line {
    pub(super) good: bool,
    pub(super) outcome: String,
    pub(super) took: Duration,
    pub(super) what: String,
}

/// Where the play is shown, and how it goes.
pub(super) struct Show<'o> {
    out: &'o mut dyn Write,
    style: Style,
    good: usize,
    total: usize,
}

impl Show<'_> {
    /// One line of the play, and whether it went as it should.
    pub(super) fn step(&mut self, title: &str, line: Line) -> io::Result<()> {
        self.total = self.total.saturating_add(1);
        self.good = self.good.saturating_add(usize::from(line.good));
        let style = self.style;
        let mark = if line.good {
            style.good("ok")
        } else {
            style.bad("NO")
        };
        let milliseconds = format!("{} ms", line.took.as_millis());
        // Padded before it is coloured: escape codes have no width.
        let outcome = style.dim(&format!("{:<9}", line.outcome));
        writeln!(
            self.out,
            "  {mark}  {title:<52} {outcome} {milliseconds:>8}  {}",
            line.what
        )?;
        self.out.flush()
    }
}

/// Plays every step; gives whether all went as they should.
pub(super) fn play(stage: &mut Stage, style: Style, out: &mut dyn Write) -> io::Result<bool> {
    let socket = Target::Socket(stage.socket.clone());
    let tcp = Target::Tcp(stage.tcp);
    let mut session = String::new();
    let mut show = Show {
        out,
        style,
        good: 0,
        total: 0,
    };

    show.step(
        "straight at the bank, without a certificate",
        stage.knock_without_certificate().into(),
    )?;

    let answer = create(&socket, &[], ORDER);
    if let Ok(found) = &answer {
        session = found.member("session_id").unwrap_or_default();
    }
    show.step(
        "create, over the Unix socket",
        expect_member(answer, "payment_url"),
    )?;

    let token = [("Priorgate-Token", stage.token.as_str())];
    let second = ORDER.replace("demo-1", "demo-2");
    show.step(
        "create, over TCP with a token",
        expect_member(create(&tcp, &token, &second), "payment_url"),
    )?;

    let answer = create(&tcp, &[], ORDER);
    show.step(
        "create, over TCP without the token",
        expect_problem(answer, 401, "token_required", "not_sent"),
    )?;

    let path = format!("/installment/{session}");
    let answer = send(&socket, "GET", &path, &[], "");
    show.step("status of the session", expect_member(answer, "status"))?;

    refunds::play(stage, &mut show, &session)?;
    callbacks::play(stage, &mut show, &session)?;

    let answer = send(&socket, "POST", "/installment/s1/delete", &[], "");
    show.step(
        "a path that is no route",
        expect_problem(answer, 404, "route_not_found", "not_sent"),
    )?;

    let lost = ORDER.replace("demo-1", "fault-drop-after-read");
    let answer = create(&socket, &[], &lost);
    show.step(
        "the bank hangs up after reading",
        expect_problem(answer, 502, "bank_disconnected", "unknown"),
    )?;

    let answer = create(&Target::Socket(stage.down_socket.clone()), &[], ORDER);
    show.step(
        "another bank, which is down",
        expect_problem(answer, 502, "bank_unreachable", "not_sent"),
    )?;

    let Show {
        out, good, total, ..
    } = show;
    writeln!(out)?;
    let seen = stage.certificates_seen();
    writeln!(
        out,
        "  The bank saw these client certificates: {}",
        seen.join(", ")
    )?;
    let all = good == total && !seen.is_empty();
    let verdict = format!("  {good} of {total} steps went as they should.");
    writeln!(
        out,
        "{}",
        if all {
            style.good(&verdict)
        } else {
            style.bad(&verdict)
        }
    )?;
    out.flush()?;
    Ok(all)
}

pub(super) fn create(target: &Target, headers: &[(&str, &str)], body: &str) -> io::Result<Answer> {
    post(target, "/installment/create", headers, body)
}

pub(super) fn post(
    target: &Target,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend_from_slice(headers);
    send(target, "POST", path, &all, body)
}

/// A success of the bank with this member in its body.
pub(super) fn expect_member(answer: io::Result<Answer>, member: &str) -> Line {
    judge(answer, |answer| {
        let value = answer.member(member);
        let good = (200..300).contains(&answer.status)
            && answer.header("Priorgate-Outcome") == "answered"
            && value.is_some();
        let value = short(&value.unwrap_or_default());
        (good, format!("{} {member} {value}", answer.status))
    })
}

/// Enough to recognise an id or a URL by: the line must fit a terminal.
fn short(text: &str) -> String {
    const MAX: usize = 32;
    if text.chars().count() <= MAX {
        return text.to_owned();
    }
    text.chars().take(MAX).chain(['…']).collect()
}

/// A problem of the gate with this status, code and outcome.
pub(super) fn expect_problem(
    answer: io::Result<Answer>,
    status: u16,
    code: &str,
    outcome: &str,
) -> Line {
    judge(answer, |answer| {
        let found = answer.member("code").unwrap_or_default();
        let good = answer.status == status
            && found == code
            && answer.header("Priorgate-Outcome") == outcome;
        (good, format!("{} {found}", answer.status))
    })
}

pub(super) fn judge(
    answer: io::Result<Answer>,
    look: impl FnOnce(&Answer) -> (bool, String),
) -> Line {
    match answer {
        Ok(answer) => {
            let (good, what) = look(&answer);
            let outcome = answer.header("Priorgate-Outcome").to_owned();
            Line {
                good,
                outcome,
                took: answer.took,
                what,
            }
        }
        Err(error) => Line {
            good: false,
            outcome: String::new(),
            took: Duration::ZERO,
            what: format!("no answer: {error}"),
        },
    }
}

impl From<(bool, Duration, String)> for Line {
    fn from((good, took, what): (bool, Duration, String)) -> Self {
        let outcome = if good {
            "refused".to_owned()
        } else {
            String::new()
        };
        Self {
            good,
            outcome,
            took,
            what,
        }
    }
}
