//! What a bank's status means after what came before it: delivered, delivered with a warning, held, or kept in silence.
//!
//! The table in `docs/transitions.md` is this module's contract; a test compares the two cell by cell.

use std::fmt;

/// Where an instalment session is, in the words of the bank's programme.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Status {
    /// The customer has not decided.
    Pending,
    /// The instalment runs: the order is paid.
    Approved,
    /// The bank said no.
    Rejected,
    /// Called off.
    Cancelled,
    /// Money went back, all of it or a part.
    Refunded,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Approved,
        Self::Rejected,
        Self::Cancelled,
        Self::Refunded,
    ];

    /// The word, as it stands in the source article.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Approved => "APPROVED",
            Self::Rejected => "REJECTED",
            Self::Cancelled => "CANCELLED",
            Self::Refunded => "REFUNDED",
        }
    }

    /// Reads [`Self::as_str`]: case counts.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a delivery is marked (`Priorgate-Transition`).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mark {
    /// What may well come next.
    Expected,
    /// Contradicts what came before: somebody should look.
    Conflict,
    /// Older news than what the shop has.
    Stale,
}

impl Mark {
    /// The header's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Conflict => "conflict",
            Self::Stale => "stale",
        }
    }
}

/// What the configuration says of contradictions (`transitions`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Policy {
    /// What would re-pay or un-pay an order waits for a person.
    #[default]
    Hold,
    /// Everything is delivered, marked.
    Pass,
}

/// What came of a session before, as far as it matters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Before {
    /// The last status, delivered or on its way.
    pub last: Option<Status>,
    /// A `REFUNDED` that the shop has.
    pub refund_delivered: bool,
}

/// What is done with an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Transition {
    /// It goes to the shop.
    Deliver(Mark),
    /// It waits until a person lets it go, or until it is no contradiction any more.
    Hold,
    /// It is kept and not delivered: the shop knows better already.
    Supersede,
}

/// Judges an event by what came before it. Asked when it comes, and again when its turn comes.
pub fn judge(policy: Policy, before: Before, status: Status) -> Transition {
    use Status::{Approved, Cancelled, Pending, Refunded, Rejected};
    // Would re-pay an order whose money went back, whatever else came since.
    if before.refund_delivered && status == Approved {
        return match policy {
            Policy::Hold => Transition::Hold,
            Policy::Pass => Transition::Deliver(Mark::Stale),
        };
    }
    let Some(last) = before.last else {
        // Nobody refunds what nobody approved; but the shop must hear of it.
        return Transition::Deliver(match status {
            Refunded => Mark::Conflict,
            Pending | Approved | Rejected | Cancelled => Mark::Expected,
        });
    };
    match (last, status) {
        (Pending, Pending | Approved | Rejected | Cancelled)
        | (Approved, Approved | Refunded)
        | (Rejected | Cancelled, Rejected | Cancelled)
        | (Refunded, Refunded) => Transition::Deliver(Mark::Expected),
        // Would un-pay.
        (Approved | Rejected | Cancelled | Refunded, Pending) => match policy {
            Policy::Hold => Transition::Supersede,
            Policy::Pass => Transition::Deliver(Mark::Stale),
        },
        // Would un-pay an order that was never paid: money of somebody is wrong.
        (Rejected | Cancelled, Refunded) => match policy {
            Policy::Hold => Transition::Hold,
            Policy::Pass => Transition::Deliver(Mark::Conflict),
        },
        // Every approval is delivered: money is out.
        (Rejected | Cancelled | Refunded, Approved)
        | (Pending, Refunded)
        | (Approved | Refunded, Rejected | Cancelled) => Transition::Deliver(Mark::Conflict),
    }
}

/// Whether an event that waits in the queue is made pointless by a later one: only `PENDING` ever is.
#[must_use]
pub fn is_superseded(queued: Status, later: Status) -> bool {
    queued == Status::Pending && later != Status::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../docs/transitions.md");

    fn cell(transition: Transition) -> &'static str {
        match transition {
            Transition::Deliver(mark) => mark.as_str(),
            Transition::Hold => "held",
            Transition::Supersede => "superseded",
        }
    }

    /// The rows of the table under a heading: the state, then a cell for each status.
    fn rows(heading: &str) -> Vec<Vec<String>> {
        let (_, text) = TABLE.split_once(heading).unwrap();
        let table = text.lines().skip_while(|line| !line.starts_with('|'));
        table
            .take_while(|line| line.starts_with('|'))
            .skip(2)
            .map(|line| {
                let cells = line.trim_matches('|').split('|');
                cells.map(|cell| cell.trim().to_owned()).collect()
            })
            .collect()
    }

    fn compare(heading: &str, policy: Policy, refund_delivered: bool) {
        let rows = rows(heading);
        assert_eq!(rows.len(), 6, "{heading}");
        let lasts = [None].into_iter().chain(Status::ALL.map(Some));
        for (row, last) in rows.iter().zip(lasts) {
            assert_eq!(row[0], last.map_or("none", Status::as_str));
            for (found, status) in row[1..].iter().zip(Status::ALL) {
                let before = Before {
                    last,
                    refund_delivered: refund_delivered && last == Some(Status::Refunded),
                };
                let transition = judge(policy, before, status);
                assert_eq!(found, cell(transition), "{heading}: {last:?} → {status}");
            }
        }
    }

    #[test]
    fn every_cell_of_the_documented_tables_is_what_is_done() {
        compare("## `transitions: hold`", Policy::Hold, true);
        compare(
            "## While the refund has not reached the shop",
            Policy::Hold,
            false,
        );
        compare("## `transitions: pass`", Policy::Pass, true);
    }

    #[test]
    fn every_approval_reaches_the_shop_unless_it_has_the_refund() {
        for last in [None].into_iter().chain(Status::ALL.map(Some)) {
            let before = Before {
                last,
                refund_delivered: false,
            };
            let transition = judge(Policy::Hold, before, Status::Approved);
            assert!(matches!(transition, Transition::Deliver(_)), "{last:?}");
        }
    }

    #[test]
    fn no_approval_follows_a_refund_that_the_shop_has() {
        for last in [None].into_iter().chain(Status::ALL.map(Some)) {
            let before = Before {
                last,
                refund_delivered: true,
            };
            let held = judge(Policy::Hold, before, Status::Approved);
            assert_eq!(held, Transition::Hold, "{last:?}");
            let passed = judge(Policy::Pass, before, Status::Approved);
            assert_eq!(passed, Transition::Deliver(Mark::Stale), "{last:?}");
        }
    }

    #[test]
    fn only_a_pending_is_superseded() {
        for queued in Status::ALL {
            for later in Status::ALL {
                let expected = queued == Status::Pending && later != Status::Pending;
                assert_eq!(is_superseded(queued, later), expected);
            }
        }
    }

    #[test]
    fn statuses_are_the_articles_words() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("approved"), None);
    }
}
