//! The catalog of a relay: in a file, made from the log, or in a database that it shares with others.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use lighter_catalog::{
    Catalog, CatalogError, Ledger, News, Observer, PostgresCatalog, PostgresConfig, PostgresOpenError,
};
use lighter_protocol::PeerId;
use lighter_storage::{Array, Sequence};
use lighter_transport::Identity;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::commands::CommandError;
use crate::config::Config;
use crate::delivery::DeliverySignals;
use crate::layout;
use crate::limits::{
    DATABASE_START_PAUSE, DATABASE_START_TIME_MAX, FELLOWS_INTERVAL, FELLOWS_RETRY, GIVE_BACK_TIME_MAX,
};

/// Opens the catalog that is configured, with the array as its log, or for its bytes.
pub(crate) async fn open(
    config: &Config,
    identity: &Identity,
    array: &Array,
    observer: Box<Observer>,
) -> Result<Ledger<Array>, CommandError> {
    let database = config
        .catalog
        .database(identity.peer(), &config.hostname)
        .map_err(|error| CommandError::failed("the catalog's database", error))?;
    let elsewhere = layout::catalog_elsewhere(&config.data);
    match database {
        None if elsewhere.exists() => Err(CommandError::Relay(format!(
            "the catalog of this relay is in a database (catalog.engine = \"postgresql\"): a file would know nothing of \
             what came since. Where that is wanted all the same, remove {}",
            elsewhere.display()
        ))),
        None => Ledger::open_embedded(array.clone(), &layout::catalog(&config.data), observer)
            .await
            .map_err(|error| CommandError::failed("opening the catalog", error)),
        Some(database) => {
            let catalog = Arc::new(reach(&database).await?);
            must_be_imported(&catalog, array).await?;
            leave_mark(&elsewhere)?;
            Ok(Ledger::open_database(array.clone(), catalog, observer))
        }
    }
}

/// Opens the catalog in a database, which may be starting itself.
pub(crate) async fn reach(config: &PostgresConfig) -> Result<PostgresCatalog, CommandError> {
    let deadline = Instant::now() + DATABASE_START_TIME_MAX;
    loop {
        match PostgresCatalog::open(config).await {
            Err(error @ PostgresOpenError::Database(CatalogError::Unavailable(_)))
                if Instant::now() < deadline =>
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the catalog's database does not answer yet"
                );
                sleep(DATABASE_START_PAUSE).await;
            }
            opened => {
                return opened.map_err(|error| CommandError::failed("opening the catalog's database", error));
            }
        }
    }
}

/// An error and what it came from, in one line.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// What the log tells of the catalog has to be in the database before that is the truth.
async fn must_be_imported(catalog: &Arc<PostgresCatalog>, array: &Array) -> Result<(), CommandError> {
    let last = array.last_catalog_sequence();
    let known = Arc::clone(catalog);
    let checkpoint = tokio::task::spawn_blocking(move || known.checkpoint()).await;
    let checkpoint = match checkpoint {
        Ok(Ok(checkpoint)) => checkpoint,
        Ok(Err(error)) => return Err(CommandError::failed("asking the catalog's database", error)),
        Err(error) => return Err(CommandError::failed("asking the catalog's database", error)),
    };
    if last == Sequence::ZERO || checkpoint.covers(last) {
        return Ok(());
    }
    Err(CommandError::Relay(
        "this relay's array holds a catalog that is not in the database: run `lighter-relay catalog import` first"
            .to_owned(),
    ))
}

fn leave_mark(path: &Path) -> Result<(), CommandError> {
    if path.exists() {
        return Ok(());
    }
    std::fs::write(path, b"")
        .map_err(|error| CommandError::failed(format!("writing {}", path.display()), error))
}

/// Hears what other relays on the same database tell, and keeps the array knowing who they are.
pub(super) async fn hear(
    database: Arc<PostgresCatalog>,
    array: Array,
    own: PeerId,
    signals: DeliverySignals,
    due: Arc<Notify>,
) {
    let mut news = database.news();
    let mut known = None;
    let mut look_at = Instant::now();
    loop {
        let told = timeout(look_at.saturating_duration_since(Instant::now()), news.recv()).await;
        match told {
            Ok(Some(News::Waiting(mailbox))) => signals.tell_waiting(mailbox),
            Ok(Some(News::Ended(delivery))) => signals.tell_ended(delivery),
            Ok(Some(News::Relays)) => look_at = Instant::now(),
            Ok(Some(News::Missed)) => {
                signals.tell_missed();
                due.notify_one();
                look_at = Instant::now();
            }
            Ok(None) => return,
            Err(_) => {
                let pause = match meet(&database, &array, own, &signals, &mut known).await {
                    Ok(()) => FELLOWS_INTERVAL,
                    Err(error) => {
                        tracing::warn!(error, "other relays on the database are not known to the array yet");
                        FELLOWS_RETRY
                    }
                };
                look_at = Instant::now() + pause;
            }
        }
    }
}

/// Tells the array, and the stores that something is offered to, who the other relays are, where that is new.
async fn meet(
    database: &Arc<PostgresCatalog>,
    array: &Array,
    own: PeerId,
    signals: &DeliverySignals,
    known: &mut Option<BTreeSet<PeerId>>,
) -> Result<(), String> {
    let asked = Arc::clone(database);
    let relays =
        tokio::task::spawn_blocking(move || asked.relays()).await.map_err(|error| error.to_string())?;
    let relays = relays.map_err(|error| error.to_string())?;
    let fellows: BTreeSet<PeerId> =
        relays.iter().map(|relay| relay.peer).filter(|peer| *peer != own).collect();
    if known.as_ref() == Some(&fellows) || (known.is_none() && fellows.is_empty()) {
        return Ok(());
    }
    array.set_fellows(fellows.clone()).await.map_err(|error| error.to_string())?;
    signals.tell_fellows(fellows.iter().copied());
    tracing::info!(
        relays = fellows.len(),
        "other relays use the same database: each reads what the others store"
    );
    *known = Some(fellows);
    Ok(())
}

/// Does `work` until `stop`.
pub(super) async fn until(work: impl Future<Output = ()>, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Gives back what this relay had claimed: others go on with it at once.
pub(super) async fn give_back(ledger: &Ledger<Array>) {
    let giving = ledger.read(|catalog| catalog.give_back_all());
    match timeout(GIVE_BACK_TIME_MAX, giving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "what this relay had under way is free when its lease is over");
        }
        Err(_) => tracing::warn!("what this relay had under way is free when its lease is over"),
    }
}
