//! Who writes which family of a scrape. What the status says is taken from it, so that the two cannot disagree.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use super::status::View;
use crate::admin::status::{Audit, Bank, Breaker, Status};
use crate::bank::send::Counts;
use crate::config::Hardening;
use crate::metrics::Histogram;
use crate::metrics::catalog::{self as m, Family};
use crate::metrics::text::{Format, Page};
use crate::net::clock::unix_millis;
use crate::tls::keyholder::Unsigned;

/// What the kernel can take away from the gate, in the words of the status.
const MEASURES: [&str; 8] = [
    "not dumpable",
    "no core files",
    "no new privileges",
    "no capabilities",
    "seccomp",
    "Landlock files",
    "Landlock ports",
    "Landlock scopes",
];

impl View {
    /// Everything that is measured, as of now.
    pub(super) fn scrape(&self, format: Format) -> String {
        let status = self.status();
        let mut page = Page::new(format);
        self.process(&mut page, &status);
        self.requests(&mut page);
        self.banks(&mut page, &status);
        self.ends(&mut page);
        self.keyholder(&mut page);
        self.callbacks(&mut page, &status);
        self.journal(&mut page, &status);
        audit(&mut page, &status);
        page.finish()
    }

    fn process(&self, page: &mut Page, status: &Status) {
        let start = seconds(status.started_at.into());
        page.family(&m::BUILD_INFO).count(&[&status.version], 1);
        page.family(&m::START).count(&[], start);
        let ready = status.failing().is_empty();
        page.family(&m::READY).flag(&[], ready);
        let reload = status.last_reload.as_ref();
        page.family(&m::RELOAD_OK)
            .flag(&[], reload.is_none_or(|reload| reload.ok));
        let at = reload.map_or(start, |reload| seconds(reload.at.into()));
        page.family(&m::RELOAD_AT).count(&[], at);
        let confinement = &status.confinement;
        let mut samples = page.family(&m::CONFINED);
        for measure in MEASURES {
            // "Landlock files (ABI 5)"
            let mut in_force = confinement.in_force.iter();
            let holds = in_force.any(|it| it.starts_with(measure));
            samples.flag(&["gate", measure], holds);
        }
        let missing = match self.life.confined().level() {
            Hardening::Disabled => 0,
            Hardening::BestEffort | Hardening::Required => confinement.missing.len() as u64,
        };
        page.family(&m::CONFINEMENT_MISSING)
            .count(&["gate"], missing);
        page.family(&m::LOG_DROPPED).count(&[], status.log_dropped);
        let looked = seconds(self.look.found().at);
        page.family(&m::LOOKED).count(&[], looked);
    }

    fn requests(&self, page: &mut Page) {
        let mut samples = page.family(&m::REQUESTS);
        for bank in &self.banks {
            let name = bank.gate.egress.name();
            bank.gate.egress.requests().each(|route, meter| {
                meter.each(|code, outcome, count| {
                    samples.count(&[name, route, code, outcome.as_str()], count);
                });
            });
        }
        let mut samples = page.family(&m::DURATION);
        for bank in &self.banks {
            let name = bank.gate.egress.name();
            bank.gate.egress.requests().each(|route, meter| {
                samples.histogram(&[name, route], meter.duration());
            });
        }
    }

    fn banks(&self, page: &mut Page, status: &Status) {
        self.times(page, &m::QUEUE, |counts| &counts.queue);
        self.times(page, &m::EXCHANGE, |counts| &counts.exchange);
        self.times(page, &m::HANDSHAKE, |counts| &counts.handshake);
        of_banks(page, &m::IN_FLIGHT, status, |bank| bank.in_flight);
        of_banks(page, &m::QUEUED, status, |bank| bank.queued);
        of_banks(page, &m::OPENED, status, |bank| bank.pool.opened);
        of_banks(page, &m::REUSED, status, |bank| bank.pool.reused);
        of_banks(page, &m::SPARE, status, |bank| bank.pool.idle);
        let mut samples = page.family(&m::OPEN);
        for bank in &self.banks {
            let open = bank.gate.counts.open.load(Relaxed) as u64;
            samples.count(&[bank.gate.egress.name()], open);
        }
        of_banks(page, &m::BREAKER, status, |bank| {
            u64::from(bank.breaker != Breaker::Closed)
        });
        let mut samples = page.family(&m::CALLERS);
        for bank in &self.banks {
            let connected = bank.gate.connected() as u64;
            samples.count(&["bank", bank.gate.egress.name()], connected);
        }
        for callback in &self.callbacks {
            samples.count(&["callback", &callback.name], callback.connected() as u64);
        }
        let mut samples = page.family(&m::DENIALS);
        for bank in &status.banks {
            samples.count(&["bank", &bank.name], bank.denied.total);
        }
        for callback in &status.callbacks {
            samples.count(&["callback", &callback.name], callback.denied.total);
        }
    }

    fn times(&self, page: &mut Page, family: &'static Family, of: fn(&Counts) -> &Histogram) {
        let mut samples = page.family(family);
        for bank in &self.banks {
            samples.histogram(&[bank.gate.egress.name()], of(&bank.gate.counts));
        }
    }

    fn ends(&self, page: &mut Page) {
        let mut samples = page.family(&m::CERTIFICATE);
        for ending in self.endings() {
            let labels = [ending.kind.as_str(), &*ending.name, &*ending.id];
            match ending.not_after {
                Some(at) => samples.count(&labels, seconds(at)),
                None => samples.never(&labels),
            };
        }
    }

    fn keyholder(&self, page: &mut Page) {
        let facts = self.keyholder.as_ref().map(|keyholder| keyholder.facts());
        let mut samples = page.family(&m::KEYHOLDER_UP);
        if let Some(facts) = &facts {
            samples.flag(&[], facts.up);
        }
        let mut samples = page.family(&m::SIGNATURES);
        if let Some(facts) = &facts {
            samples.count(&[], facts.signatures);
        }
        let mut samples = page.family(&m::REFUSALS);
        if let Some(keyholder) = &self.keyholder {
            for why in Unsigned::ALL {
                samples.count(&[why.as_str()], keyholder.unsigned(why));
            }
        }
        let mut samples = page.family(&m::RESTARTS);
        if let Some(facts) = &facts {
            samples.count(&[], facts.restarts);
        }
    }

    fn callbacks(&self, page: &mut Page, status: &Status) {
        let mut samples = page.family(&m::CALLBACKS);
        for callback in &status.callbacks {
            for (verdict, count) in [
                ("accepted", callback.accepted),
                ("repeated", callback.repeated),
                ("rejected", callback.rejected),
                ("refused", callback.refused),
            ] {
                samples.count(&[&callback.name, verdict], count);
            }
        }
        let mut samples = page.family(&m::DELIVERIES);
        for callback in &self.callbacks {
            for (result, count) in [
                ("delivered", &callback.counts.delivered),
                ("retried", &callback.counts.retried),
                ("dead", &callback.counts.dead),
            ] {
                samples.count(&[&callback.name, result], count.load(Relaxed));
            }
        }
        let mut samples = page.family(&m::EVENTS);
        for callback in &status.callbacks {
            for (state, count) in [
                ("waiting", callback.waiting),
                ("held", callback.held),
                ("dead", callback.dead),
            ] {
                samples.count(&[&callback.name, state], count);
            }
        }
        let mut samples = page.family(&m::OLDEST);
        for callback in &self.callbacks {
            let oldest = callback.standing.now().backlog.oldest;
            let age = oldest.map_or(0, |oldest| unix_millis().0.saturating_sub(oldest.0).max(0));
            samples.millis(&[&callback.name], age);
        }
        let mut samples = page.family(&m::LATE);
        for callback in &self.callbacks {
            samples.flag(&[&callback.name], callback.standing.now().late);
        }
    }

    fn journal(&self, page: &mut Page, status: &Status) {
        let journal = status.journal.as_ref();
        let mut samples = page.family(&m::OPERATIONS);
        if let Some(journal) = journal {
            samples
                .count(&["open"], journal.open)
                .count(&["unknown"], journal.unknown)
                .count(&["undelivered"], journal.undelivered);
        }
        let mut samples = page.family(&m::REFUSING);
        if let Some(journal) = journal {
            samples
                .flag(&["doubted"], journal.doubted)
                .flag(&["failed"], journal.failed.is_some())
                .flag(&["frozen"], journal.frozen)
                .flag(&["full"], journal.full);
        }
        let mut samples = page.family(&m::COMMIT);
        if let Some(facts) = &self.ledger {
            samples.histogram(&[], &facts.journal.counts().commit);
        }
        let mut samples = page.family(&m::WORKS);
        if let Some(journal) = journal {
            samples.count(&[], journal.works);
        }
        let mut samples = page.family(&m::JOURNAL_SIZE);
        if let Some(journal) = journal {
            samples.count(&[], journal.size);
        }
        let mut samples = page.family(&m::JOURNAL_FREE);
        if let Some(free) = journal.and_then(|journal| journal.disk_free) {
            samples.count(&[], free);
        }
    }
}

fn of_banks(page: &mut Page, family: &'static Family, status: &Status, of: fn(&Bank) -> u64) {
    let mut samples = page.family(family);
    for bank in &status.banks {
        samples.count(&[&bank.name], of(bank));
    }
}

fn audit(page: &mut Page, status: &Status) {
    let mut number = |family, of: fn(&Audit) -> u64| {
        let mut samples = page.family(family);
        if let Some(audit) = &status.audit {
            samples.count(&[], of(audit));
        }
    };
    number(&m::AUDIT_SEQUENCE, |audit| audit.seq);
    number(&m::AUDIT_SIGNED, |audit| audit.signed);
    number(&m::AUDIT_LOST, |audit| audit.lost);
    number(&m::AUDIT_FAILING, |audit| {
        u64::from(audit.failing.is_some())
    });
    number(&m::AUDIT_OWED, |audit| audit.owed);
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
