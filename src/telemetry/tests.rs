//! The queue against writers that stall, fail and come back; the two looks of a line.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::*;

/// An output with a tap: closed, every write waits.
#[derive(Clone, Default)]
struct Tap(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    closed: bool,
    failing: bool,
    stalled: bool,
    refusals: usize,
    text: Vec<u8>,
}

impl Tap {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().text.clone()).unwrap()
    }

    fn until(&self, what: impl Fn(&State) -> bool) {
        let state = self.0.0.lock().unwrap();
        let waited = self
            .0
            .1
            .wait_timeout_while(state, Duration::from_secs(10), |s| !what(s));
        assert!(!waited.unwrap().1.timed_out(), "not within ten seconds");
    }
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.0.lock().unwrap();
        state.stalled = state.closed;
        self.0.1.notify_all();
        let mut state = self.0.1.wait_while(state, |state| state.closed).unwrap();
        state.stalled = false;
        if state.failing {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.refusals > 0 {
            state.refusals -= 1;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Short writes are normal for a pipe.
        let taken = bytes.len().min(1000);
        state.text.extend_from_slice(&bytes[..taken]);
        self.0.1.notify_all();
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was logged inside, as the output got it.
fn logged(format: LogFormat, log: impl FnOnce()) -> String {
    let tap = Tap::default();
    let (telemetry, lines) = started(format, tap.clone());
    let subscriber = subscriber(format, Level::INFO, lines);
    tracing::subscriber::with_default(subscriber, log);
    assert!(telemetry.shutdown(Duration::from_secs(10)));
    tap.text()
}

fn started(format: LogFormat, out: impl Write + Send + 'static) -> (Telemetry, Lines) {
    let (mut telemetry, lines) = Telemetry::new(format, out);
    telemetry.begin().unwrap();
    (telemetry, lines)
}

#[test]
fn lines_wait_for_the_writer_and_are_written_even_if_it_never_began() {
    let tap = Tap::default();
    let (telemetry, mut lines) = Telemetry::new(LogFormat::Json, tap.clone());
    lines.write_all(b"{\"early\":1}\n").unwrap();
    assert!(telemetry.shutdown(Duration::from_secs(5)));
    assert!(tap.text().contains("early"), "{}", tap.text());
}

#[test]
fn a_stalled_output_stops_nobody_and_what_is_lost_is_counted_and_told() {
    const LOGGED: u64 = 20_000;
    let tap = Tap::default();
    let (telemetry, mut lines) = started(LogFormat::Json, tap.clone());
    tap.set(|state| state.closed = true);
    lines.write_all(b"first\n").unwrap();
    tap.until(|state| state.stalled);
    for _ in 1..LOGGED {
        lines.write_all(b"line\n").unwrap();
    }
    let dropped = telemetry.dropped();
    assert!(dropped > 0, "the queue has no bound");
    assert_eq!(telemetry.dropped_counter().get(), dropped);
    tap.set(|state| state.closed = false);
    assert!(telemetry.shutdown(Duration::from_secs(10)));
    let text = tap.text();
    let told = format!("log lines dropped: {dropped}");
    assert_eq!(text.matches(&told).count(), 1, "{told}");
    let written = text
        .lines()
        .filter(|line| ["first", "line"].contains(line))
        .count();
    assert_eq!(u64::try_from(written).unwrap() + dropped, LOGGED);
}

#[test]
fn long_lines_fill_the_queue_by_their_bytes() {
    let tap = Tap::default();
    let (telemetry, mut lines) = started(LogFormat::Json, tap.clone());
    tap.set(|state| state.closed = true);
    lines.write_all(b"first\n").unwrap();
    tap.until(|state| state.stalled);
    // 8 MiB in 800 lines: within the bound of lines, not within that of bytes.
    for _ in 0..800 {
        lines.write_all(&[b'x'; 10 << 10]).unwrap();
    }
    assert!(telemetry.dropped() > 300, "{}", telemetry.dropped());
    assert!(telemetry.dropped() < 500, "{}", telemetry.dropped());
    tap.set(|state| state.closed = false);
}

#[test]
fn an_end_with_a_stalled_output_keeps_its_deadline() {
    let tap = Tap::default();
    let (telemetry, mut lines) = started(LogFormat::Json, tap.clone());
    tap.set(|state| state.closed = true);
    lines.write_all(b"never written\n").unwrap();
    tap.until(|state| state.stalled);
    let start = Instant::now();
    assert!(!telemetry.shutdown(Duration::from_millis(50)));
    assert!(start.elapsed() < Duration::from_secs(5));
    tap.set(|state| state.closed = false);
}

#[test]
fn a_dropped_telemetry_writes_its_last_lines() {
    let tap = Tap::default();
    let (telemetry, mut lines) = started(LogFormat::Json, tap.clone());
    lines.write_all(b"the last\n").unwrap();
    drop(telemetry);
    assert_eq!(tap.text(), "the last\n");
}

#[test]
fn a_failing_output_is_counted_and_written_to_again() {
    let tap = Tap::default();
    let (telemetry, mut lines) = started(LogFormat::Json, tap.clone());
    tap.set(|state| state.failing = true);
    lines.write_all(b"lost\n").unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while telemetry.dropped() == 0 && Instant::now() < until {
        std::thread::yield_now();
    }
    tap.set(|state| state.failing = false);
    lines.write_all(b"kept\n").unwrap();
    assert!(telemetry.shutdown(Duration::from_secs(10)));
    let text = tap.text();
    assert!(text.starts_with("kept\n"), "{text}");
    assert!(text.contains("log lines dropped: 1"), "{text}");
}

#[test]
fn a_non_blocking_output_that_is_full_is_tried_again() {
    let tap = Tap::default();
    tap.set(|state| state.refusals = 3);
    let (telemetry, mut lines) = started(LogFormat::Json, tap.clone());
    lines.write_all(b"whole\n").unwrap();
    assert!(telemetry.shutdown(Duration::from_secs(10)));
    assert_eq!(tap.text(), "whole\n");
}

#[test]
fn a_json_line_is_one_flat_object_with_its_time_in_utc() {
    let text = logged(LogFormat::Json, || {
        let span = tracing::info_span!("outer", secret = "in a span");
        let _inside = span.enter();
        tracing::info!(bank = "priorbank", status = 200, evil = "a\nb", "answered");
        tracing::debug!("below the level");
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(line["message"], "answered");
    assert_eq!(line["level"], "INFO");
    assert_eq!(
        (&line["bank"], &line["status"]),
        (&"priorbank".into(), &200.into())
    );
    let time = line["timestamp"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    assert!(!text.contains("in a span"), "{text}");
}

#[test]
fn a_line_break_from_outside_cannot_forge_a_record_for_people() {
    let text = logged(LogFormat::Pretty, || {
        tracing::info!(path = %"/a\nforged\r\u{1b}[31m", "denied");
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("INFO denied"), "{text}");
    assert!(lines[1].starts_with("    forged\\r"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn a_line_over_its_bound_is_cut_and_still_a_record() {
    let long = "\"".repeat(20 << 10);
    let text = logged(LogFormat::Json, || tracing::info!(long, "a novel"));
    assert!(text.len() < 16 << 10, "{}", text.len());
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert!(
        line["message"].as_str().unwrap().contains("was cut"),
        "{text}"
    );
    assert!(
        line["start"].as_str().unwrap().contains("a novel"),
        "{text}"
    );
    let text = logged(LogFormat::Pretty, || tracing::info!(long, "a novel"));
    assert!(
        text.len() < 16 << 10 && text.contains("was cut"),
        "{}",
        text.len()
    );
    assert_eq!(text.lines().count(), 1);
}

/// Set in a process that plays the gate: `init` is global, and its stderr is the real one.
const CHILD: &str = "PRIORGATE_TEST_LOG_CHILD";

/// This test's own binary, running nothing but `test`.
fn child(test: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            &format!("telemetry::tests::{test}"),
        ])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_process_logs_to_stderr_and_a_panic_without_its_message() {
    if std::env::var_os(CHILD).is_some() {
        let mut telemetry = init(LogFormat::Json, Level::INFO).unwrap();
        telemetry.begin().unwrap();
        let again = init(LogFormat::Json, Level::INFO).unwrap_err();
        assert!(matches!(again, TelemetryError::AlreadySet));
        tracing::info!("begun");
        let task = std::thread::spawn(|| panic!("a body with a name in it"));
        task.join().unwrap_err();
        assert!(telemetry.shutdown(Duration::from_secs(10)));
        return;
    }
    let test = "the_process_logs_to_stderr_and_a_panic_without_its_message";
    let output = child(test).wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["message"], "begun");
    assert!(
        lines[1]["place"]
            .as_str()
            .unwrap()
            .contains("telemetry/tests.rs:"),
        "{text}"
    );
    assert!(!text.contains("a name in it"), "{text}");
}

#[test]
fn a_process_whose_stderr_nobody_reads_works_on_and_ends() {
    if std::env::var_os(CHILD).is_some() {
        let mut telemetry = init(LogFormat::Json, Level::INFO).unwrap();
        telemetry.begin().unwrap();
        for number in 0..20_000 {
            tracing::info!(number, "much more than a pipe and the queue hold");
        }
        assert!(telemetry.dropped() > 0);
        assert!(!telemetry.shutdown(Duration::from_millis(50)));
        return;
    }
    let mut child = child("a_process_whose_stderr_nobody_reads_works_on_and_ends");
    let until = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it waits for its reader");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{status}");
}
