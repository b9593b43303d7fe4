//! One drop on its way in: its blobs are pulled from the sender one after the other, straight into the array; the record
//! that makes it exist is written last.
//!
//! What was pulled stays as long as the sender comes back in time: whole blobs as they are, the one that broke off up to
//! its last verified group. A relay that is killed begins anew; what it had written is an orphan, and goes with its
//! segment.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lighter_catalog::{CommitError, Envelope, Form, Message, Notify, Part, Recipient, Summary};
use lighter_message::Totals;
use lighter_message::line_end::LineEnds;
use lighter_protocol::blob::RangeSet;
use lighter_protocol::wire::{DropAnswer, LaterReason, NewDrop, NoReason, Response, SealedBlob};
use lighter_protocol::{BlobId, Day, Introduction, MessageId, PeerId, UnixTime};
use lighter_storage::{BlobWriter, Class, PlacedBlob};
use lighter_transport::Connection;
use lighter_transport::pull::{Piece, Pull, PullError, VerifiedSink};
use rand::RngExt;
use tokio::time::Instant;

use super::super::Shared;
use crate::ingest::expires;

/// A drop on its way in.
pub(super) struct Taking {
    /// Who leaves it.
    pub(super) from: PeerId,
    envelope: BlobId,
    class: Class,
    days: u32,
    progress: tokio::sync::Mutex<Progress>,
    link: Mutex<Link>,
}

/// Over what it comes.
struct Link {
    connection: Connection,
    used: Instant,
}

/// What is here of it.
#[derive(Default)]
struct Progress {
    /// Whole, in their order, the envelope first.
    done: Vec<PlacedBlob>,
    /// The one behind these.
    open: Option<Arc<tokio::sync::Mutex<Open>>>,
}

/// A blob that is not whole yet.
struct Open {
    /// None: it was finished.
    writer: Option<BlobWriter>,
    written: u64,
    /// A write began and did not end: nobody knows what the writer has.
    is_torn: bool,
}

impl Taking {
    pub(super) fn new(from: PeerId, new: &NewDrop, connection: Connection, class: Class, days: u32) -> Self {
        let link = Mutex::new(Link { connection, used: Instant::now() });
        Self { from, envelope: new.envelope.id, class, days, progress: tokio::sync::Mutex::default(), link }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is what `new` names.
    pub(super) fn is_of(&self, new: &NewDrop) -> bool {
        self.envelope == new.envelope.id
    }

    /// Whether it is being pulled now.
    pub(super) fn is_running(&self) -> bool {
        self.progress.try_lock().is_err()
    }

    /// When something was done for it last.
    pub(super) fn used(&self) -> Instant {
        self.link().used
    }

    /// Goes on over `connection`: what is under way on another one ends. False where it is under way on this very one.
    pub(super) fn go_on(&self, connection: &Connection) -> bool {
        let mut link = self.link();
        if link.connection.is_same(connection) {
            return !self.is_running();
        }
        let before = std::mem::replace(&mut link.connection, connection.clone());
        link.used = Instant::now();
        before.close();
        true
    }

    fn note_use(&self) {
        self.link().used = Instant::now();
    }
}

/// Pulls what is missing, makes it exist, and says so.
pub(super) async fn run(
    shared: Arc<Shared>,
    taking: Arc<Taking>,
    new: NewDrop,
    connection: Connection,
    introduction: Introduction,
) -> Response {
    let mut progress = taking.progress.lock().await;
    let Ok(_room) = shared.drops.room.try_acquire() else {
        return Response::Dropped(DropAnswer::Later(LaterReason::Busy));
    };
    let pulled = tokio::select! {
        biased;
        () = shared.stop.cancelled() => Err(Ended::Gone),
        pulled = pull(&shared, &taking, &mut progress, &new, &connection) => pulled,
    };
    taking.note_use();
    if let Err(ended) = pulled {
        tracing::info!(delivery = %new.delivery, peer = %taking.from, %ended, "drop not taken yet");
        return ended.response();
    }
    let answer = accept(&shared, &taking, &mut progress, &new, &introduction).await;
    // Taken, or to be begun anew: what was pulled is used up.
    shared.drops.open().remove(&new.delivery);
    if !matches!(answer, DropAnswer::Taken { .. }) {
        shared.drops.tally().let_go(&new.delivery);
    }
    Response::Dropped(answer)
}

/// Why a drop did not come in.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the sender does not give it")]
    Refused,
    #[error("the sender is gone")]
    Gone,
    #[error("storage does not take it")]
    Storage,
}

impl Ended {
    fn response(&self) -> Response {
        Response::Dropped(match self {
            Self::Refused => DropAnswer::No(NoReason::NotAccepted),
            Self::Gone => DropAnswer::Later(LaterReason::Busy),
            Self::Storage => DropAnswer::Later(LaterReason::Disk),
        })
    }
}

async fn pull(
    shared: &Shared,
    taking: &Taking,
    progress: &mut Progress,
    new: &NewDrop,
    connection: &Connection,
) -> Result<(), Ended> {
    for blob in new.parts().skip(progress.done.len()) {
        let placed = pull_blob(shared, taking, progress, new, blob, connection).await?;
        progress.done.push(placed);
        taking.note_use();
    }
    Ok(())
}

async fn pull_blob(
    shared: &Shared,
    taking: &Taking,
    progress: &mut Progress,
    new: &NewDrop,
    blob: &SealedBlob,
    connection: &Connection,
) -> Result<PlacedBlob, Ended> {
    let begin = || {
        let writer = Some(shared.parts.array.create_blob(taking.class));
        Arc::new(tokio::sync::Mutex::new(Open { writer, written: 0, is_torn: false }))
    };
    let open = Arc::clone(progress.open.get_or_insert_with(begin));
    let written = {
        let open = open.lock().await;
        if open.is_torn { None } else { Some(open.written) }
    };
    let (open, written) = match written {
        Some(written) => (open, written),
        None => (Arc::clone(progress.open.insert(begin())), 0),
    };
    if written < blob.size {
        let missing = RangeSet::from_iter(std::iter::once(written..blob.size));
        let pull = Pull { streams: 1, ..Pull::of(new.delivery, blob.id, blob.size).missing(missing) };
        let sink = Arc::new(Sink { open: Arc::clone(&open) });
        connection.pull(&pull, &sink).await.map_err(|error| {
            tracing::debug!(delivery = %new.delivery, blob = %blob.id, %error, "a sealed blob broke off");
            match error {
                PullError::Refused | PullError::Invalid(_) => Ended::Refused,
                PullError::Later(_) | PullError::Peer(_) => Ended::Gone,
                PullError::Sink(_) => Ended::Storage,
            }
        })?;
    }
    progress.open = None;
    let mut open = open.lock().await;
    let is_whole = open.written == blob.size && !open.is_torn;
    let writer = open.writer.take().filter(|_| is_whole).ok_or(Ended::Storage)?;
    let placed = writer.finish().await.map_err(|_| Ended::Storage)?;
    // Two hashes of the same bytes, one on each side of the storage's buffers: they must agree.
    if placed.stored().id == blob.id { Ok(placed) } else { Err(Ended::Storage) }
}

/// Takes a blob's verified pieces in their order: one stream brings them.
struct Sink {
    open: Arc<tokio::sync::Mutex<Open>>,
}

impl VerifiedSink for Sink {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let mut open = self.open.lock().await;
        if piece.offset != open.written || open.is_torn {
            return Err(io::Error::other("a piece out of its order"));
        }
        open.is_torn = true;
        let writer = open.writer.as_mut().ok_or_else(|| io::Error::other("written to its end"))?;
        writer.write(&piece.bytes).await.map_err(io::Error::other)?;
        open.written += piece.bytes.len() as u64;
        open.is_torn = false;
        Ok(())
    }
}

/// Writes the record that makes it exist; durable, and in the view, on return.
async fn accept(
    shared: &Shared,
    taking: &Taking,
    progress: &mut Progress,
    new: &NewDrop,
    introduction: &Introduction,
) -> DropAnswer {
    let placed = std::mem::take(&mut progress.done);
    let now = UnixTime::now();
    // What lies in segments of the day before yesterday may have been taken for dead meanwhile (`upkeep::thin`).
    let since_yesterday = taking.class.deletion_day(Day(now.day().0.saturating_sub(1)));
    let is_old =
        |blob: &PlacedBlob| blob.stored().location.deletion_day().is_some_and(|day| day < since_yesterday);
    if placed.iter().any(is_old) {
        return DropAnswer::Later(LaterReason::Busy);
    }
    let Some(message) = message(taking, &placed, new, introduction, now) else {
        return DropAnswer::No(NoReason::NotAccepted);
    };
    let (id, until) = (message.id, message.expires.end());
    match shared.parts.ledger.accept_applied(message, placed).await {
        Ok(()) => {
            tracing::info!(message = %id, delivery = %new.delivery, peer = %taking.from, bytes = new.bytes(), "drop taken");
            DropAnswer::Taken { until }
        }
        Err(CommitError::Refused(error)) => {
            tracing::warn!(delivery = %new.delivery, %error, "drop refused");
            DropAnswer::No(NoReason::NotAccepted)
        }
        // In doubt, too: asked again, the catalog says whether it exists.
        Err(error) => {
            tracing::warn!(delivery = %new.delivery, %error, "drop not taken");
            DropAnswer::Later(LaterReason::Disk)
        }
    }
}

/// The message that it becomes: the envelope for its manifest, the sealed blobs for its parts, and nothing to hand over.
fn message(
    taking: &Taking,
    placed: &[PlacedBlob],
    new: &NewDrop,
    introduction: &Introduction,
    now: UnixTime,
) -> Option<Message> {
    let stored = || placed.iter().map(PlacedBlob::stored);
    let manifest = stored().next()?.clone();
    let part = |blob: &lighter_storage::StoredBlob| Part {
        blob: blob.clone(),
        name: String::new(),
        media_type: String::new(),
    };
    let recipient = Recipient {
        address: new.recipient.as_str().to_owned(),
        mailbox: Some(new.recipient.clone()),
        notify: Notify::Never,
        orcpt: None,
        form: Form::Drop { delivery: new.delivery, from: taking.from },
    };
    let promised = now.day().plus(taking.days);
    Some(Message {
        id: MessageId(rand::rng().random()),
        accepted: now,
        envelope: Envelope {
            reverse_path: introduction.sender_mailbox.as_str().to_owned(),
            ..Envelope::default()
        },
        original: Totals { length: 0, hash: [0; 32], parts: 0, line_ends: LineEnds::CrLf },
        summary: Summary::default(),
        trace: String::new(),
        manifest,
        parts: stored().skip(1).map(part).collect(),
        recipients: vec![recipient],
        class: taking.class,
        expires: expires(taking.class, now.day(), stored()).min(promised),
        cause: None,
    })
}
