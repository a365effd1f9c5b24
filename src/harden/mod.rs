//! Confinement: what the kernel takes away from a process once it has what it needs.
//!
//! [`needs`] derives from the configuration, without a system call, what a gate needs; `process`, `landlock` and
//! `seccomp` ask the kernel; [`report`] reads what is in force. All of it applies to the calling thread and to those
//! that it starts later: it must come before any other thread exists.

#[cfg(feature = "failpoints")]
pub mod forbidden;
mod landlock;
pub mod memory;
pub mod needs;
mod process;
pub mod report;
pub mod rules;
mod seccomp;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::Hardening;
use crate::net::exchange::chain;
use landlock::{InForce, Whom};
use needs::{GateNeeds, RESOLVER_FILES};
use report::{Own, Report};
use seccomp::SeccompError;

/// Why a process does not start.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// The TLS library of some programs writes session keys there; nobody sets it by accident on such a machine.
    #[error(
        "SSLKEYLOGFILE is set: whoever reads that file reads the bank's traffic. Unset it and start again"
    )]
    KeyLog,
    /// Something is not in force, under [`Hardening::Required`].
    #[error(
        "hardening: required, and the kernel does not give: {}. `priorgate doctor` says more; `hardening: best-effort` \
         starts without it",
        .missing.join(", ")
    )]
    Missing {
        /// What is not in force, with the reason where there is one.
        missing: Vec<String>,
    },
    /// `/proc` cannot be read, which nothing can be proved without.
    #[error("cannot read /proc/self, which says what is in force")]
    Proc(#[source] std::io::Error),
}

/// What is in force in this process, for as long as it lives.
#[derive(Debug)]
pub struct Confined {
    level: Hardening,
    own: Option<Own>,
    landlock: InForce,
    /// What was asked for and could not be had, with the reason.
    failed: Vec<String>,
    /// A monitor has no rules of files: its signers open the keys.
    files_wanted: bool,
    needs: Option<GateNeeds>,
    granted: Granted,
    resolver: Vec<(PathBuf, Option<Inode>)>,
}

type Inode = (u64, u64);

/// The directories that rules were made for, and which ones these were: a rule follows the directory, not its name.
#[derive(Debug, Default)]
struct Granted {
    read: Vec<(PathBuf, Option<Inode>)>,
    write: Vec<(PathBuf, Option<Inode>)>,
    sockets: Vec<(PathBuf, Option<Inode>)>,
}

impl Granted {
    fn of(needs: &GateNeeds) -> Self {
        let told = |paths: BTreeSet<PathBuf>| {
            let found = paths.into_iter().map(|path| {
                let inode = inode(&path);
                (path, inode)
            });
            found.collect()
        };
        let resolved = |paths: &BTreeSet<PathBuf>| {
            let real = paths
                .iter()
                .map(|path| rules::real(path).unwrap_or_else(|| path.clone()));
            told(real.collect())
        };
        Self {
            read: told(needs.readable(rules::real)),
            write: resolved(&needs.write),
            sockets: resolved(&needs.sockets),
        }
    }

    /// The first directory of `needed` that lies beneath none that is still the one which it was.
    fn lacks(&self, needed: &Self) -> Option<PathBuf> {
        let kinds = [
            (&self.read, &needed.read),
            (&self.write, &needed.write),
            (&self.sockets, &needed.sockets),
        ];
        kinds.into_iter().find_map(|(granted, needed)| {
            let open = |path: &PathBuf| {
                let mut above = granted.iter().filter(|(root, _)| path.starts_with(root));
                above.any(|(root, before)| inode(root) == *before)
            };
            let closed = needed.iter().find(|(path, _)| !open(path));
            closed.map(|(path, _)| path.clone())
        })
    }
}

/// Refuses an environment in which a TLS library would write session keys down. At any level.
///
/// # Errors
/// [`HardenError::KeyLog`].
pub fn refuse_key_log() -> Result<(), HardenError> {
    match std::env::var_os("SSLKEYLOGFILE") {
        None => Ok(()),
        Some(_) => Err(HardenError::KeyLog),
    }
}

/// No other process of this user may look into this one, from now on. It is asked for again with the rest of the
/// confinement, which says whether it is so.
pub fn not_dumpable() {
    let _ = process::not_dumpable();
}

/// Confines a gate to what it needs.
///
/// # Errors
/// [`HardenError`], under [`Hardening::Required`] when anything of it is not in force.
pub fn confine_gate(needs: GateNeeds, level: Hardening) -> Result<Confined, HardenError> {
    // An abstract socket of the service manager would be cut off by the scope of abstract sockets.
    let manager = std::env::var_os("NOTIFY_SOCKET");
    let abstract_sockets = manager.is_some_and(|at| at.as_encoded_bytes().starts_with(b"@"));
    let resolver = if needs.names {
        resolver_files()
            .into_iter()
            .map(|file| {
                let found = inode(&file);
                (file, found)
            })
            .collect()
    } else {
        Vec::new()
    };
    let granted = Granted::of(&needs);
    let confined = confine(level, Whom::Gate(&needs), abstract_sockets, seccomp::gate)?;
    confined.required(confined.missing())?;
    Ok(Confined {
        needs: confined.landlock.files.then_some(needs),
        granted,
        resolver: if confined.landlock.files {
            resolver
        } else {
            Vec::new()
        },
        ..confined
    })
}

/// Confines a signer, which has everything that it will ever need. No other thread may exist.
///
/// # Errors
/// As [`confine_gate`].
pub fn confine_signer(level: Hardening) -> Result<Confined, HardenError> {
    confine(level, Whom::Signer, false, seccomp::signer)
}

/// Confines a monitor, and with it every signer that it starts: no network, nobody else's processes. Files stay open
/// to it, since a signer opens the keys.
///
/// # Errors
/// As [`confine_gate`].
pub fn confine_monitor(level: Hardening) -> Result<Confined, HardenError> {
    confine(level, Whom::Monitor, true, seccomp::monitor)
}

fn confine(
    level: Hardening,
    whom: Whom<'_>,
    abstract_sockets: bool,
    filter: fn() -> Result<(), SeccompError>,
) -> Result<Confined, HardenError> {
    let own = Own::open().map_err(HardenError::Proc);
    if level == Hardening::Disabled {
        return Ok(Confined::new(
            level,
            own.ok(),
            InForce::default(),
            Vec::new(),
        ));
    }
    let mut failed: Vec<String> = process::give_up()
        .into_iter()
        .map(|failed| format!("{}: {}", failed.what, failed.source))
        .collect();
    // Before seccomp, whose lists do not have its calls.
    let landlock = match landlock::restrict(whom, abstract_sockets) {
        Ok(in_force) => in_force,
        Err(error) => {
            failed.push(format!("Landlock files: {}", chain(&error)));
            InForce::default()
        }
    };
    let mut confined = Confined {
        files_wanted: !matches!(whom, Whom::Monitor),
        ..Confined::new(level, own.ok(), landlock, failed)
    };
    // Asked before the filter, under which a signer that asked would be killed. The filter itself is in force when the
    // kernel took it; whoever lives on can ask again.
    let mut missing = confined.missing();
    missing.retain(|it| it != report::SECCOMP);
    if let Err(error) = filter() {
        let failed = format!("{}: {}", report::SECCOMP, chain(&error));
        missing.push(failed.clone());
        confined.failed.push(failed);
    }
    confined.required(missing)?;
    Ok(confined)
}

impl Confined {
    fn new(level: Hardening, own: Option<Own>, landlock: InForce, failed: Vec<String>) -> Self {
        Self {
            level,
            own,
            landlock,
            failed,
            files_wanted: true,
            needs: None,
            granted: Granted::default(),
            resolver: Vec::new(),
        }
    }

    fn required(&self, missing: Vec<String>) -> Result<(), HardenError> {
        if self.level == Hardening::Required && !missing.is_empty() {
            return Err(HardenError::Missing { missing });
        }
        Ok(())
    }

    /// The level that was asked for.
    #[must_use]
    pub fn level(&self) -> Hardening {
        self.level
    }

    /// What the kernel says now.
    #[must_use]
    pub fn report(&self) -> Report {
        let facts = self.own.as_ref().and_then(|own| own.facts().ok());
        match facts {
            Some(facts) => {
                let mut report = Report::own(&facts, self.landlock);
                report
                    .missing
                    .retain(|it| self.files_wanted || it != report::FILES);
                report
            }
            None => Report {
                missing: vec!["/proc/self: what is in force cannot be read".to_owned()],
                ..Report::default()
            },
        }
    }

    /// What is not in force, each with the reason where the kernel gave one.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let told = |missing: &String| {
            let prefix = format!("{missing}: ");
            !self.failed.iter().any(|failed| failed.starts_with(&prefix))
        };
        let report = self.report().missing.into_iter().filter(told);
        report.chain(self.failed.iter().cloned()).collect()
    }

    /// What could not be given up, without a look into `/proc`: a signer may not open it any more.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.failed.clone()
    }

    /// The same for the log of a start: nothing where nothing was asked for.
    #[must_use]
    pub fn missing_where_wanted(&self) -> Vec<String> {
        match self.level {
            Hardening::Disabled => Vec::new(),
            Hardening::Required | Hardening::BestEffort => self.missing(),
        }
    }

    /// Whether files that were not granted are closed to this process: the user database is one.
    #[must_use]
    pub fn closes_files(&self) -> bool {
        self.landlock.files
    }

    /// What `needs` has that this process cannot get any more.
    #[must_use]
    pub fn beyond(&self, needs: &GateNeeds) -> Option<String> {
        let granted = self.needs.as_ref()?;
        if let Some(path) = self.granted.lacks(&Granted::of(needs)) {
            return Some(format!(
                "the directory {} is needed, and not open to this process: it is new, or another one than at the start",
                path.display()
            ));
        }
        let mut needs = needs.clone();
        // What this kernel has no rules for was not taken away.
        needs.connect_unix.clear();
        if !self.landlock.ports {
            needs.connect_tcp.clear();
        }
        needs.beyond(granted, rules::real)
    }

    /// The first file of the resolver that is another file now: what names resolve to can no longer be followed.
    #[must_use]
    pub fn replaced_resolver(&self) -> Option<&Path> {
        let mut files = self.resolver.iter();
        // Looking at a file needs no right to read it.
        let replaced = files.find(|(path, before)| inode(path) != *before);
        replaced.map(|(path, _)| path.as_path())
    }

    /// Whether somebody starts this process again when it ends.
    #[must_use]
    pub fn is_managed() -> bool {
        // Every descendant of a unit has its INVOCATION_ID. This one names the process that the manager started.
        let started = std::env::var("SYSTEMD_EXEC_PID").ok();
        let own = std::process::id();
        std::env::var_os("NOTIFY_SOCKET").is_some()
            || started.and_then(|pid| pid.parse().ok()) == Some(own)
    }
}

/// The files of the resolver; a test build can be given one more, since it must not replace the machine's.
fn resolver_files() -> Vec<PathBuf> {
    let files = RESOLVER_FILES.map(PathBuf::from);
    #[cfg(feature = "failpoints")]
    let files = files
        .into_iter()
        .chain(std::env::var_os("PRIORGATE_RESOLVER_FILE").map(PathBuf::from));
    files.into_iter().collect()
}

fn inode(path: &Path) -> Option<Inode> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}
