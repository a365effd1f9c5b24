//! Denials of callers, one row for each caller and second: what is told of them does not grow with how often one knocks.

use std::sync::Arc;

/// Rows of one second. A machine has few users that call; more than this are a flood, and share one row.
const ROWS: usize = 64;

/// Why a caller was denied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Its uid is not on the listener's list.
    NotListed,
    /// Its uid could not be told.
    Unproven,
    /// Its token is missing, doubled or wrong.
    Token,
    /// Several callers: the table of that second was full.
    Many,
}

impl Cause {
    /// As records and the status say it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotListed => "not_listed",
            Self::Unproven => "unproven",
            Self::Token => "token",
            Self::Many => "many",
        }
    }
}

/// Denials of one caller within one second.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// The second, since 1970.
    pub second: u64,
    /// The listener that was called.
    pub listener: Arc<str>,
    /// The caller, where the kernel told who it is.
    pub uid: Option<u32>,
    /// Why.
    pub cause: Cause,
    /// How many requests.
    pub count: u64,
}

/// The rows of the second that runs.
#[derive(Debug, Default)]
pub struct Table {
    second: u64,
    rows: Vec<Denial>,
}

impl Table {
    /// Notes one denial. Gives the rows of an earlier second, which is over.
    #[must_use]
    pub fn note(
        &mut self,
        second: u64,
        listener: &Arc<str>,
        uid: Option<u32>,
        cause: Cause,
    ) -> Vec<Denial> {
        // A clock that was set back ends the second as well.
        let over = if second == self.second {
            Vec::new()
        } else {
            self.take()
        };
        self.second = second;
        let full = self.rows.len() >= ROWS;
        let same = self.rows.iter_mut().find(|row| {
            (&row.listener, row.uid, row.cause) == (listener, uid, cause)
                || full && row.cause == Cause::Many
        });
        if let Some(row) = same {
            row.count = row.count.saturating_add(1);
            return over;
        }
        // The last place is that of all who found none.
        let last = self.rows.len() == ROWS - 1;
        self.rows.push(Denial {
            second,
            listener: Arc::clone(listener),
            uid: if last { None } else { uid },
            cause: if last { Cause::Many } else { cause },
            count: 1,
        });
        over
    }

    /// The rows so far; none are kept.
    #[must_use]
    pub fn take(&mut self) -> Vec<Denial> {
        std::mem::take(&mut self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_has_one_row_a_second() {
        let mut table = Table::default();
        let (a, b): (Arc<str>, Arc<str>) = ("unix:a".into(), "tcp:b".into());
        for _ in 0..1000 {
            assert!(table.note(5, &a, Some(33), Cause::NotListed).is_empty());
        }
        assert!(table.note(5, &b, Some(33), Cause::NotListed).is_empty());
        assert!(table.note(5, &a, None, Cause::Unproven).is_empty());
        let told = table.note(6, &a, Some(33), Cause::NotListed);
        let counts: Vec<_> = told.iter().map(|row| (row.second, row.count)).collect();
        assert_eq!(counts, [(5, 1000), (5, 1), (5, 1)]);
        assert_eq!(table.take().len(), 1);
        assert!(table.take().is_empty());
    }

    #[test]
    fn a_flood_of_callers_has_a_bound_and_loses_no_count() {
        let mut table = Table::default();
        let listener: Arc<str> = "tcp:x".into();
        for uid in 0..10_000 {
            let over = table.note(1, &listener, Some(uid), Cause::NotListed);
            assert!(over.is_empty());
        }
        // Whoever has a row keeps it.
        let _ = table.note(1, &listener, Some(0), Cause::NotListed);
        let rows = table.take();
        assert_eq!(rows.len(), ROWS);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 10_001);
        assert_eq!(rows[0].count, 2);
        let many: Vec<_> = rows.iter().filter(|row| row.cause == Cause::Many).collect();
        assert_eq!(many.len(), 1);
        assert_eq!((many[0].uid, many[0].count), (None, 10_000 - 63));
    }
}
