//! Other programs at the file, other configurations after it, and what nobody waits for.

use super::*;

#[tokio::test]
async fn an_outcome_that_another_program_keeps_out_is_written_when_it_lets_go() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut attempt = run(&journal, request(1, 1, Some(1))).await;
    journal.mark_sent(&mut attempt, NOW).await.unwrap();
    let other = Connection::open(&place.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let held = journal.finish(&mut attempt, done("{}"), NOW).await;
    assert_eq!(held, Err(JournalError::Held));
    other.execute_batch("ROLLBACK").unwrap();
    let replay = journal.reserve(request(1, 1, Some(1)), NOW).await.unwrap();
    assert!(
        matches!(
            replay,
            Reserved::Replay {
                answer: Some(_),
                ..
            }
        ),
        "{replay:?}"
    );
    journal.close();
}

#[tokio::test]
async fn a_reader_that_stays_delays_nobody() {
    let place = Place::new();
    let (journal, _) = place.open();
    drop(run(&journal, request(1, 1, None)).await);
    let reader = Connection::open(&place.path).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let seen: i64 = reader
        .query_row("SELECT count(*) FROM operation", [], |row| row.get(0))
        .unwrap();
    assert_eq!(seen, 1);
    for mode in ["TRUNCATE", "PASSIVE"] {
        let started = std::time::Instant::now();
        let own = Connection::open(&place.path).unwrap();
        // What an idle writer does meanwhile.
        open::checkpoint(&own, mode).unwrap();
        assert!(started.elapsed() < Duration::from_secs(1), "{mode} waited");
    }
    journal.close();
}

#[tokio::test]
async fn done_about_nothing_keeps_nobody_off_and_is_forgotten_in_time() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut attempt = run(&journal, request(1, 1, None)).await;
    journal.mark_sent(&mut attempt, NOW).await.unwrap();
    journal.finish(&mut attempt, done("{}"), NOW).await.unwrap();
    assert_eq!(journal.counts().undelivered.load(Ordering::Relaxed), 0);
    let years = i64::try_from(KEEP_OPERATIONS.as_millis()).unwrap();
    assert_eq!(journal.purge(UnixMillis(NOW.0 + years + 1)).await, Ok(1));
    journal.close();
}

#[tokio::test]
async fn what_open_operations_depend_on_is_told() {
    let place = Place::new();
    let (journal, _) = place.open();
    let mut attempt = run(&journal, request(1, 1, Some(1))).await;
    journal.mark_sent(&mut attempt, NOW).await.unwrap();
    let id = attempt.id().to_string();
    drop(attempt);
    drop(run(&journal, request(2, 2, None)).await);
    journal.close();
    drop(journal);
    let (journal, report) = place.open();
    let expected = Dependency {
        bank: "priorbank".to_owned(),
        pointers: Some("/session_id".to_owned()),
        operations: 1,
        first: id,
    };
    assert_eq!(report.dependencies, [expected]);
    assert_eq!(report.waiting, 1);
    journal.close();
}
