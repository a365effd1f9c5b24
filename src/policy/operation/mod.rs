//! The once guard's decisions: what an operation is, what may become of it, and whether a request runs, is replayed or is
//! refused.
//!
//! An operation is one guarded request under one idempotency key. Everything here is a function of values: the journal
//! looks the values up and stores the result in one transaction, the flow acts on it.

pub mod answer;
pub mod decide;
pub mod id;
pub mod key;
pub mod state;
pub mod subject;
pub mod time;

pub use answer::{Ending, MediaType, Rules, StatusPattern};
pub use decide::{Asked, Closed, Decision, Known, Refusal, Repeat, RepeatError, Situation, decide};
pub use id::{OperationId, Reference};
pub use key::{Digest, Key, fingerprint};
pub use state::{Event, Resolution, Standing, State};
pub use subject::{Pointer, Subject};
pub use time::{BootTime, UnixMillis, may_write_first_byte};
