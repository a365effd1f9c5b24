//! The ways in which the sandbox bank misbehaves, on demand.
//!
//! Owns the names of the faults, the list of armed ones and the magic order references. Says what
//! is to happen; `serve` makes it happen. Knows nothing of sockets or of the ledger.
//!
//! A fault is written as `delay-<duration>`, `drop-before-read`, `drop-after-read`, `reset`,
//! `truncate`, `wrong-length`, `garbage`, `redirect` or `status-<400..599>`. There are two ways to
//! ask for one:
//!
//! - a magic order reference, `fault-<fault>` (the create request) or `fault-refund-<fault>` (the
//!   refunds of that session), then optionally `*<n>` (only the first `n` requests; without it,
//!   every one) and `.<anything>` (to keep references apart): `fault-refund-reset*1.order-17`;
//! - the control API, which arms a fault for the next `n` requests, of one route or of any.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::units;

/// A delay beyond any client's patience helps nobody and holds a connection.
const MAX_DELAY: Duration = Duration::from_secs(300);
/// How many faults may wait at once.
const MAX_ARMED: usize = 256;
/// How many requests one armed fault may hit.
const MAX_TIMES: u32 = 1_000_000;
/// How many counted magic references are remembered.
const MAX_COUNTED: usize = 10_000;

/// One kind of misbehaviour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Acts, waits, then answers properly.
    Delay(Duration),
    /// Acts, then closes without an answer.
    DropAfterRead,
    /// Closes as soon as a request begins to arrive; nothing of it is read or counted.
    ///
    /// By magic reference the bank has to read the request to find the fault: the request is
    /// counted as seen, but nothing happens in the ledger.
    DropBeforeRead,
    /// Acts, then answers bytes that are no HTTP.
    Garbage,
    /// Answers 302 to somewhere else, without acting.
    Redirect,
    /// Acts, then resets the connection (RST).
    Reset,
    /// Answers this status, without acting.
    Status(u16),
    /// Acts, then closes in the middle of the answer's body.
    Truncate,
    /// Acts, then answers more body than `Content-Length` says.
    WrongLength,
}

impl Fault {
    /// Does the request reach the ledger, although its answer goes wrong?
    #[must_use]
    pub const fn acts(self) -> bool {
        match self {
            Self::Delay(_)
            | Self::DropAfterRead
            | Self::Garbage
            | Self::Reset
            | Self::Truncate
            | Self::WrongLength => true,
            Self::DropBeforeRead | Self::Redirect | Self::Status(_) => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(time) => write!(f, "delay-{}", units::format_duration(*time)),
            Self::DropAfterRead => f.write_str("drop-after-read"),
            Self::DropBeforeRead => f.write_str("drop-before-read"),
            Self::Garbage => f.write_str("garbage"),
            Self::Redirect => f.write_str("redirect"),
            Self::Reset => f.write_str("reset"),
            Self::Status(status) => write!(f, "status-{status}"),
            Self::Truncate => f.write_str("truncate"),
            Self::WrongLength => f.write_str("wrong-length"),
        }
    }
}

/// Why a fault was not understood or not armed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FaultError {
    /// Too many are waiting.
    #[error("{MAX_ARMED} faults are armed already; DELETE /control/faults clears them")]
    Full,
    /// No such name, or a bad argument.
    #[error(
        "unknown fault; expected delay-<duration up to 5m>, drop-before-read, drop-after-read, \
         reset, truncate, wrong-length, garbage, redirect or status-<400..599>"
    )]
    Name,
    /// A route where none is known yet.
    #[error("drop-before-read happens before the route is known; leave `route` out")]
    Route,
    /// Not a sensible count.
    #[error("expected a count of times between 1 and {MAX_TIMES}")]
    Times,
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        if let Some(time) = text.strip_prefix("delay-") {
            let time = units::parse_duration(time).map_err(|_| FaultError::Name)?;
            return (time <= MAX_DELAY)
                .then_some(Self::Delay(time))
                .ok_or(FaultError::Name);
        }
        if let Some(status) = text.strip_prefix("status-") {
            let status = status
                .parse()
                .ok()
                .filter(|status| (400..600).contains(status));
            return status.map(Self::Status).ok_or(FaultError::Name);
        }
        match text {
            "drop-after-read" => Ok(Self::DropAfterRead),
            "drop-before-read" => Ok(Self::DropBeforeRead),
            "garbage" => Ok(Self::Garbage),
            "redirect" => Ok(Self::Redirect),
            "reset" => Ok(Self::Reset),
            "truncate" => Ok(Self::Truncate),
            "wrong-length" => Ok(Self::WrongLength),
            _ => Err(FaultError::Name),
        }
    }
}

/// The three things that the bank does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// `POST /installment/create`
    Create,
    /// `POST /installment/refund`
    Refund,
    /// `GET /installment/{id}`
    Status,
}

/// A fault that waits for its requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Armed {
    /// What will happen.
    pub fault: Fault,
    /// Only on this route; `None` is any, even a request that the bank would refuse.
    pub route: Option<Route>,
    /// To how many more requests.
    pub times: u32,
}

/// All faults to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: VecDeque<Armed>,
    /// How often a magic reference with `*n` was used.
    used: HashMap<String, u32>,
}

impl Faults {
    /// Adds a fault behind those that wait.
    pub(super) fn arm(&mut self, armed: Armed) -> Result<(), FaultError> {
        if armed.times == 0 || armed.times > MAX_TIMES {
            return Err(FaultError::Times);
        }
        if armed.fault == Fault::DropBeforeRead && armed.route.is_some() {
            return Err(FaultError::Route);
        }
        if self.armed.len() >= MAX_ARMED {
            return Err(FaultError::Full);
        }
        self.armed.push_back(armed);
        Ok(())
    }

    /// What waits, in the order of arming.
    pub(super) fn armed(&self) -> impl Iterator<Item = &Armed> {
        self.armed.iter()
    }

    /// Forgets the armed faults.
    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    /// Is the request whose first byte just came to be dropped unread?
    pub(super) fn take_unread(&mut self) -> bool {
        // Only when it is this fault's turn: an older one without a route takes the request.
        let turn = self.armed.iter().position(|armed| armed.route.is_none());
        turn.is_some_and(|at| {
            let mine = self
                .armed
                .get(at)
                .is_some_and(|armed| armed.fault == Fault::DropBeforeRead);
            mine && self.spend(at).is_some()
        })
    }

    /// The oldest armed fault for a request that was read; `None` as route is an unknown path.
    pub(super) fn take(&mut self, route: Option<Route>) -> Option<Fault> {
        let at = self.armed.iter().position(|armed| {
            // A request that was under way while it was armed is not its prey.
            armed.fault != Fault::DropBeforeRead && (armed.route.is_none() || armed.route == route)
        })?;
        self.spend(at)
    }

    /// The fault that an order reference asks for on this route, if it is a magic one.
    pub(super) fn magic(
        &mut self,
        order_ref: &str,
        route: Route,
    ) -> Result<Option<Fault>, FaultError> {
        let Some(magic) = Magic::read(order_ref)? else {
            return Ok(None);
        };
        if magic.route != route {
            return Ok(None);
        }
        if let Some(times) = magic.times {
            if self.used.len() >= MAX_COUNTED && !self.used.contains_key(order_ref) {
                return Err(FaultError::Full);
            }
            let used = self.used.entry(order_ref.to_owned()).or_default();
            if *used >= times {
                return Ok(None);
            }
            *used += 1;
        }
        Ok(Some(magic.fault))
    }

    fn spend(&mut self, at: usize) -> Option<Fault> {
        let armed = self.armed.get_mut(at)?;
        let fault = armed.fault;
        armed.times = armed.times.saturating_sub(1);
        if armed.times == 0 {
            self.armed.remove(at);
        }
        Some(fault)
    }
}

/// `fault-[refund-]<fault>[*<n>][.<anything>]`
struct Magic {
    fault: Fault,
    route: Route,
    times: Option<u32>,
}

impl Magic {
    fn read(order_ref: &str) -> Result<Option<Self>, FaultError> {
        let Some(rest) = order_ref.strip_prefix("fault-") else {
            return Ok(None);
        };
        let rest = rest.split_once('.').map_or(rest, |(before, _)| before);
        let (name, times) = match rest.split_once('*') {
            Some((name, times)) => {
                let times = times.parse().ok().filter(|n| (1..=MAX_TIMES).contains(n));
                (name, Some(times.ok_or(FaultError::Times)?))
            }
            None => (rest, None),
        };
        let (name, route) = match name.strip_prefix("refund-") {
            Some(name) => (name, Route::Refund),
            None => (name, Route::Create),
        };
        let fault = name.parse()?;
        Ok(Some(Self {
            fault,
            route,
            times,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(fault: &str, route: Option<Route>, times: u32) -> Armed {
        Armed {
            fault: fault.parse().unwrap(),
            route,
            times,
        }
    }

    #[test]
    fn every_fault_is_written_as_it_is_read() {
        for name in [
            "delay-250ms",
            "delay-5m",
            "drop-after-read",
            "drop-before-read",
            "garbage",
            "redirect",
            "reset",
            "status-400",
            "status-599",
            "truncate",
            "wrong-length",
        ] {
            assert_eq!(name.parse::<Fault>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "delay-",
            "delay-5",
            "delay-6m",
            "status-200",
            "status-600",
            "Reset",
        ] {
            assert_eq!(name.parse::<Fault>(), Err(FaultError::Name), "{name}");
        }
    }

    #[test]
    fn an_armed_fault_hits_its_route_as_often_as_asked_and_no_more() {
        let mut faults = Faults::default();
        faults.arm(armed("reset", Some(Route::Refund), 2)).unwrap();
        faults.arm(armed("garbage", None, 1)).unwrap();
        assert_eq!(faults.take(Some(Route::Create)), Some(Fault::Garbage));
        assert_eq!(faults.take(Some(Route::Create)), None);
        assert_eq!(faults.take(Some(Route::Refund)), Some(Fault::Reset));
        assert_eq!(faults.take(None), None);
        assert_eq!(faults.take(Some(Route::Refund)), Some(Fault::Reset));
        assert_eq!(faults.take(Some(Route::Refund)), None);
    }

    #[test]
    fn a_drop_before_reading_waits_for_its_turn_and_hits_only_unread_requests() {
        let mut faults = Faults::default();
        faults.arm(armed("garbage", None, 1)).unwrap();
        faults.arm(armed("drop-before-read", None, 1)).unwrap();
        assert!(!faults.take_unread(), "garbage is older");
        assert_eq!(faults.take(None), Some(Fault::Garbage));
        assert_eq!(faults.take(None), None, "this request is read already");
        assert!(faults.take_unread());
        assert!(!faults.take_unread());
    }

    #[test]
    fn what_cannot_happen_is_not_armed() {
        let mut faults = Faults::default();
        assert_eq!(faults.arm(armed("reset", None, 0)), Err(FaultError::Times));
        let dropped = armed("drop-before-read", Some(Route::Create), 1);
        assert_eq!(faults.arm(dropped), Err(FaultError::Route));
        for _ in 0..MAX_ARMED {
            faults.arm(armed("reset", None, 1)).unwrap();
        }
        assert_eq!(faults.arm(armed("reset", None, 1)), Err(FaultError::Full));
    }

    #[test]
    fn a_magic_reference_names_fault_route_and_count() {
        let mut faults = Faults::default();
        let mut ask = |order_ref: &str, route| faults.magic(order_ref, route);
        assert_eq!(ask("order-fault-reset", Route::Create), Ok(None));
        for _ in 0..3 {
            let fault = ask("fault-delay-2s", Route::Create);
            assert_eq!(fault, Ok(Some(Fault::Delay(Duration::from_secs(2)))));
        }
        assert_eq!(ask("fault-delay-2s", Route::Refund), Ok(None));
        let once = "fault-refund-status-503*1.order-17";
        assert_eq!(ask(once, Route::Create), Ok(None));
        assert_eq!(ask(once, Route::Refund), Ok(Some(Fault::Status(503))));
        assert_eq!(ask(once, Route::Refund), Ok(None));
        assert_eq!(ask("fault-reste", Route::Create), Err(FaultError::Name));
        assert_eq!(ask("fault-reset*0", Route::Create), Err(FaultError::Times));
    }
}
