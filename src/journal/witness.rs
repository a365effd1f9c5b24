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
/// A person knows that the log ends before what its signer has signed; until the signer signs again.
const BEHIND_SIGNER_KNOWN: &str = "behind_signer_known";

/// An identity that no journal has: that of one that was made just now, for whose records no log needs to be searched.
pub const NOBODY: u64 = 0;

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
    /// The log had nothing of this journal, which was told that it had everything up to this row.
    pub absent: Option<i64>,
    /// The keyholder has signed a later end of a log than this one has: the log is an old copy, and so may the journal be.
    pub behind_signer: bool,
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
    /// That the log ends before what its signer has signed was accepted by a person.
    pub behind_signer_known: bool,
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
            absent: self.absent.max(other.absent),
            behind_signer: self.behind_signer || other.behind_signer,
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
            "{} {after} {upto} {} {}",
            if self.foreign { "foreign" } else { "own" },
            self.absent.unwrap_or(0),
            if self.behind_signer { "behind" } else { "-" }
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
                absent: number().filter(|&row| row > 0),
                behind_signer: words.next() == Some("behind"),
            },
            _ => Self {
                foreign: true,
                rows: Some((0, i64::MAX)),
                ..Self::default()
            },
        }
    }
}

/// Who a journal is; made at the first question. And whether that was this one.
pub(super) fn identity(connection: &Connection) -> rusqlite::Result<(u64, bool)> {
    let known = setting(connection, IDENTITY)?;
    if let Some(known) = known.and_then(|text| u64::from_str_radix(&text, 16).ok()) {
        return Ok((known, false));
    }
    // std seeds each RandomState from the system.
    let fresh = RandomState::new().build_hasher().finish().max(NOBODY + 1);
    set(connection, IDENTITY, &format!("{fresh:016x}"))?;
    Ok((fresh, true))
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
    if doubt(connection)?.is_some_and(|doubt| doubt.behind_signer) {
        // It will be behind at the next start as well.
        set(connection, BEHIND_SIGNER_KNOWN, "yes")?;
    }
    outbox::unset(connection, DOUBT)
}

/// The keyholder has signed a later end of a log than this one's. Whether that is news.
pub(super) fn behind_signer(connection: &Connection) -> rusqlite::Result<bool> {
    if setting(connection, BEHIND_SIGNER_KNOWN)?.is_some() {
        return Ok(false);
    }
    let found = Doubt {
        behind_signer: true,
        ..Doubt::default()
    };
    let whole = doubt(connection)?.map_or(found, |before| before.and(found));
    set(connection, DOUBT, &whole.text())?;
    Ok(true)
}

/// It signs again: an old copy is news from now on.
pub(super) fn signed_again(connection: &Connection) -> rusqlite::Result<()> {
    outbox::unset(connection, BEHIND_SIGNER_KNOWN)
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
    // What is not in the outbox any more was in a log.
    let told = first.map_or(last, |first| first.saturating_sub(1));
    let absent = (testimony.ours.is_none() && told > 0).then_some(told);
    let before = doubt(connection)?;
    // What was begun in the place of a log that was not there is no proof that it is back: a person looks (`reconcile`).
    let mut doubt = before;
    if foreign || behind || absent.is_some() {
        let found = Doubt {
            foreign,
            rows: behind.then_some((last, known)),
            absent,
            behind_signer: false,
        };
        doubt = Some(doubt.map_or(found, |before| before.and(found)));
    }
    match &doubt {
        _ if doubt == before => {}
        Some(doubt) => set(connection, DOUBT, &doubt.text())?,
        None => outbox::unset(connection, DOUBT)?,
    }
    let behind_signer_known = setting(connection, BEHIND_SIGNER_KNOWN)?.is_some();
    if behind {
        // What waits here has the numbers of rows that the log has: it is those rows, from before the backup.
        outbox::skip_to(connection, known)?;
        return Ok(Compared {
            journal,
            known,
            lost: None,
            doubt,
            behind_signer_known,
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
        behind_signer_known,
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
                absent: Some(3),
                ..Doubt::default()
            },
            Doubt {
                rows: Some((5, 9)),
                behind_signer: true,
                ..Doubt::default()
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
            rows: Some((after, upto)),
            ..Doubt::default()
        };
        let foreign = Doubt {
            foreign: true,
            ..Doubt::default()
        };
        assert_eq!(behind(5, 9).and(behind(3, 7)), behind(3, 9));
        let both = behind(5, 9).and(foreign);
        let covers = |journal, row| both.covers(1, Mark { journal, row });
        assert!(!covers(1, 5) && covers(1, 6) && covers(1, 9) && !covers(1, 10) && covers(2, 1));
    }
}
