//! The binary that can be told to stop or to die at a place (`src/journal/failpoint.rs`): a build of its own, since the
//! released one has no such places.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Its path. Built once for a run of the tests, apart from everything else.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failpoints");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--quiet", "--bin", "priorgate"])
            .args(["--no-default-features", "--features", "failpoints"])
            .arg("--manifest-path")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        target.join("debug/priorgate")
    })
}

/// The same command with that binary, and a place armed if one is given.
pub(crate) fn armed(command: &Command, failpoint: Option<&str>) -> Command {
    let mut with = Command::new(binary());
    with.args(command.get_args());
    if let Some(failpoint) = failpoint {
        with.env("PRIORGATE_FAILPOINT", failpoint);
    }
    with
}
