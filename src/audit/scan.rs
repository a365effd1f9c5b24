//! Reading a whole log, a line at a time, oldest file first.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::set_aside;
use crate::journal::{NOBODY, Testimony};
use crate::policy::chain::{LINE_MAX, Line, Mark};

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// A line is written at once: after so many looks, half a second, half of one is all that there is.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(50);

/// A file that is read line by line, with bounded memory.
pub(super) struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
}

/// One line, without its line break.
pub(super) struct Raw<'l> {
    pub(super) bytes: &'l [u8],
    /// The file ends inside of it.
    pub(super) unfinished: bool,
    /// Bytes of the file that it took.
    pub(super) took: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self::of)
    }

    fn of(file: File) -> Self {
        Self {
            reader: BufReader::with_capacity(CHUNK, file),
            line: Vec::new(),
        }
    }

    /// Whether the file goes on after all: somebody is writing it, a line at a time.
    pub(super) fn grows(&mut self) -> io::Result<bool> {
        for _ in 0..LOOKS {
            if !self.reader.fill_buf()?.is_empty() {
                return Ok(true);
            }
            std::thread::sleep(LOOK);
        }
        Ok(false)
    }

    /// The next line. One that is too long is cut, and the rest of it is skipped: it is no record either way.
    pub(super) fn next(&mut self) -> io::Result<Option<Raw<'_>>> {
        self.line.clear();
        let most = LINE_MAX as u64 + 2;
        let mut took = self
            .reader
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut self.line)? as u64;
        if took == 0 {
            return Ok(None);
        }
        let mut finished = self.line.last() == Some(&b'\n');
        if !finished && took == most {
            let mut rest = Vec::new();
            loop {
                rest.clear();
                let more = self
                    .reader
                    .by_ref()
                    .take(CHUNK as u64)
                    .read_until(b'\n', &mut rest)? as u64;
                took = took.saturating_add(more);
                finished = rest.last() == Some(&b'\n');
                if finished || more == 0 {
                    break;
                }
            }
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        Ok(Some(Raw {
            bytes: &self.line,
            unfinished: !finished,
            took,
        }))
    }
}

/// The files of a log that may be written meanwhile. The one that is written is held open from the start, since it may be
/// set aside at any moment; those that were set aside keep their names.
pub(super) struct Held {
    older: Vec<PathBuf>,
    live: Option<File>,
}

impl Held {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let live = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let held = live.as_ref().map(File::metadata).transpose()?.map(id);
        let mut older = Vec::new();
        // Listed after that: what is set aside in between is in the list as well, or held.
        for (_, path) in set_aside(path)? {
            if held.is_none() || fs::metadata(&path).map(id).ok() != held {
                older.push(path);
            }
        }
        Ok(Self { older, live })
    }

    /// Oldest first; whether it is the one that is written.
    pub(super) fn files(self) -> impl Iterator<Item = io::Result<(Lines, bool)>> {
        let older = self
            .older
            .into_iter()
            .map(|path| Ok((Lines::open(&path)?, false)));
        let live = self.live.map(|file| Ok((Lines::of(file), true)));
        older.chain(live)
    }
}

/// The files of a log, oldest first, the one that is written last.
///
/// # Errors
/// The directory cannot be read.
pub fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = set_aside(path)?.into_iter().map(|(_, path)| path).collect();
    if path.exists() {
        files.push(path.to_owned());
    }
    Ok(files)
}

/// What a log says of a journal, without opening it for writing: for a command while no gate runs.
///
/// # Errors
/// The files cannot be read.
pub fn testimony(path: &Path, journal: u64) -> io::Result<Testimony> {
    let mut last = None;
    for file in files_of(path)?.iter().rev() {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            if let Ok(line) = Line::parse(line.bytes) {
                last = line.source.mark();
            }
        }
        if last.is_some() {
            break;
        }
    }
    testimony_of(path, last, journal)
}

/// The same, where the end is known. Only a log that ends with another journal is read any further: backwards, to the newest
/// file that has a record of this one. A journal that was made just now ([`NOBODY`]) has none, and years need not be read for
/// that. What cannot be read is left out: the log's end has put the journal in doubt already.
pub(super) fn testimony_of(path: &Path, last: Option<Mark>, journal: u64) -> io::Result<Testimony> {
    let ours = match last {
        None => None,
        Some(mark) if mark.journal == journal => Some(mark.row),
        Some(_) if journal == NOBODY => None,
        Some(_) => highest(path, journal)?,
    };
    Ok(Testimony { last, ours })
}

fn highest(path: &Path, journal: u64) -> io::Result<Option<i64>> {
    for file in files_of(path)?.iter().rev() {
        match highest_in(file, journal) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => tracing::error!(
                file = %file.display(), %error,
                "a file of the audit log cannot be read: what it says of this journal is not known"
            ),
        }
    }
    Ok(None)
}

fn highest_in(file: &Path, journal: u64) -> io::Result<Option<i64>> {
    let mut highest = None;
    let mut lines = Lines::open(file)?;
    while let Some(line) = lines.next()? {
        let mark = Line::parse(line.bytes)
            .ok()
            .and_then(|line| line.source.mark());
        if let Some(mark) = mark.filter(|mark| mark.journal == journal) {
            highest = highest.max(Some(mark.row));
        }
    }
    Ok(highest)
}
