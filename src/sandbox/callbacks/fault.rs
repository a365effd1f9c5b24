//! The ways in which a callback of the sandbox bank goes wrong, on demand.
//!
//! Owns the names of these faults and the list of armed ones. A fault belongs to one callback, and
//! to each of its attempts where it is in the bytes: what was signed once is sent again as it was.
//! Says what is to happen; `letter`, `queue` and `send` make it happen.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::CallbackError;
use crate::policy::units;

/// How long a slow body takes when nobody says.
const SLOW: Duration = Duration::from_secs(2);
/// Slower helps nobody and holds a connection.
const MAX_SLOW: Duration = Duration::from_secs(300);
/// How many faults may wait at once.
const MAX_ARMED: usize = 256;
/// How many callbacks one armed fault may hit.
const MAX_TIMES: u32 = 1_000_000;

/// One kind of misbehaviour of a callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CallbackFault {
    /// A digit of the body is another one than when it was signed.
    ChangedByte,
    /// The first attempt comes twice, over two connections at once.
    Doubled,
    /// The signature's header is missing.
    NoSignature,
    /// The body is the same JSON in another spelling; the signature is that of the first spelling.
    ReEncoded,
    /// Waits for the next callback of the same session, and comes after it.
    ReOrdered,
    /// The body of the first attempt dribbles, for this long in all.
    SlowBody(Duration),
    /// The signed timestamp is a year old. Needs a timestamp header.
    Stale,
    /// Two signature headers: the proper one, then one by another key.
    TwoSignatures,
    /// Signed properly, by a key that is not the bank's.
    WrongKey,
}

impl fmt::Display for CallbackFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChangedByte => "changed-byte",
            Self::Doubled => "doubled",
            Self::NoSignature => "no-signature",
            Self::ReEncoded => "re-encoded",
            Self::ReOrdered => "re-ordered",
            Self::SlowBody(SLOW) => "slow-body",
            Self::SlowBody(time) => {
                return write!(f, "slow-body-{}", units::format_duration(*time));
            }
            Self::Stale => "stale",
            Self::TwoSignatures => "two-signatures",
            Self::WrongKey => "wrong-key",
        })
    }
}

impl FromStr for CallbackFault {
    type Err = CallbackError;

    fn from_str(text: &str) -> Result<Self, CallbackError> {
        if let Some(time) = text.strip_prefix("slow-body-") {
            let time = units::parse_duration(time).map_err(|_| CallbackError::Fault)?;
            return (time <= MAX_SLOW)
                .then_some(Self::SlowBody(time))
                .ok_or(CallbackError::Fault);
        }
        match text {
            "changed-byte" => Ok(Self::ChangedByte),
            "doubled" => Ok(Self::Doubled),
            "no-signature" => Ok(Self::NoSignature),
            "re-encoded" => Ok(Self::ReEncoded),
            "re-ordered" => Ok(Self::ReOrdered),
            "slow-body" => Ok(Self::SlowBody(SLOW)),
            "stale" => Ok(Self::Stale),
            "two-signatures" => Ok(Self::TwoSignatures),
            "wrong-key" => Ok(Self::WrongKey),
            _ => Err(CallbackError::Fault),
        }
    }
}

/// The faults of callbacks to come, oldest first.
#[derive(Debug, Default)]
pub(super) struct Armed(VecDeque<(CallbackFault, u32)>);

impl Armed {
    /// Adds a fault for so many callbacks, behind those that wait.
    pub(super) fn arm(&mut self, fault: CallbackFault, times: u32) -> Result<(), CallbackError> {
        if times == 0 || times > MAX_TIMES {
            return Err(CallbackError::Times);
        }
        if self.0.len() >= MAX_ARMED {
            return Err(CallbackError::Full);
        }
        self.0.push_back((fault, times));
        Ok(())
    }

    /// The fault of a callback that is being made. One that another waits for is not itself
    /// re-ordered: two that wait for each other would never come.
    pub(super) fn take(&mut self, awaited: bool) -> Option<CallbackFault> {
        let (fault, times) = self.0.front_mut()?;
        let fault = *fault;
        if awaited && fault == CallbackFault::ReOrdered {
            return None;
        }
        *times = times.saturating_sub(1);
        if *times == 0 {
            self.0.pop_front();
        }
        Some(fault)
    }

    /// What waits, in the order of arming.
    pub(super) fn list(&self) -> impl Iterator<Item = (CallbackFault, u32)> {
        self.0.iter().copied()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_written_as_it_is_read() {
        for name in [
            "changed-byte",
            "doubled",
            "no-signature",
            "re-encoded",
            "re-ordered",
            "slow-body",
            "slow-body-250ms",
            "stale",
            "two-signatures",
            "wrong-key",
        ] {
            assert_eq!(name.parse::<CallbackFault>().unwrap().to_string(), name);
        }
        for name in ["", "slow-body-", "slow-body-6m", "Stale", "reset"] {
            let refused = name.parse::<CallbackFault>();
            assert_eq!(refused, Err(CallbackError::Fault), "{name}");
        }
    }

    #[test]
    fn an_armed_fault_hits_as_many_callbacks_as_asked_oldest_first() {
        let mut armed = Armed::default();
        assert_eq!(
            armed.arm(CallbackFault::Stale, 0),
            Err(CallbackError::Times)
        );
        armed.arm(CallbackFault::ReOrdered, 2).unwrap();
        armed.arm(CallbackFault::WrongKey, 1).unwrap();
        assert_eq!(armed.take(false), Some(CallbackFault::ReOrdered));
        assert_eq!(armed.take(true), None, "it is what the other waits for");
        assert_eq!(armed.take(false), Some(CallbackFault::ReOrdered));
        assert_eq!(armed.take(true), Some(CallbackFault::WrongKey));
        assert_eq!(armed.take(false), None);
    }
}
