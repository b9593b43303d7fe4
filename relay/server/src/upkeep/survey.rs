//! Everything that is referred to, page by page: the manifests of messages that are not over, and each copy of an
//! attachment once.

use lighter_catalog::{CatalogError, CopyKey, Ledger};
use lighter_protocol::MessageId;
use lighter_storage::{Array, StoredBlob};

use crate::limits::SURVEY_ROWS_LEN;

/// What is still to come.
enum Next {
    /// Manifests of messages behind this one.
    Manifests(Option<MessageId>),
    /// Copies behind this one.
    Copies(Option<CopyKey>),
    End,
}

/// A walk over everything that is referred to. What comes or goes meanwhile is met, or not.
pub(super) struct Survey<'l> {
    ledger: &'l Ledger<Array>,
    next: Next,
}

impl<'l> Survey<'l> {
    /// From the beginning.
    pub(super) fn new(ledger: &'l Ledger<Array>) -> Self {
        Self { ledger, next: Next::Manifests(None) }
    }

    /// Some more; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Vec<StoredBlob>, CatalogError> {
        loop {
            let page = match self.next {
                Next::Manifests(after) => {
                    let read =
                        self.ledger.read(move |catalog| catalog.messages(after.as_ref(), SURVEY_ROWS_LEN));
                    let page = read.await?;
                    self.next = match page.last() {
                        Some((last, _)) => Next::Manifests(Some(last.id)),
                        None => Next::Copies(None),
                    };
                    let referring = page.into_iter().filter(|(_, refers)| *refers);
                    referring.map(|(message, _)| message.manifest).collect::<Vec<_>>()
                }
                Next::Copies(after) => {
                    let read =
                        self.ledger.read(move |catalog| catalog.copies(after.as_ref(), SURVEY_ROWS_LEN));
                    let page: Vec<_> = read.await?.into_iter().map(|copy| copy.blob).collect();
                    self.next = match page.last() {
                        Some(last) => Next::Copies(Some(CopyKey::of(last))),
                        None => Next::End,
                    };
                    page
                }
                Next::End => return Ok(Vec::new()),
            };
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }
}
