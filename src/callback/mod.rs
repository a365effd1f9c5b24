//! The bank's notifications, from the wire to the shop.

pub mod worker;
