//! Every family that a scrape has: its name, its kind, its labels, and what it says. docs/metrics.md is made of this.
//!
//! Names are a contract: alerts and dashboards read them. Units are base units. Where a label's values come from is said
//! with it, since that is what bounds them: the configuration, or a table of this program; never a request.

/// How a family is to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It only rises, from the start of the process.
    Counter,
    /// It is what it is now.
    Gauge,
    /// How often what took how long.
    Histogram,
}

/// One family.
#[derive(Debug)]
pub struct Family {
    /// Its name; a counter's ends in `_total`.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels, each with where its values come from.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it says, as a sentence.
    pub help: &'static str,
}

impl Kind {
    /// As both formats write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Family {
    /// The unit that the name ends in.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes"].into_iter().find(|unit| {
            name.strip_suffix(*unit)
                .is_some_and(|name| name.ends_with('_'))
        })
    }
}

type Label = (&'static str, &'static str);

const BANK: Label = ("bank", "a bank's name");
const CALLBACK: Label = ("callback", "a callback's name");
const OF: Label = ("of", "`bank` or `callback`");
const NAME: Label = ("name", "that bank's or callback's name");

macro_rules! families {
    ($($id:ident $kind:ident $name:literal [$($label:expr),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// All of them, in the order of a scrape.
        pub const ALL: &[&Family] = &[$(&$id),*];
    };
}

families! {
    BUILD_INFO Gauge "priorgate_build_info" [("version", "this program's version")]
        "Always 1: which version runs.";
    START Gauge "priorgate_start_time_seconds" []
        "When the process started, in seconds since 1970.";
    READY Gauge "priorgate_ready" []
        "Whether new requests are to be sent here: what /readyz says.";
    RELOAD_OK Gauge "priorgate_last_reload_success" []
        "Whether the last reload went well; 1 before the first one.";
    RELOAD_AT Gauge "priorgate_last_reload_timestamp_seconds" []
        "When the last reload ended, in seconds since 1970; the start of the process before the first one.";
    CONFINED Gauge "priorgate_confinement_in_force" [("process", "`gate`: a confined gate sees no other process, `priorgate doctor` looks at the keyholder"), ("measure", "one of the measures that `priorgate status` lists")]
        "Whether a measure is in force, as the kernel says. Measures that the kernel is too old for are 0.";
    CONFINEMENT_MISSING Gauge "priorgate_confinement_missing" [("process", "`gate`")]
        "Measures that were asked for and are not in force. None is asked for under hardening: disabled.";
    LOG_DROPPED Counter "priorgate_log_lines_dropped_total" []
        "Log lines that were lost because nobody read them in time.";
    LOOKED Gauge "priorgate_look_timestamp_seconds" []
        "When keyholder, disk and confinement were last looked at: every five seconds, so an old time says that this process hangs.";

    REQUESTS Counter "priorgate_requests_total" [BANK, ("route", "a route's name; empty for a request that had none"), ("code", "a problem's code, `caller_gone`, or the class of the bank's answer: `2xx`, `3xx`, `4xx`, `5xx`"), ("outcome", "`answered`, `not_sent` or `unknown`")]
        "Requests that ended, as their records say.";
    DURATION Histogram "priorgate_request_duration_seconds" [BANK, ("route", "as above")]
        "From a request's first byte to its record.";
    QUEUE Histogram "priorgate_bank_queue_duration_seconds" [BANK]
        "How long requests waited for a place at the bank (limits.concurrency), those included that did not have to.";
    EXCHANGE Histogram "priorgate_bank_exchange_duration_seconds" [BANK]
        "From a request's first byte towards the bank to the end of its answer, or to whatever came instead.";
    HANDSHAKE Histogram "priorgate_bank_handshake_duration_seconds" [BANK]
        "TLS handshakes with the bank, the failed ones included, from the wait for a thread to the end.";
    IN_FLIGHT Gauge "priorgate_bank_requests_in_flight" [BANK]
        "Requests at the bank, or on the way to it.";
    QUEUED Gauge "priorgate_bank_requests_queued" [BANK]
        "Requests that wait for a place at the bank.";
    OPENED Counter "priorgate_bank_connections_opened_total" [BANK]
        "Connections to the bank that were made.";
    REUSED Counter "priorgate_bank_connections_reused_total" [BANK]
        "Requests that were sent over a connection that had served before.";
    SPARE Gauge "priorgate_bank_connections_spare" [BANK]
        "Connections to the bank that stand idle for the next request.";
    OPEN Gauge "priorgate_bank_connections_open" [BANK]
        "Connections to the bank that stand, busy or spare.";
    BREAKER Gauge "priorgate_bank_breaker_open" [BANK]
        "Whether the bank is not dialled now, because too many connects failed in a row.";
    CALLERS Gauge "priorgate_caller_connections" [OF, NAME]
        "Connections of callers that stand.";
    DENIALS Counter "priorgate_caller_denials_total" [OF, NAME]
        "Requests whose caller was denied.";

    CERTIFICATE Gauge "priorgate_certificate_not_after_timestamp_seconds" [("kind", "`client`, `ca` or `callback_key`"), NAME, ("id", "`leaf`; a certificate's place in trust.ca_file; the id of a callback's key")]
        "The last moment of a certificate or key, in seconds since 1970. A callback's key without not_after has +Inf.";

    KEYHOLDER_UP Gauge "priorgate_keyholder_up" []
        "Whether the keyholder answered the last time that it was asked.";
    SIGNATURES Counter "priorgate_keyholder_signatures_total" []
        "Handshakes that the keyholder signed for this process.";
    REFUSALS Counter "priorgate_keyholder_refusals_total" [("reason", "`key_changed`, `refused`, `sign_rate` or `unanswered`")]
        "Handshakes that it did not sign.";
    RESTARTS Counter "priorgate_keyholder_restarts_total" []
        "How often another signer took over.";

    CALLBACKS Counter "priorgate_callbacks_total" [CALLBACK, ("verdict", "`accepted`, `repeated`, `rejected` (the signature) or `refused` (anything else)")]
        "Notifications of the bank, by what became of them.";
    DELIVERIES Counter "priorgate_callback_deliveries_total" [CALLBACK, ("result", "`delivered`, `retried` or `dead`")]
        "Attempts to hand an event to the shop, by how they ended.";
    EVENTS Gauge "priorgate_callback_events" [CALLBACK, ("state", "`waiting`, `held` or `dead`")]
        "Events that the shop has not taken.";
    OLDEST Gauge "priorgate_callback_oldest_undelivered_seconds" [CALLBACK]
        "The age of the oldest event that waits for the shop; 0 without one.";
    LATE Gauge "priorgate_callback_late" [CALLBACK]
        "Whether the oldest has waited longer than deliver.alarm_after.";

    OPERATIONS Gauge "priorgate_operations" [("state", "`open`, `unknown` or `undelivered`")]
        "Operations that are not over: that run, that may have reached the bank without an answer, and whose answer reached nobody.";
    REFUSING Gauge "priorgate_journal_refuses" [("reason", "`doubted`, `failed`, `frozen` or `full`")]
        "Whether the journal takes no new operation, and why.";
    COMMIT Histogram "priorgate_journal_commit_duration_seconds" []
        "Transactions of the journal, from their begin to the disk's word.";
    WORKS Counter "priorgate_journal_works_total" []
        "What was written in them: works that came together share a commit.";
    JOURNAL_SIZE Gauge "priorgate_journal_size_bytes" []
        "The journal's files.";
    JOURNAL_FREE Gauge "priorgate_journal_disk_free_bytes" []
        "What the journal's file system has left for this user.";

    AUDIT_SEQUENCE Gauge "priorgate_audit_sequence" []
        "The number of the audit log's last record.";
    AUDIT_SIGNED Gauge "priorgate_audit_signed_sequence" []
        "Up to which record the last signature of this process reaches; 0 before it.";
    AUDIT_LOST Counter "priorgate_audit_records_lost_total" []
        "Records of ordinary requests that are not in the audit log; it says so itself.";
    AUDIT_FAILING Gauge "priorgate_audit_failing" []
        "Whether the audit log is not written now.";
    AUDIT_OWED Gauge "priorgate_audit_outbox_rows" []
        "Rows of the journal that the audit log does not have yet.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_ours_in_base_units_and_of_one_family_each() {
        let mut names = BTreeSet::new();
        for family in ALL {
            let name = family.name;
            assert!(names.insert(name), "{name} twice");
            assert!(name.starts_with("priorgate_"), "{name}");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            assert_eq!(
                name.ends_with("_total"),
                family.kind == Kind::Counter,
                "{name}"
            );
            if family.kind == Kind::Histogram {
                assert_eq!(family.unit(), Some("seconds"), "{name}");
            }
            for other in ["_milliseconds", "_ms", "_kib", "_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(other), "{name}");
            }
            assert!(family.help.ends_with('.') && !family.help.contains(['\\', '\n']));
            for (label, meaning) in family.labels {
                assert!(!meaning.is_empty() && *label != "le", "{name}: {label}");
            }
        }
    }
}
