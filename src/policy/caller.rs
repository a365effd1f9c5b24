//! Who may call: the uid of the process at the other end, and, on TCP, a token.

use crate::policy::secret::Secret;

/// What a listener asks of its callers. There is no variant that asks nothing by accident.
#[derive(Clone, Debug)]
pub enum Access {
    /// A unix socket: the peer's uid (`SO_PEERCRED`) must be on this list.
    Uids(Vec<u32>),
    /// TCP: one of these tokens must be presented.
    Tokens(Vec<Secret>),
    /// TCP, spelled out as `open_to_every_local_user: true`.
    OpenToEveryLocalUser,
}

/// What became of the check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Verdict {
    /// The caller may use the listener's routes.
    Allow,
    /// The uid is not on the list, or could not be told: `caller_denied`.
    DenyCaller,
    /// The token is missing, doubled or wrong: `token_required`.
    DenyToken,
}

impl Access {
    /// Judges one request. `uid` is the connection's peer where the kernel tells it, `tokens` are all that the request presented.
    ///
    /// Fails closed: an unknown uid is denied, and so is a request that presents two tokens, even if one is right.
    pub fn judge(&self, uid: Option<u32>, tokens: &[&[u8]]) -> Verdict {
        match self {
            Self::Uids(allowed) => match uid {
                Some(uid) if allowed.contains(&uid) => Verdict::Allow,
                Some(_) | None => Verdict::DenyCaller,
            },
            Self::Tokens(known) => {
                let [presented] = tokens else {
                    return Verdict::DenyToken;
                };
                // Every known token is compared: the time must not tell which one was close.
                let matched = known
                    .iter()
                    .fold(false, |found, token| token.matches(presented) | found);
                if matched {
                    Verdict::Allow
                } else {
                    Verdict::DenyToken
                }
            }
            Self::OpenToEveryLocalUser => Verdict::Allow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listed_uid_is_allowed() {
        let access = Access::Uids(vec![33, 1000]);
        assert_eq!(access.judge(Some(33), &[]), Verdict::Allow);
        assert_eq!(access.judge(Some(0), &[]), Verdict::DenyCaller);
        assert_eq!(access.judge(None, &[b"t"]), Verdict::DenyCaller);
    }

    #[test]
    fn exactly_one_right_token_is_allowed() {
        let access = Access::Tokens(vec![
            Secret::new(b"one".to_vec()),
            Secret::new(b"two".to_vec()),
        ]);
        assert_eq!(access.judge(None, &[b"two"]), Verdict::Allow);
        for tokens in [&[][..], &[&b"on"[..]], &[b"one", b"one"], &[b""]] {
            assert_eq!(access.judge(Some(0), tokens), Verdict::DenyToken);
        }
    }

    #[test]
    fn an_open_listener_has_to_be_spelled_out() {
        assert_eq!(
            Access::OpenToEveryLocalUser.judge(None, &[]),
            Verdict::Allow
        );
        assert_eq!(
            Access::Uids(vec![]).judge(Some(0), &[]),
            Verdict::DenyCaller
        );
        assert_eq!(
            Access::Tokens(vec![]).judge(Some(0), &[b""]),
            Verdict::DenyToken
        );
    }
}
