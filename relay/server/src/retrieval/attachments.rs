//! The seam between the pages and what holds the attachments: the catalog knows tickets, the array has bytes.

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;
use lighter_catalog::{Catalog, CatalogError, DeliveryState, Ledger};
use lighter_protocol::{BlobId, Day, PeerId, TicketHash, UnixTime};
use lighter_storage::{Array, BlobReader, ReadError, StoredBlob};

/// Finds deliveries by ticket, and opens their attachments.
pub trait Attachments: Send + Sync + 'static {
    /// Names the bytes of one attachment.
    type Blob: Clone + Send + Sync + 'static;
    /// Gives them.
    type Pieces: Pieces;

    /// The delivery that a ticket opens; `None` for one that is unknown or revoked.
    fn find(
        &self,
        ticket: TicketHash,
    ) -> impl Future<Output = Result<Option<DeliveryView<Self::Blob>>, RetrievalError>> + Send;

    /// The bytes of `range` of a blob.
    fn open(&self, blob: &Self::Blob, range: Range<u64>) -> Self::Pieces;
}

/// Bytes in order, piece by piece, each verified.
pub trait Pieces: Send + 'static {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, RetrievalError>> + Send;
}

/// Why something that is there cannot be given out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetrievalError {
    /// Its last day is over.
    #[error("expired")]
    Expired,
    /// The catalog or the array does not answer: try again.
    #[error("cannot be read now")]
    Unavailable,
    /// No copy is right.
    #[error("no copy is right")]
    Damaged,
}

/// What a ticket opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryView<B> {
    /// The From field of the message: hostile input.
    pub from: String,
    /// Its Subject: hostile input.
    pub subject: String,
    /// When the message came in.
    pub accepted: UnixTime,
    /// The last day on which this works.
    pub expires: Day,
    /// Whether the bytes can be had here.
    pub opened: Opened,
    /// In the order of the message.
    pub attachments: Vec<Attachment<B>>,
}

/// Whether the bytes can be had here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// They can.
    Here,
    /// The relay has let go of them: this store has them (SPEC A22).
    At(PeerId),
    /// There is nothing that they would belong to.
    Withdrawn,
}

/// One attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment<B> {
    /// Its name, as the message gave it: hostile input.
    pub name: String,
    /// Its media type, as the message gave it: hostile input.
    pub media_type: String,
    /// Its hash.
    pub id: BlobId,
    /// Bytes.
    pub size: u64,
    /// What opens it.
    pub blob: B,
}

/// The relay's own: its ledger's view, and its array.
#[derive(Clone)]
pub struct LedgerAttachments {
    ledger: Ledger<Array>,
    array: Array,
}

impl LedgerAttachments {
    /// What `ledger` lists and `array` holds.
    pub fn new(ledger: Ledger<Array>, array: Array) -> Self {
        Self { ledger, array }
    }
}

impl Attachments for LedgerAttachments {
    type Blob = StoredBlob;
    type Pieces = BlobReader;

    async fn find(&self, ticket: TicketHash) -> Result<Option<DeliveryView<StoredBlob>>, RetrievalError> {
        let found = self.ledger.read(move |catalog| look_up(catalog, &ticket)).await;
        found.map_err(|error| {
            tracing::error!(%error, "the catalog cannot be asked");
            RetrievalError::Unavailable
        })
    }

    fn open(&self, blob: &StoredBlob, range: Range<u64>) -> BlobReader {
        self.array.read_blob(blob, range)
    }
}

impl Pieces for BlobReader {
    async fn next(&mut self) -> Result<Option<Bytes>, RetrievalError> {
        BlobReader::next(self).await.map_err(|error| match error {
            ReadError::Expired => RetrievalError::Expired,
            ReadError::Unavailable => RetrievalError::Unavailable,
            ReadError::Damaged | ReadError::Range => RetrievalError::Damaged,
        })
    }
}

fn look_up(
    catalog: &dyn Catalog,
    ticket: &TicketHash,
) -> Result<Option<DeliveryView<StoredBlob>>, CatalogError> {
    let Some(delivery) = catalog.by_ticket(ticket)? else { return Ok(None) };
    let Some(message) = catalog.message(&delivery.message)? else { return Ok(None) };
    let opened = match delivery.state {
        DeliveryState::Released { store } => Opened::At(store),
        DeliveryState::Withdrawn => Opened::Withdrawn,
        _ => Opened::Here,
    };
    let attachments = message.parts.into_iter().map(|part| Attachment {
        name: part.name,
        media_type: part.media_type,
        id: part.blob.id,
        size: part.blob.size,
        blob: part.blob,
    });
    Ok(Some(DeliveryView {
        from: message.summary.from,
        subject: message.summary.subject,
        accepted: delivery.accepted,
        expires: delivery.expires,
        opened,
        attachments: attachments.collect(),
    }))
}
