//! The attachments of a message on its way in: each is stored while it comes, unless it is here already (SPEC D8).
//!
//! What is here is known once the attachment's last byte, and with it its hash, is. Up to then a writer holds one portion
//! and has sent the rest: an attachment of one portion (1 MiB) costs no write at all where it is here already, of a
//! larger one what was sent is an orphan, and goes with its segment.
//!
//! Looking for it, and not writing it, takes another time than writing it, and that time tells whether somebody else got
//! the same file: so it is done for trusted peers only, mail servers in front of this one that have answered their
//! senders already. From everybody else all is taken and stored; that there was a copy before is found when the message
//! is accepted ([`Ledger::accept`]), which asks the same and waits for the same whether there was one or not.

use std::collections::BTreeMap;

use lighter_catalog::Ledger;
use lighter_protocol::{BlobId, UnixTime};
use lighter_storage::{Array, BlobReader, BlobWriter, Class, PlacedBlob, StoredBlob};

use super::incoming::Failure;

/// The attachments of a message on its way in.
pub(super) struct Attachments {
    array: Array,
    ledger: Ledger<Array>,
    class: Class,
    /// Whether what is here already need not be written again; see above.
    may_skip: bool,
    /// The attachment that is open.
    open: Option<BlobWriter>,
    /// Those that are whole, in the order of the manifest.
    named: Vec<StoredBlob>,
    /// The same, to be found.
    known: BTreeMap<BlobId, StoredBlob>,
    /// Those among them that were stored.
    placed: Vec<PlacedBlob>,
}

impl Attachments {
    /// None yet.
    pub(super) fn new(array: Array, ledger: Ledger<Array>, class: Class, may_skip: bool) -> Self {
        let (named, known, placed) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { array, ledger, class, may_skip, open: None, named, known, placed }
    }

    /// Another one begins.
    pub(super) fn start(&mut self) {
        self.open = Some(self.array.create_blob(self.class));
    }

    /// Bytes of the one that is open.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let open = self.open.as_mut().ok_or(Failure::OutOfOrder)?;
        open.write(bytes).await.map_err(Failure::from)
    }

    /// The one that is open begins anew; gives its first `len` bytes, which are an orphan from now on.
    pub(super) async fn restart(&mut self, len: u64) -> Result<BlobReader, Failure> {
        let again = self.array.create_blob(self.class);
        let orphan = self.open.replace(again).ok_or(Failure::OutOfOrder)?;
        orphan.read_back(0..len).await.map_err(Failure::from)
    }

    /// The one that is open ends, and is the blob `id`.
    // SPEC: D8
    pub(super) async fn end(&mut self, id: BlobId) -> Result<(), Failure> {
        let writer = self.open.take().ok_or(Failure::OutOfOrder)?;
        if let Some(copy) = self.find(id).await {
            self.name(copy);
            return Ok(());
        }
        let placed = writer.finish().await?;
        // Two hashes of the same bytes, one on each side of the storage's buffers: they must agree.
        if placed.stored().id != id {
            return Err(Failure::OutOfOrder);
        }
        self.name(placed.stored().clone());
        self.placed.push(placed);
        Ok(())
    }

    /// A copy that was there before, of this message or, where that may be told, of another.
    async fn find(&self, id: BlobId) -> Option<StoredBlob> {
        match self.known.get(&id) {
            Some(copy) => Some(copy.clone()),
            None if self.may_skip => {
                let until = self.class.deletion_day(UnixTime::now().day());
                self.ledger.find_copy(id, until).await
            }
            None => None,
        }
    }

    fn name(&mut self, copy: StoredBlob) {
        self.known.entry(copy.id).or_insert_with(|| copy.clone());
        self.named.push(copy);
    }

    /// What the message names, in the order of the manifest, and what of it was stored for it.
    pub(super) fn into_parts(self) -> (Vec<StoredBlob>, Vec<PlacedBlob>) {
        (self.named, self.placed)
    }
}
