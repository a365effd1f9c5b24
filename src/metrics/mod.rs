//! What is counted on the way, and how a scrape is written.
//!
//! Counting is a few relaxed atomic operations on cells that were found when a bank or a generation was built: no label is
//! looked up, nothing is locked, nothing is allocated for a request. What is counted elsewhere already (the journal, the
//! keyholder, denials) is read by the scrape and not counted here again. It knows no bank and no journal; who writes which
//! family is `gate`'s.

pub mod catalog;
mod histogram;
mod requests;
pub mod text;

pub use histogram::Histogram;
pub use requests::{Ending, Meter, Requests};
