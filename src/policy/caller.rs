//! Who may call: the uid of the process at the other end, and, on TCP, a token.

use subtle::{Choice, ConditionallySelectable};

use crate::policy::secret::Secret;

/// The uid of the superuser. The kernel also gives it for TCP sockets that nobody holds any more.
pub const ROOT: u32 = 0;
/// The kernel's overflow uid: `nobody`, and every uid that a user namespace does not know.
pub const NOBODY: u32 = 65_534;

/// What a listener asks of its callers. There is no variant that asks nothing by accident.
#[derive(Clone, Debug)]
pub enum Access {
    /// The uid of the caller's socket must be on this list.
    Uids(Vec<u32>),
    /// TCP: one of these tokens must be presented.
    Tokens(Vec<Secret>),
    /// TCP: both must hold.
    Both(Vec<u32>, Vec<Secret>),
    /// TCP, spelled out as `open_to_every_local_user: true`.
    OpenToEveryLocalUser,
}

/// What became of the check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Verdict {
    /// The caller may use the listener's routes.
    Allow,
    /// The uid is not on the list: `caller_denied`.
    DenyCaller,
    /// The uid could not be told: `caller_denied`.
    DenyUnproven,
}

/// What became of the check of a request's tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum TokenVerdict {
    /// The listener asks for none.
    NotAsked,
    /// One was presented, and it is the listener's of this place: 0 is the first of `token_files`.
    Known(u32),
    /// The token is missing, doubled or wrong: `token_required`.
    Deny,
}

/// Whether a uid means one user whether it is written as a number or as a name. The two that the kernel also gives for
/// "nobody knows" do not: they are listed by name or not at all.
#[must_use]
pub fn needs_name(uid: u32) -> bool {
    matches!(uid, ROOT | NOBODY)
}

/// Judges a uid against a list. `None` is a caller whose uid could not be told; it is never on the list.
pub fn judge_uid(allowed: &[u32], uid: Option<u32>) -> Verdict {
    match uid {
        Some(uid) if allowed.contains(&uid) => Verdict::Allow,
        Some(_) => Verdict::DenyCaller,
        None => Verdict::DenyUnproven,
    }
}

impl Access {
    /// The uids that may call, where it matters who calls.
    #[must_use]
    pub fn uids(&self) -> Option<&[u32]> {
        match self {
            Self::Uids(uids) | Self::Both(uids, _) => Some(uids),
            Self::Tokens(_) | Self::OpenToEveryLocalUser => None,
        }
    }

    /// Judges the connection, before a byte of a request counts.
    pub fn judge_uid(&self, uid: Option<u32>) -> Verdict {
        self.uids()
            .map_or(Verdict::Allow, |allowed| judge_uid(allowed, uid))
    }

    /// Judges one request by all the tokens that it presents.
    ///
    /// Fails closed: a request that presents two tokens is denied, even if one is right.
    pub fn judge_tokens(&self, tokens: &[&[u8]]) -> TokenVerdict {
        let known = match self {
            Self::Tokens(known) | Self::Both(_, known) => known,
            Self::Uids(_) | Self::OpenToEveryLocalUser => return TokenVerdict::NotAsked,
        };
        let [presented] = tokens else {
            return TokenVerdict::Deny;
        };
        // Every known token is compared, and the place of the right one is picked without a branch: the time must not
        // tell which one was close.
        let matched = (1_u32..).zip(known).fold(0, |found, (number, token)| {
            let picked = Choice::from(u8::from(token.matches(presented)));
            u32::conditional_select(&found, &number, picked)
        });
        match matched.checked_sub(1) {
            Some(place) => TokenVerdict::Known(place),
            None => TokenVerdict::Deny,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Vec<Secret> {
        vec![Secret::new(b"one".to_vec()), Secret::new(b"two".to_vec())]
    }

    #[test]
    fn only_a_listed_uid_is_allowed() {
        for access in [
            Access::Uids(vec![33, 1000]),
            Access::Both(vec![33, 1000], tokens()),
        ] {
            assert_eq!(access.judge_uid(Some(33)), Verdict::Allow);
            assert_eq!(access.judge_uid(Some(ROOT)), Verdict::DenyCaller);
            assert_eq!(access.judge_uid(Some(NOBODY)), Verdict::DenyCaller);
            assert_eq!(access.judge_uid(None), Verdict::DenyUnproven);
        }
    }

    #[test]
    fn exactly_one_right_token_is_allowed() {
        for access in [Access::Tokens(tokens()), Access::Both(vec![33], tokens())] {
            assert_eq!(access.judge_tokens(&[b"one"]), TokenVerdict::Known(0));
            assert_eq!(access.judge_tokens(&[b"two"]), TokenVerdict::Known(1));
            for tokens in [&[][..], &[&b"on"[..]], &[b"one", b"one"], &[b""]] {
                assert_eq!(access.judge_tokens(tokens), TokenVerdict::Deny);
            }
        }
        assert_eq!(Access::Tokens(tokens()).judge_uid(None), Verdict::Allow);
    }

    #[test]
    fn an_open_listener_has_to_be_spelled_out() {
        let open = Access::OpenToEveryLocalUser;
        assert_eq!(open.judge_uid(None), Verdict::Allow);
        assert_eq!(open.judge_tokens(&[]), TokenVerdict::NotAsked);
        let nobody = Access::Uids(vec![]);
        assert_eq!(nobody.judge_uid(Some(ROOT)), Verdict::DenyCaller);
        let nothing = Access::Tokens(vec![]);
        assert_eq!(nothing.judge_tokens(&[b""]), TokenVerdict::Deny);
    }

    #[test]
    fn the_uids_that_may_mean_nobody_are_listed_by_name() {
        assert!(needs_name(0) && needs_name(65_534));
        assert!(!needs_name(33) && !needs_name(65_533));
    }
}
