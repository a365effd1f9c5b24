//! Keeps the journal from growing for ever: forgets what is over, a bounded number at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Config;
use crate::journal::inbox::keep::{AcceptedKey, Forgotten};
use crate::journal::{Journal, JournalError};
use crate::net::clock::unix_millis;

/// How often what is over is looked for. Rows are kept for months and years: an hour more does not matter.
const TIDY: Duration = Duration::from_secs(3_600);

/// The keys by which the configuration in force verifies notifications.
pub(super) type KeysInForce = watch::Receiver<Arc<[AcceptedKey]>>;

/// Reads them off a configuration. One that is outside its window counts: it may be set right again.
pub(super) fn keys_of(config: &Config) -> Arc<[AcceptedKey]> {
    let of = |callback: &crate::config::callback::Callback| {
        let source = callback.name.clone();
        let keys = callback.signature.keys.iter();
        keys.map(move |key| AcceptedKey {
            source: source.clone(),
            key_id: key.id.clone(),
        })
        .collect::<Vec<_>>()
    };
    config.callbacks.iter().flat_map(of).collect()
}

/// Runs for the life of the process.
pub(super) async fn run(journal: Journal, keys: KeysInForce) {
    let mut ticks = interval(TIDY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let accepted = Arc::clone(&keys.borrow());
        if let Err(error) = tidy(&journal, &accepted).await {
            tracing::debug!(%error, "the journal was not tidied");
        }
    }
}

async fn tidy(journal: &Journal, accepted: &Arc<[AcceptedKey]>) -> Result<(), JournalError> {
    loop {
        let operations = journal.purge(unix_millis()).await?;
        let Forgotten { bodies, events } = journal
            .forget_events(Arc::clone(accepted), unix_millis())
            .await?;
        if (operations, bodies, events) == (0, 0, 0) {
            return Ok(());
        }
        tracing::info!(operations, bodies, events, "what is over was forgotten");
    }
}
