//! The JSON Schema of the configuration file, for editors.

use super::file::File;

/// The schema (JSON Schema draft 2020-12) as pretty JSON.
#[must_use]
pub fn json() -> String {
    let schema = schemars::schema_for!(File);
    // A schema is a JSON value already; writing one to a string does not fail.
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}
