//! A gate under `tests/shim/shim.c`: in which order it syncs and sends, and a journal whose disk fails on demand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// What a gate is started under. Its log outlives the gate's directory.
pub(crate) struct Shim {
    dir: TempDir,
    journal: PathBuf,
    port: Option<u16>,
    faults: Vec<String>,
}

/// A file of the journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum File {
    Database,
    Wal,
}

/// What was seen. Sizes and lengths are in bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    Write {
        file: File,
        length: u64,
        /// Below 0 when it failed.
        result: i64,
    },
    SyncBegin(File),
    SyncEnd {
        file: File,
        errno: i32,
        /// Of the file, then.
        size: u64,
    },
    Connect(u64),
    /// Bytes on their way to the bank, not yet with the kernel.
    Net {
        connection: u64,
        length: u64,
        /// Of the TLS records that begin in them.
        types: Vec<u8>,
    },
}

impl Shim {
    /// For the journal at `journal`, whose directory exists.
    pub(crate) fn new(journal: &Path) -> Self {
        let dir = journal.parent().unwrap().canonicalize().unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            journal: dir.join(journal.file_name().unwrap()),
            port: None,
            faults: Vec::new(),
        }
    }

    /// The bank's port: what is sent there is logged.
    pub(crate) fn bank(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// `fault` as in `wal-sync:EIO`, always.
    pub(crate) fn always(mut self, fault: &str) -> Self {
        self.faults.push(format!("{fault}:always"));
        self
    }

    /// The same between [`Self::arm`] and [`Self::disarm`].
    pub(crate) fn while_armed(mut self, fault: &str) -> Self {
        let control = self.control();
        self.faults
            .push(format!("{fault}:while:{}", control.display()));
        self
    }

    /// The same once, at the first such call after [`Self::arm`].
    pub(crate) fn once_armed(mut self, fault: &str) -> Self {
        let control = self.control();
        self.faults
            .push(format!("{fault}:once-after:{}", control.display()));
        self
    }

    /// The file whose existence arms.
    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("armed")
    }

    pub(crate) fn arm(&self) {
        arm(&self.control());
    }

    pub(crate) fn disarm(&self) {
        fs::remove_file(self.control()).unwrap();
    }

    /// The command under the shim.
    pub(crate) fn over(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", library())
            .env("SHIM_JOURNAL", &self.journal)
            .env("SHIM_LOG", self.log());
        if let Some(port) = self.port {
            command.env("SHIM_BANK_PORT", port.to_string());
        }
        if !self.faults.is_empty() {
            command.env("SHIM_FAULT", self.faults.join(","));
        }
        command
    }

    /// Everything so far, in order.
    pub(crate) fn events(&self) -> Vec<Event> {
        let log = fs::read_to_string(self.log()).unwrap();
        // Its last line may be on its way.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let mut events: Vec<_> = whole.lines().map(parse).collect();
        // Threads write their lines in the order of the file system, not in that of the numbers.
        events.sort_by_key(|(sequence, _)| *sequence);
        events.into_iter().map(|(_, event)| event).collect()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

/// Arms from a thread that has only the path.
pub(crate) fn arm(control: &Path) {
    fs::write(control, "").unwrap();
}

fn parse(line: &str) -> (u64, Event) {
    let words: Vec<&str> = line.split(' ').collect();
    let field = |name: &str| {
        let found = words.iter().find_map(|word| word.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name} in {line:?}"))
    };
    let file = || match words[3] {
        "db" => File::Database,
        "wal" => File::Wal,
        other => panic!("no file is called {other}: {line:?}"),
    };
    let event = match words[2] {
        "write" => Event::Write {
            file: file(),
            length: field("len=").parse().unwrap(),
            result: field("ret=").parse().unwrap(),
        },
        "sync" if words[4] == "begin" => Event::SyncBegin(file()),
        "sync" => Event::SyncEnd {
            file: file(),
            errno: field("errno=").parse().unwrap(),
            size: field("size=").parse().unwrap(),
        },
        "connect" => Event::Connect(field("conn=").parse().unwrap()),
        "net" => Event::Net {
            connection: field("conn=").parse().unwrap(),
            length: field("len=").parse().unwrap(),
            types: field("types=")
                .split(',')
                .filter_map(|word| word.parse().ok())
                .collect(),
        },
        other => panic!("no event is called {other}: {line:?}"),
    };
    (words[0].parse().unwrap(), event)
}

/// The shim as a library. Built once for a run of the tests.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim.so");
        // Another run may be using the old one: the new one replaces it whole.
        let fresh = library.with_extension(format!("{}.so", std::process::id()));
        let output = Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"])
            // It defines what these headers would make inline.
            .arg("-U_FORTIFY_SOURCE")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&fresh)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/shim.c"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        fs::rename(&fresh, &library).unwrap();
        library
    })
}
