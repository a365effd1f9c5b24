//! A small disk of its own, which a scenario can fill.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{getgid, getuid};
use tempfile::TempDir;

/// What [`Disk`] offers when it is empty. A journal holds 16 of it back.
const SIZE: &str = "size=20m";
const BLOCK: usize = 4096;

/// A tmpfs, gone when dropped.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// Mounts one. `None`, and a word about it, on a developer's machine where that is not allowed.
    pub(crate) fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        let output = as_root("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("{SIZE},mode=0700,uid={uid},gid={gid}"))
            .arg("tmpfs")
            .arg(dir.path())
            .output();
        let told = match output {
            Ok(output) if output.status.success() => return Some(Self(dir)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let must = getuid().is_root() || std::env::var_os("CI").is_some();
        assert!(!must, "cannot mount a tmpfs: {told}");
        // Past the harness, which keeps to itself what a passing test prints.
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED, NOT PASSED: the full disk. It needs root for a tmpfs: {told}"
        );
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn free(&self) -> u64 {
        let facts = rustix::fs::statvfs(self.path()).unwrap();
        facts.f_bavail * facts.f_frsize
    }

    /// Takes all but `leave` bytes.
    pub(crate) fn fill(&self, leave: u64) {
        let mut filler = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        while self.free() > leave && filler.write_all(&[0; BLOCK]).is_ok() {}
    }

    /// Gives it back.
    pub(crate) fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file on it may keep it until its own end.
        let _ = as_root("umount").arg("-l").arg(self.path()).status();
    }
}

fn as_root(program: &str) -> Command {
    if getuid().is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", program]);
    sudo
}
