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

#[cfg(feature = "sandbox")]
pub(super) mod sandbox {
    use std::io::Write;

    use crate::cli::SandboxArgs;

    pub(in crate::cli) fn run(_: &SandboxArgs, out: &mut dyn Write) -> u8 {
        super::missing(out)
    }
}

#[cfg(feature = "sandbox")]
pub(super) mod demo {
    use std::io::Write;
    use std::path::PathBuf;

    use crate::cli::style::Style;

    #[expect(dead_code, reason = "read by the real demo")]
    pub(in crate::cli) struct Options {
        pub(in crate::cli) once: bool,
        pub(in crate::cli) dir: Option<PathBuf>,
    }

    pub(in crate::cli) fn run(_: &Options, _: Style, out: &mut dyn Write) -> u8 {
        super::missing(out)
    }
}

pub(super) mod lifecycle {
    use crate::config::Config;
    use crate::telemetry::Telemetry;

    #[derive(Debug, thiserror::Error)]
    #[error("not in this branch")]
    pub(in crate::cli) struct StartError;

    pub(in crate::cli) fn run(_: Config, _: &Telemetry) -> Result<(), StartError> {
        Err(StartError)
    }
}

fn missing(out: &mut dyn std::io::Write) -> u8 {
    let _ = writeln!(out, "not in this branch");
    1
}
