//! The log's files: appended to, repaired after a crash, set aside when they are full, and ended when they are old.
//!
//! The file that is written has the configured name; one that was set aside has its first record's number after it, so
//! that names sort as the chain goes. What was written counts only after a sync: a failed one is undone by cutting the
//! file back, so that no line is ever half there or doubted.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::journal::failpoint;
use crate::policy::chain::{Chain, LINE_MAX, Line, Mark, Tip};
use crate::policy::operation::UnixMillis;
use crate::policy::signature::parse_rfc3339;

/// Its owner writes, its group reads: auditors are put into that group.
const MODE: u32 = 0o640;
/// Digits of a first record's number in a name.
const DIGITS: usize = 16;

/// Why the log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A directory or file that cannot be used.
    #[error("audit log {path}: {what}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another gate writes it.
    #[error("audit log {0} is written by another gate; give each its own audit.file")]
    InUse(PathBuf),
    /// The last line is not a record: nothing can be chained to it.
    #[error(
        "audit log {path} does not end with a record of ours ({reason}). Look with `priorgate audit verify`, keep the file, \
         and name a new audit.file"
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What its last line is.
        reason: String,
    },
}

/// Where the file and the chain are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) tip: Tip,
    pub(super) mark: Option<Mark>,
    /// Records that are nowhere else: how many were written to this file.
    pub(super) ordinary: u64,
    len: u64,
}

/// A file that is old enough to be ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Old {
    pub(super) first: u64,
    pub(super) last: u64,
    path: PathBuf,
}

/// What became of the file that is written, without us.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Harm {
    #[error("deleted or moved away")]
    Deleted,
    #[error("replaced by another file")]
    Replaced,
    #[error("cut short")]
    Cut,
}

/// Device and number: a file keeps them whatever its name is.
type Id = (u64, u64);

/// The open log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    id: Id,
    /// The number of the file's first record.
    first: u64,
    written: Place,
    synced: Place,
    /// The file was begun after the last sync of the directory: a power cut may leave it without a name.
    nameless: bool,
    /// Bytes of a torn last line that were cut off at the opening.
    pub(super) repaired: u64,
    /// The last process did not write its last record: what it had in memory is not here.
    pub(super) unclean: bool,
}

impl Log {
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |what| {
            let path = path.to_owned();
            move |source| AuditError::File { path, what, source }
        };
        let older = set_aside(path).map_err(failed("cannot list the directory"))?;
        let mut file = open_file(path).map_err(failed("cannot open it"))?;
        lock(&file, path)?;
        let end = end_of(&mut file, path)?;
        let tore = file
            .metadata()
            .map_err(failed("cannot look at it"))?
            .len()
            .saturating_sub(end.len);
        if tore > 0 {
            // A line that the last process did not finish: its power went, or its disk was full.
            file.set_len(end.len)
                .map_err(failed("cannot cut off an unfinished line"))?;
        }
        // The last process may have been killed between a write and its sync, and what the journal owes goes by what is here.
        file.sync_data().map_err(failed("cannot sync it"))?;
        let first = first_of(&mut file, path)?;
        let unclean = end.line.is_some() && !end.clean;
        let (tip, mark) = match (end.line, older.last()) {
            (Some(line), _) => (line.tip, line.source.mark()),
            // Set aside, and then the power went.
            (None, Some((_, older))) => {
                let mut file = File::open(older).map_err(failed("cannot open an older file"))?;
                let line = end_of(&mut file, older)?.line;
                line.map_or((Tip::GENESIS, None), |line| (line.tip, line.source.mark()))
            }
            (None, None) => (Tip::GENESIS, None),
        };
        sync_directory(path).map_err(failed("cannot sync the directory"))?;
        let id = id_of(&file).map_err(failed("cannot look at it"))?;
        let place = Place {
            tip,
            mark,
            ordinary: 0,
            len: end.len,
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            id,
            nameless: false,
            first: first.unwrap_or_else(|| tip.seq.saturating_add(1)),
            written: place,
            synced: place,
            repaired: tore,
            unclean,
        })
    }

    /// How far a journal is in the log.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.written.mark
    }

    pub(super) fn written(&self) -> Place {
        self.written
    }

    pub(super) fn synced(&self) -> Place {
        self.synced
    }

    /// Appends whole lines; `place` is where the chain is with them. After an error nothing of it is there.
    pub(super) fn append(
        &mut self,
        lines: &[u8],
        tip: Tip,
        mark: Option<Mark>,
        ordinary: u64,
    ) -> io::Result<()> {
        if let Some(harm) = self.harm()? {
            return Err(io::Error::other(format!("its file was {harm}")));
        }
        // A cut that failed before is made up for first.
        self.cut(self.written.len)?;
        if let Err(error) = self.file.write_all(lines) {
            let _ = self.cut(self.written.len);
            return Err(error);
        }
        failpoint::at("audit", "appended");
        self.written = Place {
            tip,
            mark,
            ordinary: self.written.ordinary.saturating_add(ordinary),
            len: self.written.len.saturating_add(lines.len() as u64),
        };
        Ok(())
    }

    /// Puts what was written on the disk. After an error the file ends where the last good sync left it: what the kernel
    /// calls clean and the disk never got is not relied on.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.written == self.synced && !self.nameless {
            return Ok(());
        }
        let named = || match self.nameless {
            true => sync_directory(&self.path),
            false => Ok(()),
        };
        if let Err(error) = self.file.sync_data().and_then(|()| named()) {
            self.written = self.synced;
            let _ = self.cut(self.synced.len);
            return Err(error);
        }
        self.nameless = false;
        // What is in a file without a name is on no disk.
        if let Some(harm) = self.harm()? {
            return Err(io::Error::other(format!("its file was {harm}")));
        }
        self.synced = self.written;
        Ok(())
    }

    /// Cuts off what is behind `len`. Never makes it longer: that would put zeros in the place of records.
    fn cut(&self, len: u64) -> io::Result<()> {
        if self.file.metadata()?.len() > len {
            self.file.set_len(len)?;
        }
        Ok(())
    }

    /// Whether the file is still the one of its name, with all that was written to it.
    pub(super) fn harm(&self) -> io::Result<Option<Harm>> {
        let named = match fs::metadata(&self.path) {
            Ok(named) => named,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Harm::Deleted));
            }
            Err(error) => return Err(error),
        };
        Ok(if (named.dev(), named.ino()) != self.id {
            Some(Harm::Replaced)
        } else if named.len() < self.written.len {
            Some(Harm::Cut)
        } else {
            None
        })
    }

    /// Goes on after [`Harm`], behind the last record that was written: where that is now, it may still be whole. `mark` is
    /// how far the journal was told. Gives the records that are not where they were.
    pub(super) fn go_on(&mut self, harm: Harm, mark: Option<Mark>) -> io::Result<(u64, u64)> {
        let len = match harm {
            Harm::Cut => {
                let end = end_of(&mut self.file, &self.path).map_err(io::Error::other)?;
                self.cut(end.len)?;
                end.len
            }
            Harm::Deleted => {
                self.begin()?;
                0
            }
            // Somebody made it for us; one that has something in it is not ours to write to.
            Harm::Replaced if fs::metadata(&self.path)?.len() == 0 => {
                let file = open_file(&self.path)?;
                self.id = id_of(&file)?;
                let _ = file.try_lock();
                self.file = file;
                0
            }
            Harm::Replaced => {
                let message = "another file was put in its place, and is not written to. Put the old one back, or move \
                               this one away";
                return Err(io::Error::other(message));
            }
        };
        let tip = self.written.tip;
        let gone = (self.first, tip.seq);
        if len == 0 {
            self.first = tip.seq.saturating_add(1);
        }
        let ordinary = self.written.ordinary;
        let place = Place {
            tip,
            mark,
            ordinary,
            len,
        };
        (self.written, self.synced) = (place, place);
        Ok(gone)
    }

    /// Begins a file where there is none.
    fn begin(&mut self) -> io::Result<()> {
        let file = new_file(&self.path)?;
        self.id = id_of(&file)?;
        // Nobody else knows the new file yet; whoever opens it next waits for this lock in vain.
        let _ = file.try_lock();
        self.file = file;
        self.nameless = true;
        Ok(())
    }

    /// Whether the file has grown to `bytes`.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        self.written.len >= bytes
    }

    /// Sets the file aside and begins a new one. Gives the old one's new name. The directory is synced with the first
    /// record of the new file: until then neither counts as being on the disk.
    pub(super) fn rotate(&mut self) -> io::Result<PathBuf> {
        let aside = aside(&self.path, self.first);
        rename(&self.path, &aside)?;
        failpoint::at("audit", "renamed");
        if let Err(error) = self.begin() {
            // Back as it was: the old one is still open and still good.
            let _ = rename(&aside, &self.path);
            return Err(error);
        }
        failpoint::at("audit", "begun");
        self.first = self.synced.tip.seq.saturating_add(1);
        let place = Place {
            len: 0,
            ..self.synced
        };
        (self.written, self.synced) = (place, place);
        Ok(aside)
    }

    /// Files whose last record is older than `before`: from the oldest on, so that what stays is one piece. And why it
    /// looked no further, if there was an error.
    pub(super) fn old(&self, before: UnixMillis) -> (Vec<Old>, Option<io::Error>) {
        let mut old = Vec::new();
        let files = match set_aside(&self.path) {
            Ok(files) => files,
            Err(error) => return (old, Some(error)),
        };
        for (first, path) in files {
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) => return (old, Some(error)),
            };
            let line = end_of(&mut file, &path).ok().and_then(|end| end.line);
            let Some(line) = line else { break };
            if parse_rfc3339(&line.at).is_none_or(|at| at >= before) {
                break;
            }
            old.push(Old {
                first,
                last: line.tip.seq,
                path,
            });
        }
        (old, None)
    }

    /// Removes files, oldest first. Only after it is on record that they are ended.
    pub(super) fn remove(&self, old: &[Old]) -> io::Result<()> {
        for old in old {
            failpoint::at("audit", "ended");
            fs::remove_file(&old.path)?;
        }
        failpoint::at("audit", "removed");
        sync_directory(&self.path)
    }
}

fn id_of(file: &File) -> io::Result<Id> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Gives a file another name, which must be free: a set-aside file that is there already is somebody's evidence.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let taken = || {
        let message = format!(
            "{} is there already (was an old copy of the log put back?); move it away",
            to.display()
        );
        io::Error::new(io::ErrorKind::AlreadyExists, message)
    };
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(taken()),
        // A file system that cannot; nobody but us makes such names.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match fs::symlink_metadata(to) {
            Ok(_) => Err(taken()),
            Err(_) => fs::rename(from, to),
        },
        Err(error) => Err(error.into()),
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create_new(true)
        .mode(MODE)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)?;
    // The process's umask is stricter than what auditors need.
    if file.metadata()?.permissions().mode() & 0o777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

fn lock(file: &File, path: &Path) -> Result<(), AuditError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(AuditError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(AuditError::File {
            path: path.to_owned(),
            what: "cannot lock it",
            source,
        }),
    }
}

/// The last whole line, and where it ends.
struct End {
    line: Option<Line>,
    len: u64,
    /// The record before it is a process's last one: behind that there is only a checkpoint.
    clean: bool,
}

fn end_of(file: &mut File, path: &Path) -> Result<End, AuditError> {
    let failed = |source| AuditError::File {
        path: path.to_owned(),
        what: "cannot read its end",
        source,
    };
    let foreign = |reason: String| AuditError::Foreign {
        path: path.to_owned(),
        reason,
    };
    let len = file.metadata().map_err(failed)?.len();
    // A torn line and a whole one.
    let window = (2 * LINE_MAX as u64 + 2).min(len);
    let start = len - window;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    file.take(window).read_to_end(&mut bytes).map_err(failed)?;
    let Some(last) = bytes.iter().rposition(|&b| b == b'\n') else {
        if len > LINE_MAX as u64 {
            return Err(foreign("it has no lines".to_owned()));
        }
        return Ok(End {
            line: None,
            len: 0,
            clean: true,
        });
    };
    let whole = bytes.get(..last).unwrap_or_default();
    let begin = whole
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |at| at + 1);
    let line = Chain::new(None)
        .take(whole.get(begin..).unwrap_or_default())
        // A record cannot follow one that somebody has edited.
        .map_err(|fault| foreign(fault.to_string()))?;
    let earlier = whole.get(..begin.saturating_sub(1)).unwrap_or_default();
    let earlier = earlier
        .split(|&b| b == b'\n')
        .next_back()
        .unwrap_or_default();
    let stopped = Line::parse(earlier).is_ok_and(|line| line.event == "stop");
    Ok(End {
        clean: stopped && line.event == "checkpoint",
        line: Some(line),
        len: start + last as u64 + 1,
    })
}

/// The number of a file's first record.
fn first_of(file: &mut File, path: &Path) -> Result<Option<u64>, AuditError> {
    let failed = |source| AuditError::File {
        path: path.to_owned(),
        what: "cannot read its beginning",
        source,
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.take(LINE_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    Ok(Line::parse(line).ok().map(|line| line.tip.seq))
}

fn aside(path: &Path, first: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{first:0DIGITS$}"));
    PathBuf::from(name)
}

/// The files that were set aside, oldest first, each with its first record's number.
pub(super) fn set_aside(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory(path))? {
        let entry = entry?.path();
        let Some(candidate) = entry.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let digits = candidate
            .strip_prefix(&*name)
            .and_then(|rest| rest.strip_prefix('.'))
            .filter(|digits| digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit()));
        if let Some(first) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((first, entry));
        }
    }
    found.sort();
    Ok(found)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}
