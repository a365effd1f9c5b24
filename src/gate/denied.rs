//! Denied callers in the audit log: one record for each caller and second, as the log of the process has them.

use std::sync::Arc;

use crate::audit::Audit;
use crate::net::denials::Sink;
use crate::policy::chain::Fields;
use crate::policy::denial::{Cause, Denial};
use crate::policy::operation::UnixMillis;
use crate::policy::problem::Code;

/// Where the denials of a bank or a callback go. `owner` is the member that names it: `bank` or `callback`.
pub(super) fn sink(audit: &Audit, owner: &'static str, name: &str) -> Sink {
    let (audit, name) = (audit.clone(), name.to_owned());
    Arc::new(move |_, denial| {
        audit.event(fields(owner, &name, denial), at(denial.second));
    })
}

fn fields(owner: &'static str, name: &str, denial: &Denial) -> Fields {
    let code = match denial.cause {
        Cause::NotListed | Cause::Unproven => Code::CallerDenied.row().code,
        Cause::Token => Code::TokenRequired.row().code,
        // Several callers, for several reasons.
        Cause::Many => "",
    };
    Fields::of("denied")
        .text(owner, name)
        .text("listener", &denial.listener)
        .optional("uid", denial.uid)
        .text("code", code)
        .text("cause", denial.cause.as_str())
        .number("times", denial.count)
}

fn at(second: u64) -> UnixMillis {
    UnixMillis(i64::try_from(second).map_or(i64::MAX, |second| second.saturating_mul(1_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_says_who_where_why_and_how_often() {
        let denial = |uid, cause| Denial {
            second: 5,
            listener: "tcp:x".into(),
            uid,
            cause,
            count: 7,
        };
        for (denial, expected) in [
            (
                denial(Some(33), Cause::NotListed),
                r#""event":"denied","bank":"b","listener":"tcp:x","uid":33,"code":"caller_denied","cause":"not_listed","times":7"#,
            ),
            (
                denial(None, Cause::Token),
                r#""event":"denied","bank":"b","listener":"tcp:x","code":"token_required","cause":"token","times":7"#,
            ),
            (
                denial(None, Cause::Many),
                r#""event":"denied","bank":"b","listener":"tcp:x","cause":"many","times":7"#,
            ),
        ] {
            assert_eq!(fields("bank", "b", &denial).as_str(), expected);
        }
        assert_eq!(at(5), UnixMillis(5_000));
    }
}
