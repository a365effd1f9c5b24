//! MERGE: stands in for what other branches bring. Delete this file and import the real modules
//! (`cli::check`, `cli::schema`, `cli::sandbox`, `crate::demo`, `crate::lifecycle`) in its place.

pub(super) mod check {
    use std::io::Write;
    use std::path::Path;

    pub(in crate::cli) fn run(_: &Path, _days: u32, _json: bool, out: &mut dyn Write) -> u8 {
        super::missing(out)
    }
}

pub(super) mod schema {
    use std::io::Write;

    pub(in crate::cli) fn run(out: &mut dyn Write) -> u8 {
        super::missing(out)
    }
}

fn missing(out: &mut dyn std::io::Write) -> u8 {
    let _ = writeln!(out, "not in this branch");
    1
}
