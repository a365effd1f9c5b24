//! The one thread that writes the log.
//!
//! Twice a second: what the journal owes goes to the file and the disk, and only then the journal is told; what the gate
//! pushed goes to the file, and to the disk with the next checkpoint. An error undoes what was written since the last
//! sync, and is tried again: what the journal owes is read again, what was only in memory is counted as lost.

mod tend;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use super::buffer::{Pending, Taken};
use super::files::Log;
use super::{CheckpointSigner, Shared, Unsigned};
use crate::config;
use crate::journal::{Compared, Journal, Owed, Reader};
use crate::net::clock::unix_millis;
use crate::policy::chain::{Fields, Mark, Source, Tip, seal};
use crate::policy::operation::{Digest, UnixMillis};

/// How often it looks. A push wakes nobody.
const TICK: Duration = Duration::from_millis(500);
/// Refusals are counted by the second.
const SECOND: Duration = Duration::from_secs(1);
/// Records between two checkpoints.
const CHECKPOINT_RECORDS: u64 = 100;
/// The longest that a record goes without one.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// Under load a checkpoint covers more: each costs a sync and a signature.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);
/// After a signature that did not come: each try may take the signer's deadline.
const CHECKPOINT_AGAIN: Duration = Duration::from_secs(10);
/// The journal is told so often what it need not keep any more: each time is a commit.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Rows after which it is told at once.
const TELL_ROWS: i64 = 1_024;
/// How often old files are looked for.
const KEEP_EVERY: Duration = Duration::from_secs(3_600);

/// The journal that owes.
pub(super) struct Owing {
    journal: Journal,
    compared: Compared,
    runtime: Runtime,
    /// Up to this row it was told.
    told: i64,
    told_at: Instant,
    /// Its count of commits at the last look: without a new one it owes nothing new.
    commits: Option<u64>,
}

impl Owing {
    pub(super) fn new(journal: Journal, compared: Compared) -> std::io::Result<Self> {
        Ok(Self {
            journal,
            compared,
            runtime: Builder::new_current_thread().build()?,
            told: compared.known,
            told_at: Instant::now(),
            commits: None,
        })
    }

    fn is_doubted(&self) -> bool {
        self.journal.counts().doubted.load(Ordering::Relaxed)
    }

    fn mark(&self, row: i64) -> Mark {
        Mark {
            journal: self.compared.journal,
            row,
        }
    }
}

/// Lines that are being made.
struct Draft {
    lines: Vec<u8>,
    tip: Tip,
    mark: Option<Mark>,
    records: u64,
    ordinary: u64,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    config: config::Audit,
    boot: String,
    owing: Option<Owing>,
    signer: Option<CheckpointSigner>,
    /// How far the journal is, for records of our own.
    position: Option<Mark>,
    /// Since the last checkpoint.
    records: u64,
    checkpoint_at: Instant,
    checkpoint_not_before: Instant,
    /// The signer is asked at once at the start.
    first: bool,
    /// It has not answered yet whether it has signed a later end than this one.
    unjudged: bool,
    refusals_at: Instant,
    kept_at: Option<Instant>,
    /// Why a full file was not set aside, once that was said.
    full: Option<String>,
    /// Records of ours that were lost and are not yet told, and since when.
    lost: Option<(u64, UnixMillis)>,
    /// Said once at the beginning; kept until it is written.
    news: Vec<Fields>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        log: Log,
        config: config::Audit,
        boot: String,
        owing: Option<Owing>,
        signer: Option<CheckpointSigner>,
    ) -> Self {
        let now = Instant::now();
        let news = news(&log, owing.as_ref());
        let position = match &owing {
            Some(owing) => Some(owing.mark(owing.compared.known)),
            None => log.mark(),
        };
        // Without a journal there is nothing to be in doubt of.
        let signs = signer.is_some() && owing.is_some();
        Self {
            first: signs,
            unjudged: signs,
            shared,
            log,
            config,
            boot,
            owing,
            signer,
            position,
            records: 0,
            checkpoint_at: now,
            checkpoint_not_before: now,
            refusals_at: now,
            kept_at: None,
            full: None,
            lost: None,
            news,
        }
    }

    /// Says on `looked` when the first look is over.
    pub(super) fn run(mut self, looked: &SyncSender<()>) {
        loop {
            let closing = self.turn();
            let _ = looked.try_send(());
            if closing {
                break;
            }
            thread::park_timeout(TICK);
        }
    }

    /// One look. Whether it was the last.
    fn turn(&mut self) -> bool {
        let refusals = self.refusals_at.elapsed() >= SECOND;
        if refusals {
            self.refusals_at = Instant::now();
        }
        let taken = self.shared.buffer.take(refusals);
        let closing = taken.closing;
        if self.watch() && self.begin() {
            let written = self.pushed(taken) && self.owed(closing) && self.ended(closing);
            if written {
                self.shared.fails(None);
                self.checkpoint(closing);
                self.tell(closing);
            }
            if written && !closing {
                self.housekeeping();
            }
        } else {
            self.lose(taken.records());
        }
        let counts = &self.shared.counts;
        counts
            .seq
            .store(self.log.written().tip.seq, Ordering::Relaxed);
        let row = self.log.synced().mark.map_or(0, |mark| mark.row);
        counts.row.store(row, Ordering::Relaxed);
        closing
    }

    fn draft(&self) -> Draft {
        Draft {
            lines: Vec::new(),
            tip: self.log.written().tip,
            mark: self.position,
            records: 0,
            ordinary: 0,
        }
    }

    /// A record of our own, at the journal's present place.
    fn add(&self, draft: &mut Draft, at: UnixMillis, fields: &Fields) {
        let source = draft.mark.map_or(Source::NoJournal, Source::After);
        draft.tip = seal(&mut draft.lines, draft.tip, at, &self.boot, source, fields);
        draft.records += 1;
    }

    /// What must be said first: how the log was opened. And what was lost since.
    fn begin(&mut self) -> bool {
        if self.news.is_empty() && self.lost.is_none() {
            return true;
        }
        let mut draft = self.draft();
        let now = unix_millis();
        for fields in &self.news {
            self.add(&mut draft, now, fields);
        }
        if let Some((records, since)) = self.lost {
            let gap = Fields::of("gap")
                .text("lost", "requests")
                .number("records", records)
                .number("since", since.0);
            self.add(&mut draft, now, &gap);
        }
        // On the disk at once: what it says is said nowhere else.
        let written = self.write(draft) && self.sync();
        if written {
            self.news.clear();
            self.lost = None;
        }
        written
    }

    /// What the gate pushed.
    fn pushed(&mut self, taken: Taken) -> bool {
        if taken.dropped > 0 {
            self.lose(taken.dropped);
        }
        let mut draft = self.draft();
        for pending in &taken.pending {
            match pending {
                Pending::Event(at, fields) => self.add(&mut draft, *at, fields),
                Pending::Request(request) => self.add(&mut draft, request.at, &request.fields()),
            }
        }
        let now = unix_millis();
        for (rejected, times) in &taken.rejected {
            self.add(&mut draft, now, &rejected.fields(*times));
        }
        if taken.rejected_else > 0 {
            let fields = Fields::of("denied")
                .text("code", "more_kinds_than_are_told_apart")
                .number("times", taken.rejected_else);
            self.add(&mut draft, now, &fields);
        }
        draft.ordinary = draft.records;
        let records = draft.records;
        if records == 0 {
            return true;
        }
        let written = self.write(draft);
        if !written {
            self.lose(records);
        }
        written
    }

    /// What the journal owes, to the disk. At the end all of it: nobody may have committed since the last look.
    fn owed(&mut self, closing: bool) -> bool {
        loop {
            let Some(owing) = &mut self.owing else {
                return true;
            };
            let commits = owing.journal.counts().commits.load(Ordering::Relaxed);
            if owing.commits == Some(commits) && !closing {
                return true;
            }
            let after = self.position.map_or(0, |mark| mark.row);
            let rows = match Reader::open(owing.journal.path())
                .map_err(|error| error.to_string())
                .and_then(|reader| reader.owed(after).map_err(|error| error.to_string()))
            {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::debug!(error, "what the journal owes the audit log cannot be read");
                    return true;
                }
            };
            if rows.is_empty() {
                owing.commits = Some(commits);
                return true;
            }
            let journal = owing.compared.journal;
            if !self.take(&rows, journal) {
                return false;
            }
        }
    }

    fn take(&mut self, rows: &[Owed], journal: u64) -> bool {
        let mut draft = self.draft();
        for owed in rows {
            let mark = Mark {
                journal,
                row: owed.row,
            };
            let source = Source::Row(mark);
            let (lines, tip) = (&mut draft.lines, draft.tip);
            draft.tip = seal(lines, tip, owed.at, &self.boot, source, &owed.record);
            draft.mark = Some(mark);
            draft.records += 1;
        }
        let mark = draft.mark;
        let written = self.write(draft) && self.sync();
        if written {
            self.position = mark;
        }
        written
    }

    /// The last record of a process.
    fn ended(&mut self, closing: bool) -> bool {
        if !closing {
            return true;
        }
        let mut draft = self.draft();
        self.add(&mut draft, unix_millis(), &Fields::of("stop"));
        self.write(draft) && self.sync()
    }

    fn write(&mut self, draft: Draft) -> bool {
        let Draft {
            lines,
            tip,
            mark,
            records,
            ordinary,
        } = draft;
        match self.log.append(&lines, tip, mark, ordinary) {
            Ok(()) => {
                self.records = self.records.saturating_add(records);
                self.shared.written();
                true
            }
            Err(error) => {
                self.shared.fails(Some(error.to_string()));
                false
            }
        }
    }

    fn sync(&mut self) -> bool {
        let before = self.log.written();
        match self.log.sync() {
            Ok(()) => true,
            Err(error) => {
                let lost = before.ordinary.saturating_sub(self.log.synced().ordinary);
                self.lose(lost);
                if let Some(owing) = &mut self.owing {
                    owing.commits = None;
                }
                self.shared.fails(Some(error.to_string()));
                false
            }
        }
    }

    fn lose(&mut self, records: u64) {
        if records == 0 {
            return;
        }
        self.shared.lose(records);
        let (before, since) = self.lost.unwrap_or_else(|| (0, unix_millis()));
        self.lost = Some((before.saturating_add(records), since));
    }

    /// Signs the end of the chain, once it is on the disk: a signature must never be over what a failed sync takes back.
    fn checkpoint(&mut self, closing: bool) {
        let due = self.records >= CHECKPOINT_RECORDS
            || self.records > 0 && self.checkpoint_at.elapsed() >= CHECKPOINT_EVERY;
        let may = Instant::now() >= self.checkpoint_not_before;
        if !(closing || self.first || due && may) || !self.sync() {
            return;
        }
        self.first = false;
        let tip = self.log.synced().tip;
        let signed = match &mut self.signer {
            None => Err(Unsigned::Other("no key".to_owned())),
            Some(signer) => signer(tip),
        };
        self.judge(&signed);
        let pause = match (&signed, &self.signer) {
            (Err(error), Some(_)) => {
                tracing::warn!(%error, "the end of the audit log was not signed");
                CHECKPOINT_AGAIN
            }
            _ => CHECKPOINT_PAUSE,
        };
        let fields = Fields::of("checkpoint")
            .number("of", tip.seq)
            .digest("head", Some(&tip.hash));
        let fields = match &signed {
            Ok(signed) => fields
                .number("signed_at", signed.vouched.at)
                .number("signatures", signed.vouched.signatures)
                .number("before", signed.vouched.before.seq)
                .digest("before_head", Some(&signed.vouched.before.hash))
                .text("signature", &hex(&signed.signature))
                .text("key_id", &signed.key_id),
            Err(error) => fields.text("unsigned", &error.to_string()),
        };
        let mut draft = self.draft();
        self.add(&mut draft, unix_millis(), &fields);
        if self.write(draft) && self.sync() {
            // Off this machine, where the log is sent elsewhere: whoever cuts the file short does not cut this.
            tracing::info!(
                seq = tip.seq, head = %tip.hash, signed = signed.is_ok(), "audit head"
            );
            if signed.is_ok() {
                let counts = &self.shared.counts;
                counts.signed.store(tip.seq, Ordering::Relaxed);
                counts.unsigned_since.store(0, Ordering::Relaxed);
            }
            self.shared.unsigned(signed.err());
        }
        self.records = 0;
        self.checkpoint_at = Instant::now();
        self.checkpoint_not_before = self.checkpoint_at + pause;
    }

    /// Tells the journal what is on the disk.
    fn tell(&mut self, closing: bool) {
        let Some(owing) = &mut self.owing else {
            return;
        };
        let row = self.log.synced().mark.map_or(0, |mark| mark.row);
        let untold = row.saturating_sub(owing.told);
        let due = untold >= TELL_ROWS || owing.told_at.elapsed() >= TELL_EVERY;
        // At the end the journal is closed, and the next start compares.
        if untold <= 0 || closing || !due {
            return;
        }
        let told = owing.journal.recorded(row, unix_millis());
        match owing.runtime.block_on(told) {
            Ok(()) => owing.told = row,
            Err(error) => tracing::debug!(%error, "the journal keeps what the audit log has"),
        }
        owing.told_at = Instant::now();
    }
}

/// What the first records of a process say.
fn news(log: &Log, owing: Option<&Owing>) -> Vec<Fields> {
    let mut news = vec![
        Fields::of("start")
            .text("version", env!("CARGO_PKG_VERSION"))
            .number("pid", std::process::id())
            .number("uid", rustix::process::getuid().as_raw())
            // Up to half a second of requests was only in its memory.
            .flag("after_crash", log.unclean),
    ];
    if log.repaired > 0 {
        news.push(Fields::of("repaired").number("cut_off_bytes", log.repaired));
    }
    let Some(owing) = owing else {
        return news;
    };
    if let Some((from, to)) = owing.compared.lost {
        tracing::error!(
            from,
            to,
            "the audit log does not have what the journal gave it: it was cut short, or replaced by an old copy"
        );
        news.push(
            Fields::of("gap")
                .text("lost", "journal rows")
                .number("from", from)
                .number("to", to),
        );
    }
    if let Some(doubt) = owing.compared.doubt {
        let (after, upto) = doubt.rows.unwrap_or((0, 0));
        news.push(
            Fields::of("doubt")
                .flag("other_journal", doubt.foreign)
                .flag("behind_signer", doubt.behind_signer)
                .number("absent_row", doubt.absent.unwrap_or(0))
                .number("rows_after", after)
                .number("rows_upto", upto),
        );
    }
    news
}

fn hex(bytes: &[u8; 64]) -> String {
    let (a, b) = bytes.split_at(32);
    let half = |half: &[u8]| half.try_into().map(|half| Digest(half).to_string());
    format!(
        "{}{}",
        half(a).unwrap_or_default(),
        half(b).unwrap_or_default()
    )
}
