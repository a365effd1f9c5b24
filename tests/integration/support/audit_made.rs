//! A log that a scenario makes: years of it in a moment.

use std::path::Path;

use priorgate::net::clock::unix_millis;
use priorgate::policy::chain::{Fields, Mark, Source, Tip, seal};
use priorgate::policy::operation::{Digest, Key, OperationId, UnixMillis};

/// Its end.
pub(crate) struct Made {
    tip: Tip,
    journal: u64,
    row: i64,
}

impl Made {
    /// The log of a journal.
    pub(crate) fn new(journal: u64) -> Self {
        Self {
            tip: Tip::GENESIS,
            journal,
            row: 0,
        }
    }

    /// Leaves records out, as `keep` does.
    pub(crate) fn after(mut self, seq: u64) -> Self {
        self.tip.seq = seq;
        self
    }

    /// The number that the next record has.
    pub(crate) fn next(&self) -> u64 {
        self.tip.seq + 1
    }

    /// Rows of the journal, as one file.
    pub(crate) fn write(
        &mut self,
        path: &Path,
        at: UnixMillis,
        rows: impl IntoIterator<Item = Fields>,
    ) {
        let mut lines = Vec::new();
        for fields in rows {
            self.row += 1;
            let (journal, row) = (self.journal, self.row);
            let source = Source::Row(Mark { journal, row });
            self.tip = seal(&mut lines, self.tip, at, "boot", source, &fields);
        }
        std::fs::write(path, lines).unwrap();
    }
}

/// The name of a file that was set aside.
pub(crate) fn aside(log: &Path, first: u64) -> std::path::PathBuf {
    let name = log.file_name().unwrap().to_str().unwrap();
    log.with_file_name(format!("{name}.{first:016}"))
}

/// A step of a refund under `key`, whose subject is its own.
pub(crate) fn refunded(key: &str, state: &str, delivered: bool) -> Fields {
    let hash = Key::parse(key.as_bytes()).unwrap().digest("bank");
    let unique = u32::from_be_bytes(hash.0[..4].try_into().unwrap());
    Fields::of("operation")
        .text("id", &OperationId::new(unix_millis(), unique).to_string())
        .text("bank", "bank")
        .text("route", "refund")
        .text("state", state)
        .flag("delivered", delivered)
        .number("attempt", 1)
        .optional("uid", Some(33))
        .text("request_id", "r")
        .digest("key", Some(&hash))
        .digest("fingerprint", Some(&Digest::of("test", &[key.as_bytes()])))
        .digest(
            "subject",
            Some(&Digest::of("test subject", &[key.as_bytes()])),
        )
        .text("pointers", "/session_id")
}

/// So many refunds, as the log has their first step.
pub(crate) fn refunds(name: &str, count: usize) -> impl Iterator<Item = Fields> {
    (0..count).map(move |number| refunded(&format!("{name}{number}"), "sent", false))
}
