//! Sixteen mebibytes held back, so that a full disk still takes the outcomes of what was sent before.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// How much is held back: thousands of outcomes.
pub(super) const SIZE: u64 = 16 << 20;
/// How often a spent ballast is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The file beside the database.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    size: u64,
    held: bool,
    tried: Option<Instant>,
}

impl Ballast {
    /// Holds back `size` bytes at `path`, if the disk has them.
    pub(super) fn new(path: PathBuf, size: u64) -> Self {
        let mut ballast = Self {
            path,
            size,
            held: false,
            tried: None,
        };
        let _ = ballast.restore();
        ballast
    }

    /// Whether there is room for new operations.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Gives the space to SQLite. `false` if it was given before.
    pub(super) fn spend(&mut self) -> bool {
        let held = std::mem::replace(&mut self.held, false);
        self.tried = Some(Instant::now());
        held && remove_file(&self.path).is_ok()
    }

    /// Holds it back again, if the disk has room by now; tried once a second.
    pub(super) fn restore(&mut self) -> bool {
        if self.held || self.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return self.held;
        }
        self.tried = Some(Instant::now());
        self.held = match fill(&self.path, self.size) {
            Ok(()) => true,
            Err(_) => {
                // Half a ballast helps nobody.
                let _ = remove_file(&self.path);
                false
            }
        };
        self.held
    }
}

fn fill(path: &Path, size: u64) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let block = [0_u8; 64 << 10];
            for _ in 0..size / block.len() as u64 {
                file.write_all(&block)?;
            }
            file.sync_all()
        }
        Err(error) => Err(error.into()),
    }
}
