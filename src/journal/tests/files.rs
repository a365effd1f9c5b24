//! Opening: what is refused, what is found, and that tables are searched by index.

use super::*;

#[test]
fn what_others_may_touch_or_what_is_not_ours_is_refused() {
    let place = Place::new();
    let error = |place: &Place| Journal::open(&place.path, OPTIONS, NOW).unwrap_err();
    fs::write(
        &place.path,
        "not a database, but long enough to be taken for one at a glance".repeat(20),
    )
    .unwrap();
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(error(&place), OpenError::Exposed { .. }));
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o600)).unwrap();
    let foreign = error(&place);
    assert!(matches!(foreign, OpenError::Sqlite { .. }), "{foreign}");
    fs::remove_file(&place.path).unwrap();
    let other = Connection::open(&place.path).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o600)).unwrap();
    let foreign = error(&place);
    assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");
    let dir = place.path.parent().unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(error(&place), OpenError::Exposed { .. }));
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let place = Place::new();
    drop(Journal::open(&place.path, OPTIONS, NOW).unwrap());
    let raw = Connection::open(&place.path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let error = Journal::open(&place.path, OPTIONS, NOW)
        .unwrap_err()
        .to_string();
    assert!(error.contains("version 99"), "{error}");
    assert!(Reader::open(&place.path).is_err());
}

#[test]
fn a_damaged_file_is_found_at_the_start() {
    let place = Place::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (journal, _) = place.open();
        for key in 0..200 {
            drop(run(&journal, request(key, key, Some(key))).await);
        }
        journal.close();
    });
    let mut bytes = fs::read(&place.path).unwrap();
    let page = 4096;
    assert!(bytes.len() > 8 * page);
    for byte in &mut bytes[3 * page..6 * page] {
        *byte = 0x55;
    }
    fs::write(&place.path, bytes).unwrap();
    let error = Journal::open(&place.path, OPTIONS, NOW).unwrap_err();
    assert!(
        matches!(error, OpenError::Damaged { .. } | OpenError::Sqlite { .. }),
        "{error}"
    );
}

#[test]
fn tables_are_searched_by_index_where_they_grow() {
    let place = Place::new();
    drop(Journal::open(&place.path, OPTIONS, NOW).unwrap());
    let connection = Connection::open(&place.path).unwrap();
    for (sql, index) in [
        (
            "SELECT row FROM operation WHERE bank = ?1 AND key_hash = ?2",
            "operation_key",
        ),
        (
            "SELECT row FROM operation WHERE bank = ?1 AND subject_hash = ?2 AND subject_hash IS NOT NULL AND holds = 1
             AND row <> ?3",
            "operation_subject",
        ),
        (
            "SELECT row FROM operation WHERE bank = ?1 AND fingerprint = ?2 AND ended_at >= ?3 AND state = 'done'
             AND row <> ?4 ORDER BY ended_at DESC LIMIT 1",
            "operation_done",
        ),
        (
            "SELECT state, count(*) FROM operation WHERE holds = 1 GROUP BY state",
            "operation_holding",
        ),
        (
            "SELECT row FROM operation WHERE holds = 0 AND ended_at < ?1 ORDER BY ended_at LIMIT ?2",
            "operation_ended",
        ),
        (
            "SELECT min(waiting.row) FROM operation AS waiting JOIN operation AS was ON was.row = ?1
             WHERE waiting.bank = was.bank AND waiting.subject_hash = was.subject_hash AND waiting.state = 'unknown'
             AND waiting.holds = 0",
            "operation_in_line",
        ),
    ] {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let marks = statement.parameter_count();
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(vec![0; marks]), |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{sql}: {plan:?}");
    }
}
