//! How the domain's values stand in columns, and how an answer is kept.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use super::StoredAnswer;
use crate::policy::operation::{Digest, OperationId, State};

impl ToSql for Digest {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(&self.0)))
    }
}

impl FromSql for Digest {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| FromSqlError::InvalidType)
    }
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl FromSql for OperationId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

pub(super) fn answer(connection: &Connection, row: i64) -> rusqlite::Result<Option<StoredAnswer>> {
    connection
        .prepare_cached("SELECT status, headers, body FROM answer WHERE operation = ?1")?
        .query_row([row], |row| {
            let status: u16 = row.get(0)?;
            let headers: Vec<u8> = row.get(1)?;
            let body: Vec<u8> = row.get(2)?;
            Ok(StoredAnswer {
                status: StatusCode::from_u16(status).map_err(|_| FromSqlError::InvalidType)?,
                headers: parse_headers(&headers),
                body: Bytes::from(body),
            })
        })
        .optional()
}

/// `name: value` lines, as on the wire: legible in a shell, and header values hold no line break.
pub(super) fn header_lines(headers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in headers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines
}

fn parse_headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let Some(colon) = line.windows(2).position(|pair| pair == b": ") else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(2..).unwrap_or_default();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}
