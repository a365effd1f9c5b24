//! What every scenario needs: a PKI made at run time, a scripted bank, the real gate, a raw client.

pub(crate) mod alert;
pub(crate) mod audit;
pub(crate) mod audit_made;
pub(crate) mod bank;
pub(crate) mod client;
pub(crate) mod disk;
pub(crate) mod failpoints;
pub(crate) mod gate;
pub(crate) mod keyholder;
pub(crate) mod operation;
pub(crate) mod pki;
pub(crate) mod process;
#[cfg(feature = "sandbox")]
pub(crate) mod sandbox;
pub(crate) mod scrape;
pub(crate) mod shim;
#[cfg(feature = "sandbox")]
pub(crate) mod shop;
pub(crate) mod world;

use std::time::{Duration, Instant};

/// Longer than anything here takes on a loaded machine; a failing scenario ends all the same.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `found` gives something. Panics with `what` when nothing comes.
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Whether a scenario can be run that only root can: be another user, read another's memory. In CI it must be: what is
/// skipped there is proved nowhere.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(
        root || std::env::var_os("CI").is_none(),
        "CI must run the scenarios as root"
    );
    if !root {
        println!("skipped: only root can do this");
    }
    root
}

/// Polls until `holds` says so.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}
