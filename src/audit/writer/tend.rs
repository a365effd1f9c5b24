//! Tending the files: a full one is set aside, old ones are ended, and one that somebody took away is noticed.

use std::time::Instant;

use super::{KEEP_EVERY, Writer};
use crate::audit::files::Old;
use crate::audit::{SignedCheckpoint, Unsigned};
use crate::net::clock::unix_millis;
use crate::policy::chain::Fields;

impl Writer {
    /// Whether there is a file to write to. One that was taken away while the gate runs is an alarm and a `gap`; what the
    /// journal still has of it is written again.
    pub(super) fn watch(&mut self) -> bool {
        let harm = match self.log.harm() {
            Ok(None) => return true,
            Ok(Some(harm)) => harm,
            Err(error) => {
                self.shared.fails(Some(error.to_string()));
                return false;
            }
        };
        self.shared.fails(Some(format!("its file was {harm}")));
        let told = match &self.owing {
            Some(owing) => Some(owing.mark(owing.told)),
            None => self.position,
        };
        match self.log.go_on(harm, told) {
            Ok((from, to)) => {
                tracing::error!(
                    audit = %self.shared.path.display(), %harm, from, to,
                    "somebody took the audit log's file away: these records are not where they were; look for the old file, \
                     and for who did it"
                );
                self.news.push(
                    Fields::of("gap")
                        .text("lost", "records")
                        .text("file", &harm.to_string())
                        .number("from", from)
                        .number("to", to),
                );
                self.position = told;
                if let Some(owing) = &mut self.owing {
                    owing.commits = None;
                }
                true
            }
            Err(error) => {
                self.shared.fails(Some(error.to_string()));
                false
            }
        }
    }

    /// What the signer's first answer says of the log: an old copy of it, beside a journal that fits it, is an old copy of
    /// both, and only the signer remembers what came after.
    pub(super) fn judge(&mut self, signed: &Result<SignedCheckpoint, Unsigned>) {
        if matches!(signed, Err(Unsigned::Other(_))) {
            return;
        }
        let Some(owing) = &mut self.owing else { return };
        // What a person has accepted ends with the next signature, whenever either comes.
        let signs_again = owing.compared.behind_signer_known && signed.is_ok();
        if !self.unjudged && !signs_again {
            return;
        }
        let first = std::mem::replace(&mut self.unjudged, false);
        let (journal, runtime) = (&owing.journal, &owing.runtime);
        if signed.is_ok() {
            if owing.compared.behind_signer_known
                && let Err(error) = runtime.block_on(journal.signed_again())
            {
                tracing::warn!(%error, "the journal does not know that the audit log is signed again");
            }
            return;
        }
        if !first {
            return;
        }
        // From here on a signature is news.
        owing.compared.behind_signer_known = true;
        match runtime.block_on(journal.behind_signer()) {
            Ok(false) => {}
            Ok(true) => {
                tracing::error!(
                    "the keyholder has signed a later end of the audit log than this one has: it is an old copy, and so may the \
                     journal be. Guarded requests are refused until `priorgate operations reconcile`"
                );
                self.news
                    .push(Fields::of("doubt").flag("behind_signer", true));
            }
            Err(error) => {
                self.unjudged = true;
                tracing::error!(%error, "the audit log is an old copy, and the journal cannot be told");
            }
        }
    }

    /// Sets a full file aside, and ends old ones.
    pub(super) fn housekeeping(&mut self) {
        if self.log.is_full(self.config.rotate) && self.sync() {
            match self.log.rotate() {
                Ok(aside) => {
                    let name = aside.file_name().unwrap_or_default().to_string_lossy();
                    let fields = Fields::of("rotated").text("aside", &name);
                    self.news.push(fields);
                    self.kept_at = None;
                    self.full = None;
                }
                Err(error) => {
                    // Twice a second until somebody sees to it: said once.
                    let error = error.to_string();
                    if self.full.as_ref() != Some(&error) {
                        tracing::error!(error, "a full audit log was not set aside; it grows on");
                    }
                    self.full = Some(error);
                }
            }
        }
        if self.kept_at.is_some_and(|at| at.elapsed() < KEEP_EVERY) {
            return;
        }
        self.kept_at = Some(Instant::now());
        self.end_old();
    }

    fn end_old(&mut self) {
        // A journal in doubt may have to be told what is in them.
        if self.owing.as_ref().is_some_and(|owing| owing.is_doubted()) {
            return;
        }
        let before = unix_millis().before(self.config.keep);
        let (old, error) = self.log.old(before);
        if let Some(error) = error {
            tracing::warn!(%error, "old audit logs were not looked through");
        }
        if old.is_empty() || !self.record_end(&old) {
            return;
        }
        if let Err(error) = self.log.remove(&old) {
            tracing::warn!(%error, "old audit logs were ended, and not all are removed; the next hour tries again");
        }
    }

    /// First the record, then the end: a file that is gone without one is somebody's deed.
    fn record_end(&mut self, old: &[Old]) -> bool {
        let mut draft = self.draft();
        let now = unix_millis();
        for old in old {
            let fields = Fields::of("ended")
                .number("first", old.first)
                .number("last", old.last);
            self.add(&mut draft, now, &fields);
        }
        self.write(draft) && self.sync()
    }
}
