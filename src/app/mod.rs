//! The shop's side: where deliveries go, and what counts as having arrived.

pub mod deliver;

pub use deliver::{Delivery, NotDelivered, Shop};
