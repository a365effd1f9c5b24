//! Where the journal lies: its directory, its lock, and what kind of file system may hold it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::process::geteuid;

use super::error::OpenError;

/// Held for the life of the process. Not the database itself: closing any descriptor of that drops SQLite's own locks.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

/// `<journal><suffix>`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The directory of a journal.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Takes the lock: at most one gate for one journal.
pub(super) fn lock(path: &Path) -> Result<Lock, OpenError> {
    let lock = beside(path, ".lock");
    let file = |source| OpenError::File {
        path: lock.clone(),
        what: "cannot take the lock",
        source,
    };
    let held = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock)
        .map_err(file)?;
    match held.try_lock() {
        Ok(()) => Ok(Lock(held)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(file(source)),
    }
}

/// Whether somebody holds the lock: a gate is running on this journal.
pub(super) fn is_locked(path: &Path) -> bool {
    File::open(beside(path, ".lock")).is_ok_and(|file| {
        let taken = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        let _ = file.unlock();
        taken
    })
}

/// Refuses a directory that others may write to, and files that others may open: a stranger who may merely read the index
/// of the WAL can hold its lock and stop every writer.
pub(super) fn exposure(path: &Path) -> Result<(), OpenError> {
    let dir = directory(path);
    let meta = fs::metadata(dir).map_err(|source| OpenError::File {
        path: dir.to_owned(),
        what: "cannot look at the directory",
        source,
    })?;
    // A sticky directory (/tmp) lets nobody replace another's file.
    let writable = meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
    if writable {
        return Err(OpenError::Exposed {
            path: dir.to_owned(),
            reason: "others may write to the directory",
            advice: format!("`chmod go-w {}`", dir.display()),
        });
    }
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let file = beside(path, suffix);
        // stat(2) opens nothing, so it disturbs no lock.
        let meta = match fs::symlink_metadata(&file) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => {
                return Err(OpenError::File {
                    path: file,
                    what: "cannot look at the file",
                    source,
                });
            }
        };
        if !meta.is_file() {
            return Err(OpenError::Exposed {
                path: file,
                reason: "not a regular file",
                advice: "name the file itself in journal.sqlite".to_owned(),
            });
        }
        if meta.permissions().mode() & 0o077 != 0 {
            let advice = format!("`chmod 600 {}`", file.display());
            return Err(OpenError::Exposed {
                path: file,
                reason: "others may open the file",
                advice,
            });
        }
        if meta.uid() != geteuid().as_raw() {
            let advice = format!("`chown {} {}`", geteuid().as_raw(), file.display());
            return Err(OpenError::Exposed {
                path: file,
                reason: "the file belongs to another user",
                advice,
            });
        }
    }
    Ok(())
}

/// What the file system of a directory means for a journal. Gives the name of a volatile one that was allowed.
pub(super) fn file_system(
    path: &Path,
    allow_volatile: bool,
) -> Result<Option<&'static str>, OpenError> {
    let dir = directory(path);
    let found = statfs(dir).map_err(|error| OpenError::File {
        path: dir.to_owned(),
        what: "cannot look at the file system",
        source: error.into(),
    })?;
    let refuse = |kind, advice| OpenError::FileSystem {
        path: path.to_owned(),
        kind,
        advice,
    };
    // The magic numbers of statfs(2); the field's type differs between machines, its low 32 bits do not.
    match found.f_type as u32 {
        0x6969 => Err(refuse("NFS", "")),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => Err(refuse("SMB", "")),
        0x0102_1997 => Err(refuse("9p", "")),
        0x6573_5546 => Err(refuse("FUSE", "")),
        0x00C3_6400 => Err(refuse("Ceph", "")),
        0x0102_1994 => {
            volatile("tmpfs", allow_volatile).map_err(|(kind, advice)| refuse(kind, advice))
        }
        0x8584_58F6 => {
            volatile("ramfs", allow_volatile).map_err(|(kind, advice)| refuse(kind, advice))
        }
        0x794C_7630 => {
            volatile("overlay", allow_volatile).map_err(|(kind, advice)| refuse(kind, advice))
        }
        _ => Ok(None),
    }
}

fn volatile(
    kind: &'static str,
    allowed: bool,
) -> Result<Option<&'static str>, (&'static str, &'static str)> {
    if allowed {
        Ok(Some(kind))
    } else {
        Err((kind, " (demos and tests: journal.allow_volatile: true)"))
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}
