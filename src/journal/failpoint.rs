//! Places at which a test build stops or dies. Without the cargo feature `failpoints` they are nothing at all.
//!
//! `PRIORGATE_FAILPOINT=<place>[@<n>]:<action>` arms one place, for its n-th passing (the first, without a number).
//! Places are `<work>.before_commit` and `<work>.after_commit` for each of [`WORKS`]. Actions: `kill` (SIGKILL), `panic`,
//! `pause:<ms>`, `pause-file:<path>` (until that file exists, or half a minute).

/// The works whose commits are places.
pub const WORKS: [&str; 11] = [
    "reserve",
    "sent",
    "finish",
    "afterwards",
    "resolve",
    "release",
    "freeze",
    "accept",
    "claim",
    "settle",
    "recorded",
];

#[cfg(not(feature = "failpoints"))]
pub(crate) fn at(_work: &str, _edge: &str) {}

#[cfg(feature = "failpoints")]
pub(crate) fn at(work: &str, edge: &str) {
    armed::at(&format!("{work}.{edge}"));
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::path::Path;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use rustix::process::{Signal, getpid, kill_process};

    struct Armed {
        place: String,
        passing: u64,
        action: String,
        passed: AtomicU64,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let read = || {
            let text = std::env::var("PRIORGATE_FAILPOINT").ok()?;
            let (place, action) = text.split_once(':')?;
            let (place, passing) = match place.split_once('@') {
                Some((place, passing)) => (place, passing.parse().ok()?),
                None => (place, 1),
            };
            Some(Armed {
                place: place.to_owned(),
                passing,
                action: action.to_owned(),
                passed: AtomicU64::new(0),
            })
        };
        ARMED.get_or_init(read).as_ref()
    }

    pub(super) fn at(place: &str) {
        let Some(armed) = armed().filter(|armed| armed.place == place) else {
            return;
        };
        if armed.passed.fetch_add(1, Ordering::SeqCst) + 1 != armed.passing {
            return;
        }
        match armed.action.split_once(':') {
            None if armed.action == "kill" => {
                // Only a test build comes here; the signal cannot be refused to oneself.
                let _ = kill_process(getpid(), Signal::KILL);
                sleep(Duration::from_secs(60));
            }
            None if armed.action == "panic" => panic!("asked for at {place}"),
            Some(("pause", millis)) => {
                sleep(Duration::from_millis(millis.parse().unwrap_or(0)));
            }
            Some(("pause-file", path)) => {
                let until = Instant::now() + Duration::from_secs(30);
                while !Path::new(path).exists() && Instant::now() < until {
                    sleep(Duration::from_millis(5));
                }
            }
            _ => {}
        }
    }
}
