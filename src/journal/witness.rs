//! Whether this journal is the one that the audit log knows, and knows all that the log has seen of it.
//!
//! A journal that is new beside an old log, or behind it (a restored backup), does not know refunds that were done: guarded
//! requests are refused until `operations reconcile` has taken them from the log.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

use rusqlite::Connection;

use super::outbox::{self, set, setting};
use crate::policy::chain::Mark;

const IDENTITY: &str = "journal";
const DOUBT: &str = "doubt";

/// What an audit log says of a journal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Testimony {
    /// How far the last record is: of this journal or of another.
    pub last: Option<Mark>,
    /// The highest row of this journal that is in the log.
    pub ours: Option<i64>,
}

/// Reads an audit log for the journal with this identity.
pub type Witness<'w> = &'w dyn Fn(u64) -> io::Result<Testimony>;

/// What becomes of the outbox.
#[derive(Clone, Copy)]
pub enum Outbox<'w> {
    /// As the last gate left it: for commands that know nothing of an audit log.
    AsItIs,
    /// No audit log is kept.
    Off,
    /// One is kept, and this reads it.
    On(Witness<'w>),
}

/// What the audit log knows and this journal does not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Doubt {
    /// The log has records of another journal.
    pub foreign: bool,
    /// Rows of this journal that it has no memory of: after the first number, up to the second.
    pub rows: Option<(i64, i64)>,
}

/// What the comparison came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Compared {
    /// Who this journal is.
    pub journal: u64,
    /// The highest row of it that is in the log.
    pub known: i64,
    /// Rows that are neither in the log nor here any more.
    pub lost: Option<(i64, i64)>,
    /// Why guarded requests are refused.
    pub doubt: Option<Doubt>,
}

impl Doubt {
    fn and(self, other: Self) -> Self {
        let rows = match (self.rows, other.rows) {
            (Some((after, upto)), Some((other_after, other_upto))) => {
                Some((after.min(other_after), upto.max(other_upto)))
            }
            (rows, other) => rows.or(other),
        };
        Self {
            foreign: self.foreign || other.foreign,
            rows,
        }
    }

    /// Whether a record with this mark is one that the journal has no memory of.
    #[must_use]
    pub fn covers(&self, journal: u64, mark: Mark) -> bool {
        if mark.journal == journal {
            self.rows
                .is_some_and(|(after, upto)| mark.row > after && mark.row <= upto)
        } else {
            self.foreign
        }
    }

    fn text(&self) -> String {
        let (after, upto) = self.rows.unwrap_or((0, 0));
        format!(
            "{} {after} {upto}",
            if self.foreign { "foreign" } else { "own" }
        )
    }

    /// What cannot be read is the worst that it can be.
    fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        let foreign = words.next() != Some("own");
        let mut number = || words.next().and_then(|word| word.parse::<i64>().ok());
        match (number(), number()) {
            (Some(after), Some(upto)) => Self {
                foreign,
                rows: (after < upto).then_some((after, upto)),
            },
            _ => Self {
                foreign: true,
                rows: Some((0, i64::MAX)),
            },
        }
    }
}

/// Who a journal is; made at the first question.
pub(super) fn identity(connection: &Connection) -> rusqlite::Result<u64> {
    let known = setting(connection, IDENTITY)?;
    if let Some(known) = known.and_then(|text| u64::from_str_radix(&text, 16).ok()) {
        return Ok(known);
    }
    // std seeds each RandomState from the system.
    let fresh = RandomState::new().build_hasher().finish();
    set(connection, IDENTITY, &format!("{fresh:016x}"))?;
    Ok(fresh)
}

pub(super) fn doubt(connection: &Connection) -> rusqlite::Result<Option<Doubt>> {
    Ok(setting(connection, DOUBT)?.map(|text| Doubt::parse(&text)))
}

pub(super) fn is_doubted(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM setting WHERE name = 'doubt'")?
        .exists([])
}

pub(super) fn dispel(connection: &Connection) -> rusqlite::Result<()> {
    outbox::unset(connection, DOUBT)
}

/// Compares, and remembers a doubt in the journal itself: it outlives this process.
pub(super) fn compare(
    connection: &Connection,
    journal: u64,
    testimony: Testimony,
) -> rusqlite::Result<Compared> {
    let known = testimony.ours.unwrap_or(0);
    let (first, last) = outbox::ends(connection)?;
    let foreign = testimony.last.is_some_and(|mark| mark.journal != journal);
    let behind = last < known;
    let mut doubt = doubt(connection)?;
    if foreign || behind {
        let found = Doubt {
            foreign,
            rows: behind.then_some((last, known)),
        };
        let whole = doubt.map_or(found, |before| before.and(found));
        set(connection, DOUBT, &whole.text())?;
        doubt = Some(whole);
    }
    if behind {
        // What waits here has the numbers of rows that the log has: it is those rows, from before the backup.
        outbox::skip_to(connection, known)?;
        return Ok(Compared {
            journal,
            known,
            lost: None,
            doubt,
        });
    }
    // Written and synced before the last process ended, which had no time to say so.
    connection.execute("DELETE FROM outbox WHERE row <= ?1", [known])?;
    let next = first.map_or_else(
        || last.saturating_add(1),
        |first| first.max(known.saturating_add(1)),
    );
    let due = known.saturating_add(1);
    Ok(Compared {
        journal,
        known,
        lost: (next > due).then(|| (due, next.saturating_sub(1))),
        doubt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_reads_back_as_itself_and_what_cannot_be_read_is_the_worst() {
        for doubt in [
            Doubt {
                foreign: true,
                rows: None,
            },
            Doubt {
                foreign: false,
                rows: Some((5, 9)),
            },
        ] {
            assert_eq!(Doubt::parse(&doubt.text()), doubt);
        }
        let worst = Doubt::parse("nonsense");
        let of = |journal, row| worst.covers(1, Mark { journal, row });
        assert!(of(1, 7) && of(2, 7));
    }

    #[test]
    fn two_doubts_are_all_that_either_is() {
        let behind = |after, upto| Doubt {
            foreign: false,
            rows: Some((after, upto)),
        };
        let foreign = Doubt {
            foreign: true,
            rows: None,
        };
        assert_eq!(behind(5, 9).and(behind(3, 7)), behind(3, 9));
        let both = behind(5, 9).and(foreign);
        let covers = |journal, row| both.covers(1, Mark { journal, row });
        assert!(!covers(1, 5) && covers(1, 6) && covers(1, 9) && !covers(1, 10) && covers(2, 1));
    }
}
