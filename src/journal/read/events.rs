//! Reading the inbox: lists of events and single ones.
//!
//! What the bank's body names (event, session) and the body itself are for operators; everybody else tells events apart by
//! short hashes.

use rusqlite::{OptionalExtension, Row, ToSql, params_from_iter};
use serde::Serialize;

use super::{Depth, Intervention, LIST_MAX, Reader, interventions};
use crate::journal::UnixMillis;
use crate::journal::error::StoreError;
use crate::journal::inbox::EventId;
use crate::policy::operation::Digest;
use crate::policy::status::{Mark, Status};
use crate::policy::webhook;

/// Where an event stands in the inbox.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventState {
    /// Behind another event of its session.
    Waiting,
    /// First of its session: tried when its time comes.
    Head,
    /// Being delivered.
    Claimed,
    /// The shop has it.
    Delivered,
    /// A contradiction: waits for a person.
    Held,
    /// Given up: tried again only by hand.
    Dead,
    /// Given up by a person.
    Dropped,
    /// Made pointless by a later event.
    Superseded,
    /// Old news that the bank sent again.
    Repeated,
}

impl EventState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Head,
        Self::Claimed,
        Self::Delivered,
        Self::Held,
        Self::Dead,
        Self::Dropped,
        Self::Superseded,
        Self::Repeated,
    ];

    /// Its name in the file and on the socket.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Head => "head",
            Self::Claimed => "claimed",
            Self::Delivered => "delivered",
            Self::Held => "held",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
            Self::Superseded => "superseded",
            Self::Repeated => "repeated",
        }
    }

    /// Reads [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether something is still to become of it: exactly then the file has no end for it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(
            self,
            Self::Waiting | Self::Head | Self::Claimed | Self::Held
        )
    }
}

/// Which events a list shows: all of what is given must fit.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// One of these states; all, if empty.
    pub states: Vec<EventState>,
    /// Only those of which something is still to become.
    pub open: bool,
    /// This callback of the configuration.
    pub source: Option<String>,
    /// This session, as the body names it.
    pub session: Option<String>,
    /// Received before this time.
    pub received_before: Option<UnixMillis>,
    /// Received at this time or later.
    pub received_after: Option<UnixMillis>,
    /// Older than this one.
    pub before: Option<EventId>,
    /// At most so many, newest first.
    pub limit: u32,
}

/// One event, as commands show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventRow {
    /// Its number.
    pub id: i64,
    /// The callback's name in the configuration.
    pub source: String,
    /// Its identity, as the bank gives it: for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Stands in for it.
    pub event_hash: String,
    /// The session that its body names: for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Stands in for it.
    pub session_hash: String,
    /// Whether its body names a session.
    pub session_known: bool,
    /// What it says; none for a word that is not known.
    pub status: Option<&'static str>,
    /// Where it stands.
    pub state: &'static str,
    /// How its delivery is marked.
    pub mark: &'static str,
    /// A person let it go although it was held.
    pub released: bool,
    /// Which key verified it.
    pub key_id: String,
    /// The `webhook-id` by which the shop knows it.
    pub delivery: String,
    /// How often it was tried.
    pub attempts: i64,
    /// How often the bank sent it.
    pub times_received: i64,
    /// Milliseconds since 1970.
    pub received_at: i64,
    /// When it is tried next, if it is first of its session.
    pub next_at: Option<i64>,
    /// Since when the shop has been answering what is no acknowledgement.
    pub refused_since: Option<i64>,
    /// When it was delivered or given up.
    pub ended_at: Option<i64>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// As the bank sent it.
    pub content_type: Option<String>,
    /// How long its body is; none once it is no longer kept.
    pub bytes: Option<u64>,
}

/// Everything about one event.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownEvent {
    /// As in a list.
    pub event: EventRow,
    /// The body, where it was asked for by somebody who may see it.
    pub body: Option<Vec<u8>>,
    /// What people did to it.
    pub interventions: Vec<Intervention>,
}

const COLUMNS: &str = "row, source, event, body_hash, session, session_known, status, state, mark, released, key_id, \
    attempts, times_received, received_at, next_at, refused_since, ended_at, last_error, content_type, \
    (SELECT length(body) FROM callback_body AS kept WHERE kept.callback = callback.row) AS bytes";

/// The names of all callbacks, one look into the index for each: they are few and their events may be many.
const SOURCES: &str = "WITH RECURSIVE name (source) AS (
    SELECT min(source) FROM callback
    UNION ALL
    SELECT (SELECT min(source) FROM callback WHERE source > name.source) FROM name WHERE name.source IS NOT NULL
) SELECT source FROM name WHERE source IS NOT NULL";

/// A statement and what fills its question marks.
type Query = (String, Vec<Box<dyn ToSql>>);

impl Reader {
    /// Events, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn events(&self, filter: &EventFilter, depth: Depth) -> Result<Vec<EventRow>, StoreError> {
        let sources = match &filter.source {
            Some(source) => vec![source.clone()],
            // An index begins with the callback's name: without one, a session is looked for under each.
            None if filter.session.is_some() => self
                .connection
                .prepare(SOURCES)?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?,
            None => Vec::new(),
        };
        let (sql, values) = query(filter, &sources);
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| event(row, depth))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The event that the shop knows by this `webhook-id`. Looks at every event of its callback: for people who have no more
    /// than the shop's log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delivered_as(&self, delivery: &str) -> Result<Option<EventId>, StoreError> {
        let Some((source, _)) = delivery.rsplit_once('_') else {
            return Ok(None);
        };
        let sql =
            "SELECT row, event, body_hash FROM callback WHERE source = ?1 AND state <> 'repeated'";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([source])?;
        while let Some(row) = rows.next()? {
            let event: String = row.get("event")?;
            if webhook::delivery_id(source, &event, &row.get("body_hash")?) == delivery {
                return Ok(EventId::new(row.get("row")?));
            }
        }
        Ok(None)
    }

    /// One event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn event(&self, id: EventId, depth: Depth) -> Result<Option<ShownEvent>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM callback WHERE row = ?1");
        let found = self
            .connection
            .query_row(&sql, [id.number()], |row| event(row, depth))
            .optional()?;
        let Some(event) = found else {
            return Ok(None);
        };
        let body = if depth.body {
            let sql = "SELECT body FROM callback_body WHERE callback = ?1";
            let body = self
                .connection
                .query_row(sql, [id.number()], |row| row.get(0));
            body.optional()?
        } else {
            None
        };
        Ok(Some(ShownEvent {
            event,
            body,
            interventions: interventions(&self.connection, "callback", id.number())?,
        }))
    }
}

/// Names the index where it matters: without statistics SQLite would rather walk the whole table, newest first, and with
/// nothing open behind a year of events that is a long walk.
fn query(filter: &EventFilter, sources: &[String]) -> Query {
    let open =
        filter.open || (!filter.states.is_empty() && filter.states.iter().all(|s| s.is_open()));
    let index = match (&filter.session, open) {
        (Some(_), _) => " INDEXED BY callback_session",
        (None, true) => " INDEXED BY callback_open",
        (None, false) => "",
    };
    let mut sql = format!("SELECT {COLUMNS} FROM callback{index} WHERE 1");
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let marks = |count: usize| vec!["?"; count].join(", ");
    if filter.session.is_some() || !sources.is_empty() {
        sql.push_str(&format!(" AND source IN ({})", marks(sources.len())));
        for source in sources {
            values.push(Box::new(source.clone()));
        }
    }
    if let Some(session) = &filter.session {
        sql.push_str(" AND session = ?");
        values.push(Box::new(format!("s:{session}")));
    }
    if open {
        sql.push_str(" AND ended_at IS NULL");
    }
    if !filter.states.is_empty() {
        sql.push_str(&format!(" AND state IN ({})", marks(filter.states.len())));
        for state in &filter.states {
            values.push(Box::new(state.as_str()));
        }
    }
    let bounds = [
        (
            " AND received_at < ?",
            filter.received_before.map(|at| at.0),
        ),
        (
            " AND received_at >= ?",
            filter.received_after.map(|at| at.0),
        ),
        (" AND row < ?", filter.before.map(EventId::number)),
    ];
    for (condition, value) in bounds {
        if let Some(value) = value {
            sql.push_str(condition);
            values.push(Box::new(value));
        }
    }
    sql.push_str(" ORDER BY row DESC LIMIT ?");
    values.push(Box::new(filter.limit.clamp(1, LIST_MAX)));
    (sql, values)
}

fn event(row: &Row<'_>, depth: Depth) -> rusqlite::Result<EventRow> {
    let (source, event): (String, String) = (row.get("source")?, row.get("event")?);
    let session: String = row.get("session")?;
    let state: String = row.get("state")?;
    let state = EventState::parse(&state).ok_or(rusqlite::types::FromSqlError::InvalidType)?;
    let hash = |domain, name: &str| {
        let parts = [source.as_bytes(), name.as_bytes()];
        Digest::of(domain, &parts).prefix()
    };
    let next_at = (state == EventState::Head).then(|| row.get("next_at"));
    Ok(EventRow {
        id: row.get("row")?,
        event_hash: hash("event", &event),
        session_hash: hash("session", &session),
        session: session
            .strip_prefix("s:")
            .filter(|_| depth.subject)
            .map(str::to_owned),
        session_known: row.get("session_known")?,
        status: row.get::<_, Option<Status>>("status")?.map(Status::as_str),
        state: state.as_str(),
        mark: row.get::<_, Mark>("mark")?.as_str(),
        released: row.get("released")?,
        key_id: row.get("key_id")?,
        delivery: webhook::delivery_id(&source, &event, &row.get("body_hash")?),
        attempts: row.get("attempts")?,
        times_received: row.get("times_received")?,
        received_at: row.get("received_at")?,
        next_at: next_at.transpose()?,
        refused_since: row.get("refused_since")?,
        ended_at: row.get("ended_at")?,
        last_error: row.get("last_error")?,
        content_type: row.get("content_type")?,
        bytes: row
            .get::<_, Option<i64>>("bytes")?
            .and_then(|bytes| u64::try_from(bytes).ok()),
        event: depth.subject.then_some(event),
        source,
    })
}

#[cfg(test)]
mod tests;
