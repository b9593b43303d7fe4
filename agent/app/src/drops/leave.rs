//! Leaving a delivery with a relay of the recipient's domain: sealed once, kept until the relay has it, told again to the
//! same relay however often the connection breaks.

use std::io::{self, Read};
use std::time::Duration;

use lighter_protocol::wire::{
    DropAnswer, LaterReason, NewDrop, NoReason, OfferedBlob, Request, Response, SealedBlob,
};
use lighter_protocol::{DeliveryId, PeerId, RelayRecord, SealingKey, UnixTime};
use lighter_sealing::{ContentKey, Envelope, Part, SealError, Table, frames};
use lighter_store::{Hold, LeftDrop, Outgoing, Store, StoreError};
use lighter_transport::Connection;
use lighter_transport::location::StoreRecord;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::finding::{self, AskError};
use crate::limits::{DROP_RETRY_MIN, DROP_TIME_MAX, DROP_TRIES_MAX, SILENCE_LOOK_INTERVAL};
use crate::links::close_when_silent;
use crate::shared::{Handle, Shared};
use crate::{carriers, serve};

/// Where a delivery was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// With which relay.
    pub relay: PeerId,
    /// It is kept there until then.
    pub until: UnixTime,
}

/// Why a delivery was not left; in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum WhyNot {
    /// The domain names no relay that can be dialled from here.
    #[error("the recipient's domain has no relay that can be dialled from here")]
    NoRelay,
    /// The recipient's stores have said no key that something could be sealed to.
    #[error("the recipient's store has no key that it could be sealed to")]
    NoKey,
    /// The attachments do not fit into a drop.
    #[error("{0}")]
    Seal(#[from] SealError),
    /// The relay cannot be reached.
    #[error("the relay of the recipient's domain cannot be reached")]
    NotReached,
    /// It was asked, and the connection broke too often: it may have it.
    #[error("the connection to the relay of the recipient's domain broke too often")]
    Broken,
    /// The location server could not be asked for an introduction.
    #[error("{0}")]
    Asking(#[from] AskError),
    /// The recipient does not take things from here.
    #[error("the recipient takes nothing from here")]
    NotIntroduced,
    /// The relay will not take it now.
    #[error("the relay of the recipient's domain does not take it now: {}", words(*.0))]
    Later(LaterReason),
    /// The relay will not take it.
    #[error("the relay of the recipient's domain does not take it")]
    No(NoReason),
    /// The own store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Likewise.
    #[error("it could not be sealed: {0}")]
    Io(io::Error),
}

fn words(reason: LaterReason) -> &'static str {
    match reason {
        LaterReason::Quota => "too much waits there already",
        LaterReason::Disk => "its storage is not available",
        LaterReason::Busy | LaterReason::Paused => "it is busy",
    }
}

/// Whether a delivery could be left for this store at all.
pub fn is_possible(shared: &Shared, record: &StoreRecord) -> bool {
    !record.sealing_keys.is_empty() && record.relays.iter().any(|relay| takes(shared, relay))
}

/// Whether something may be left with `relay` from here.
fn takes(shared: &Shared, relay: &RelayRecord) -> bool {
    !relay.is_only_helper() && carriers::is_possible(shared, relay)
}

/// Leaves `outgoing`, which is on record, with a relay of the domain of `record`; returns when the relay has all of it,
/// durable. Called again, it goes on.
///
/// # Errors
/// Why it was not left. It stays as it is, to be tried again or taken back.
pub async fn leave(shared: &Handle, outgoing: &Outgoing, record: &StoreRecord) -> Result<Left, WhyNot> {
    let relays: Vec<_> = record.relays.iter().filter(|relay| takes(shared, relay)).collect();
    if relays.is_empty() {
        return Err(WhyNot::NoRelay);
    }
    let delivery = outgoing.delivery;
    let mut left = match shared.blocking(move |store| store.left(delivery)).await? {
        Some(left) => left,
        None => seal(shared, outgoing, record, relays[0].peer).await?,
    };
    if let Some(until) = left.taken {
        return Ok(Left { relay: left.relay, until });
    }
    let mut why = WhyNot::NotReached;
    let mut relays = relays;
    // The one that was asked before may have it already.
    relays.sort_by_key(|relay| relay.peer != left.relay);
    for relay in relays {
        if left.relay != relay.peer {
            left.relay = relay.peer;
            let changed = left.clone();
            shared.blocking(move |store| store.put_left(delivery, &changed)).await?;
        }
        match ask(shared, outgoing, &left, relay).await {
            Ok(until) => {
                left.taken = Some(until);
                let relay = left.relay;
                shared.blocking(move |store| store.put_left(delivery, &left)).await?;
                return Ok(Left { relay, until });
            }
            Err(error @ WhyNot::NotReached) => why = error,
            Err(error) => return Err(error),
        }
    }
    Err(why)
}

/// Seals manifest and attachments to the recipient's stores, and puts that on record.
async fn seal(
    shared: &Handle,
    outgoing: &Outgoing,
    record: &StoreRecord,
    relay: PeerId,
) -> Result<LeftDrop, WhyNot> {
    let now = UnixTime::now();
    let keys = record.sealing_keys.iter().filter_map(|signed| {
        SealingKey::verify(signed, &outgoing.recipient, now)
            .inspect_err(
                |error| tracing::warn!(recipient = %outgoing.recipient, %error, "nothing is sealed to it"),
            )
            .ok()
    });
    let keys: Vec<SealingKey> = keys.collect();
    // The store whose receipt releases must be able to open it.
    if !keys.iter().any(|key| key.peer == record.peer) {
        return Err(WhyNot::NoKey);
    }
    let outgoing = outgoing.clone();
    shared.blocking(move |store| seal_to(store, &outgoing, &keys, relay)).await
}

/// The same; blocks on the disk.
pub(super) fn seal_to(
    store: &Store,
    outgoing: &Outgoing,
    keys: &[SealingKey],
    relay: PeerId,
) -> Result<LeftDrop, WhyNot> {
    let key = ContentKey::generate().map_err(|_| SealError::Key)?;
    let hold = store.hold();
    let (mut parts, mut blobs) = (Vec::new(), Vec::new());
    for (part, index) in outgoing.parts().zip(0..) {
        let plain = store.open_blob(part.id)?.reader();
        let sealed = frames::Sealer::new(&key, &outgoing.delivery, index, part.size, plain)
            .map_err(|_| SealError::Key)?;
        let sealed = import(store, sealed, &hold)?;
        parts.push(Part {
            id: part.id,
            size: part.size,
            name: part.name.clone(),
            media_type: part.media_type.clone(),
            sealed: sealed.id,
        });
        blobs.push(sealed);
    }
    let table = Table { sender: outgoing.sender.clone(), parts };
    let envelope = Envelope::seal(&table, &key, &outgoing.delivery, &outgoing.recipient, keys)?;
    let envelope = import(store, envelope.as_bytes(), &hold)?;
    let stores = keys.iter().map(|key| key.peer).collect();
    let left = LeftDrop { relay, envelope, blobs, stores, taken: None };
    store.put_left(outgoing.delivery, &left)?;
    Ok(left)
}

fn import(store: &Store, mut bytes: impl Read, hold: &Hold) -> Result<OfferedBlob, WhyNot> {
    let mut import = store.import()?;
    io::copy(&mut bytes, &mut import).map_err(WhyNot::Io)?;
    let (id, size) = import.finish(hold, UnixTime::now())?;
    Ok(OfferedBlob { id, size, name: String::new(), media_type: String::new() })
}

/// Tells one relay of it until it answers, and serves what it pulls; gives until when it is kept there.
async fn ask(
    shared: &Handle,
    outgoing: &Outgoing,
    left: &LeftDrop,
    relay: &RelayRecord,
) -> Result<UnixTime, WhyNot> {
    let mut pause = DROP_RETRY_MIN;
    let mut why = WhyNot::NotReached;
    let mut relay = relay.clone();
    for _ in 0..DROP_TRIES_MAX {
        match ask_once(shared, outgoing, left, &relay).await {
            Ok(DropAnswer::Taken { until }) => return Ok(until),
            Ok(DropAnswer::No(reason)) => return Err(WhyNot::No(reason)),
            Ok(DropAnswer::Later(reason @ LaterReason::Quota)) => return Err(WhyNot::Later(reason)),
            Ok(DropAnswer::Later(reason)) => why = WhyNot::Later(reason),
            Err(WhyNot::NotReached) => {}
            Err(WhyNot::Broken) => why = WhyNot::Broken,
            Err(error) => return Err(error),
        }
        sleep(pause).await;
        pause *= 2;
        // One that was started anew may have another address.
        if let Some(now) = looked_up(shared, outgoing, &relay.peer).await {
            relay = now;
        }
    }
    Err(why)
}

/// The relay as the location server names it now.
async fn looked_up(shared: &Handle, outgoing: &Outgoing, relay: &PeerId) -> Option<RelayRecord> {
    let record = finding::look_up_one(shared, &outgoing.sender, &outgoing.recipient).await.ok()??;
    record.relays.into_iter().find(|known| known.peer == *relay)
}

async fn ask_once(
    shared: &Handle,
    outgoing: &Outgoing,
    left: &LeftDrop,
    relay: &RelayRecord,
) -> Result<DropAnswer, WhyNot> {
    let link = Link::dial(shared, relay).await.ok_or(WhyNot::NotReached)?;
    let new = new_drop(shared, outgoing, left).await?;
    match link.connection.request_within(&Request::Drop(new), DROP_TIME_MAX).await {
        Ok(Response::Dropped(answer)) => Ok(answer),
        Ok(Response::Later(_)) => Ok(DropAnswer::Later(LaterReason::Busy)),
        Ok(_) => Ok(DropAnswer::No(NoReason::NotAccepted)),
        Err(error) => {
            tracing::info!(relay = %relay.peer, %error, "a drop was not answered");
            Err(WhyNot::Broken)
        }
    }
}

/// What the relay is asked, with a fresh introduction.
async fn new_drop(shared: &Handle, outgoing: &Outgoing, left: &LeftDrop) -> Result<NewDrop, WhyNot> {
    let bytes = left.parts().fold(0, |sum: u64, part| sum.saturating_add(part.size));
    let introduction = finding::introduction(shared, &outgoing.sender, &outgoing.recipient, bytes).await?;
    let sealed = |blob: &OfferedBlob| SealedBlob { id: blob.id, size: blob.size };
    Ok(NewDrop {
        delivery: outgoing.delivery,
        recipient: outgoing.recipient.clone(),
        envelope: sealed(&left.envelope),
        blobs: left.blobs.iter().map(sealed).collect(),
        expires: outgoing.expires,
        introduction: introduction.ok_or(WhyNot::NotIntroduced)?,
    })
}

/// A connection to a relay of another's domain, on which its requests are served; closed with it, and when the relay is gone:
/// somebody waits for what is left there.
pub(super) struct Link {
    shared: Handle,
    pub(super) connection: Connection,
    serving: JoinHandle<()>,
    watching: JoinHandle<()>,
}

impl Link {
    pub(super) async fn dial(shared: &Handle, relay: &RelayRecord) -> Option<Self> {
        let connected = carriers::connect(shared, relay).await;
        let connection = connected
            .inspect_err(|error| tracing::info!(relay = %relay.peer, %error, "a relay cannot be reached"))
            .ok()?;
        let serving = tokio::spawn(serve::connection(shared.clone(), connection.clone()));
        let wakes = shared.wakes.subscribe();
        let watching = tokio::spawn(close_when_silent(connection.clone(), || SILENCE_LOOK_INTERVAL, wakes));
        let link = Self { shared: shared.clone(), connection, serving, watching };
        let successions = shared.former.successions();
        if !successions.is_empty() {
            // What was left there under a former key is this one's; an older relay does not know, and says so.
            let said = link.connection.request(&Request::Succession(successions)).await;
            tracing::debug!(relay = %relay.peer, ?said, "told of former keys");
        }
        Some(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close();
        self.serving.abort();
        self.watching.abort();
        self.shared.links.sweep(&self.connection.peer());
    }
}

/// Takes back what was not left: the sealed blobs go with the delivery.
pub async fn take_back(shared: &Handle, delivery: DeliveryId) {
    if let Err(error) = shared.blocking(move |store| store.remove_outgoing(delivery)).await {
        tracing::warn!(%delivery, %error, "what was not left stays until the next start");
    }
}

const _: () = assert!(DROP_TIME_MAX.as_secs() > Duration::from_secs(600).as_secs());
