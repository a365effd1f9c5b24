//! The audit log: its file, its key pair, and how long its files live.

use std::time::Duration;

use super::Checker;
use crate::config::{Audit, AuditKey, Journal, KeySource, file};

const MIB: u64 = 1 << 20;
/// Some 100,000 records: one file is looked through in seconds, and a year of a small shop is a handful.
const ROTATE: u64 = 64 * MIB;
/// Below it the directory fills with files; above it the start, which may read one, gets slow.
const ROTATE_RANGE: std::ops::RangeInclusive<u64> = MIB..=1024 * MIB;
const DAY: Duration = Duration::from_secs(86_400);
/// PCI DSS 10.5.1 asks for a year, and a year has its audit after it.
const KEEP: Duration = Duration::from_secs(400 * 86_400);

impl Checker {
    pub(super) fn audit(&mut self, raw: file::Audit, journal: Option<&Journal>) -> Audit {
        let file = self.resolve(&raw.file.0);
        if journal.is_some_and(|journal| journal.path == file) {
            self.mistake(
                "audit.file",
                "the journal is in this file",
                "name a file of its own",
            );
        }
        let source = match (raw.key_file, raw.key_credential) {
            (Some(_), Some(_)) => {
                self.mistake(
                    "audit",
                    "key_file and key_credential are two places for one key",
                    "keep one of them",
                );
                None
            }
            (Some(file), None) => Some(KeySource::File(self.resolve(&file.0))),
            (None, Some(credential)) => Some(KeySource::Credential(credential.0)),
            (None, None) => {
                if raw.public_key_file.is_some() {
                    self.mistake(
                        "audit",
                        "public_key_file has no key_file and no key_credential: nothing would be signed",
                        "add `key_file: PATH`, or `key_credential: NAME` for LoadCredential= of the keyholder's unit; \
                         `priorgate keygen audit` makes both keys",
                    );
                }
                None
            }
        };
        let key = source.and_then(|source| {
            let Some(public) = &raw.public_key_file else {
                self.mistake(
                    "audit",
                    "the private key has no public_key_file: nobody could verify what it signs",
                    "add `public_key_file`; `priorgate keygen audit` makes both",
                );
                return None;
            };
            let public_file = self.resolve(&public.0);
            Some(AuditKey {
                source,
                public_file,
            })
        });
        let rotate = raw.rotate.map_or(ROTATE, |size| size.0);
        if !ROTATE_RANGE.contains(&rotate) {
            self.mistake("audit.rotate", "out of range", "choose 1MiB to 1024MiB");
        }
        let keep = raw.keep.map_or(KEEP, |span| span.0);
        if keep < DAY {
            self.mistake(
                "audit.keep",
                "shorter than a day: what happened on Sunday would be gone on Monday",
                "choose 1d or more; auditors ask for a year",
            );
        }
        Audit {
            file,
            key,
            rotate,
            keep,
        }
    }
}
