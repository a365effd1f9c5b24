//! Whether a caller may use a listener, and where those who may not are counted.

use std::sync::Arc;

use super::Refusal;
use crate::net::denials::Denials;
use crate::net::peer::Peer;
use crate::net::sockdiag::SockDiag;
use crate::policy::caller::{Access, TokenVerdict, Verdict};
use crate::policy::denial::Cause;
use crate::policy::problem::{Code, Problem};
use crate::policy::sockdiag::Reason;

/// How the callers of one bank are told apart.
#[derive(Clone, Debug)]
pub struct Callers {
    /// There if a TCP listener has callers.
    pub diag: Option<Arc<SockDiag>>,
    /// Who was denied.
    pub denials: Arc<Denials>,
}

impl Callers {
    /// Whether this is one of the callers, as far as a uid tells. Asks the kernel, where anybody wants to know.
    pub(super) fn knows(&self, access: &Access, peer: &Peer) -> bool {
        access.uids().is_none() || access.judge_uid(peer.prove().ok()) == Verdict::Allow
    }

    /// The connection's part: whose is it?
    pub(super) fn admit_uid(
        &self,
        access: &Access,
        listener: &Arc<str>,
        peer: &Peer,
    ) -> Result<(), Refusal> {
        // Where nobody wants to know, the kernel is not asked.
        if access.uids().is_none() {
            return Ok(());
        }
        let proved = peer.prove();
        if access.judge_uid(proved.ok()) == Verdict::Allow {
            return Ok(());
        }
        let (cause, detail) = match proved {
            Ok(uid) => (
                Cause::NotListed,
                format!(
                    "uid {uid} is not among the callers of this listener. Nothing was sent: add the user to `callers` if \
                     it should be"
                ),
            ),
            Err(reason) => (
                Cause::Unproven,
                format!(
                    "the caller's uid cannot be told: {reason}. Nothing was sent: keep both directions of the connection \
                     open until the answer has come"
                ),
            ),
        };
        self.denials.note(listener, proved.ok(), cause);
        Err(Refusal {
            problem: Problem::new(Code::CallerDenied, detail),
            cause: proved.err().map_or("", Reason::as_str).to_owned(),
            allow: None,
        })
    }

    /// The request's part: what does it present? Gives the place of its token, where one is asked for.
    pub(super) fn admit_token(
        &self,
        access: &Access,
        listener: &Arc<str>,
        peer: &Peer,
        tokens: &[&[u8]],
    ) -> Result<Option<u32>, Refusal> {
        match access.judge_tokens(tokens) {
            TokenVerdict::NotAsked => return Ok(None),
            TokenVerdict::Known(place) => return Ok(Some(place)),
            TokenVerdict::Deny => {}
        }
        self.denials.note(listener, peer.known_uid(), Cause::Token);
        let detail = "send exactly one valid token, as Priorgate-Token or as Authorization: Bearer. Nothing was sent";
        Err(Problem::new(Code::TokenRequired, detail).into())
    }
}
