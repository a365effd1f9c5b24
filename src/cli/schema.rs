//! `priorgate schema`: the JSON Schema of the configuration file.

use std::io::Write;

use super::{OK, PROBLEM};
use crate::config::schema;

/// Prints the schema.
pub(super) fn run(out: &mut dyn Write) -> u8 {
    if writeln!(out, "{}", schema::json()).is_ok() {
        OK
    } else {
        PROBLEM
    }
}
