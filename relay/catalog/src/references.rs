//! Which messages refer to which copies of attachments (SPEC D8).
//!
//! A copy is one writing of a blob: what one [`StoredBlob`] locates. One row says that a message names a copy, and how
//! often; nothing is counted beside the rows but the totals, so there is nothing that could come to disagree. The rows
//! follow from the messages ([`Progress::refers`](crate::rows::Progress::refers)) and from nothing else: a message
//! whose record names a copy that another one brought has it in its own record, and a replay finds it there.
//!
//! Keys begin with the blob and go on with the copy's deletion day, so that one look finds the copies that are kept
//! long enough. Finding one does not depend on how many messages name it.
//!
//! Manifests are not looked for: no two messages have the same one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use lighter_protocol::{BlobId, Day, MessageId};
use lighter_storage::StoredBlob;

use crate::apply;
use crate::catalog::KeptCopy;
use crate::message::Message;
use crate::rows::{Counts, decode, encode};
use crate::tables::{CatalogError, Result, Table, Tables, TablesMut};

/// Bytes of a copy's key: blob, deletion day, segment, offset.
const KEY_LEN: usize = BlobId::LEN + 4 + 16 + 8;

/// What tells a copy from every other: its blob, its deletion day, and where its first record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyKey([u8; KEY_LEN]);

impl CopyKey {
    /// The key of the copy that `blob` locates.
    pub fn of(blob: &StoredBlob) -> Self {
        let day = blob.location.deletion_day().unwrap_or(Day(0));
        let mut key = prefix(&blob.id, day);
        match blob.location.place(0) {
            Some(place) => {
                key.extend_from_slice(&place.segment.0);
                key.extend_from_slice(&place.offset.to_be_bytes());
            }
            None => key.resize(KEY_LEN, 0),
        }
        let mut bytes = [0; KEY_LEN];
        bytes.copy_from_slice(&key);
        Self(bytes)
    }

    /// Blob and place: where it lies and until when.
    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        self.0.split_at(BlobId::LEN)
    }

    pub(crate) fn in_row(key: &[u8]) -> Result<(Self, MessageId)> {
        let damaged = CatalogError::Damaged("key without a copy");
        let Some((copy, message)) = key.split_first_chunk::<KEY_LEN>() else { return Err(damaged) };
        let message = message.try_into().map_err(|_| damaged)?;
        Ok((Self(*copy), MessageId(message)))
    }

    fn blob(&self) -> &[u8] {
        &self.0[..BlobId::LEN]
    }

    pub(crate) fn row(&self, message: &MessageId) -> Vec<u8> {
        [self.0.as_slice(), &message.0].concat()
    }

    /// The first key behind all rows of this copy.
    fn behind(&self) -> Vec<u8> {
        let mut key = self.row(&MessageId([u8::MAX; MessageId::LEN]));
        key.push(0);
        key
    }
}

/// What keys of `blob` begin with whose copies are kept to the end of `day`.
fn prefix(blob: &BlobId, day: Day) -> Vec<u8> {
    [blob.0.as_slice(), &day.0.to_be_bytes()].concat()
}

/// The message refers to every copy that it names, from now on.
pub(crate) fn take(tables: &mut dyn TablesMut, counts: &mut Counts, message: &Message) -> Result<()> {
    for (copy, (blob, times)) in named(message) {
        if first_row(tables, &copy.0, &copy)?.is_none() {
            counts.copies = counts.copies.saturating_add(1);
            counts.copies_bytes = counts.copies_bytes.saturating_add(blob.size);
        }
        counts.references = counts.references.saturating_add(times.into());
        let bytes = blob.size.saturating_mul(times.into());
        counts.references_bytes = counts.references_bytes.saturating_add(bytes);
        tables.put(Table::References, &copy.row(&message.id), &encode(&times)?)?;
    }
    Ok(())
}

/// The message refers to none of them any more. A copy that nobody refers to is dead: it goes with its segment.
pub(crate) fn give_up(tables: &mut dyn TablesMut, counts: &mut Counts, message: &Message) -> Result<()> {
    for (copy, (blob, times)) in named(message) {
        tables.remove(Table::References, &copy.row(&message.id))?;
        if first_row(tables, &copy.0, &copy)?.is_none() {
            counts.copies = counts.copies.saturating_sub(1);
            counts.copies_bytes = counts.copies_bytes.saturating_sub(blob.size);
        }
        counts.references = counts.references.saturating_sub(times.into());
        let bytes = blob.size.saturating_mul(times.into());
        counts.references_bytes = counts.references_bytes.saturating_sub(bytes);
    }
    Ok(())
}

/// The copies that a message names, and how often.
pub(crate) fn named(message: &Message) -> BTreeMap<CopyKey, (&StoredBlob, u32)> {
    let mut named = BTreeMap::new();
    for part in &message.parts {
        named.entry(CopyKey::of(&part.blob)).or_insert((&part.blob, 0)).1 += 1;
    }
    named
}

/// Whether any message refers to `copy`.
pub(crate) fn is_referred(tables: &dyn Tables, copy: &CopyKey) -> Result<bool> {
    Ok(first_row(tables, &copy.0, copy)?.is_some())
}

/// The first message that refers to `copy`, looked for from `from` on.
fn first_row(tables: &dyn Tables, from: &[u8], copy: &CopyKey) -> Result<Option<MessageId>> {
    Ok(next_row(tables, from)?.filter(|(found, _)| found == copy).map(|(_, message)| message))
}

fn next_row(tables: &dyn Tables, from: &[u8]) -> Result<Option<(CopyKey, MessageId)>> {
    let mut found = None;
    tables.scan(Table::References, from, &mut |key, _| {
        found = Some(CopyKey::in_row(key)?);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// What a message that refers to `copy` says of it.
fn located(tables: &dyn Tables, copy: &CopyKey, message: &MessageId) -> Result<StoredBlob> {
    let message = apply::message(tables, message)?;
    let parts = message.map(|message| message.parts).unwrap_or_default();
    let found = parts.into_iter().map(|part| part.blob).find(|blob| CopyKey::of(blob) == *copy);
    found.ok_or(CatalogError::Damaged("reference without its message"))
}

/// See [`Catalog::copies_of`](crate::Catalog::copies_of).
pub(crate) fn copies_of(
    tables: &dyn Tables,
    blob: &BlobId,
    until: Day,
    count_max: usize,
) -> Result<Vec<StoredBlob>> {
    let mut found = Vec::new();
    let mut from = prefix(blob, until);
    while found.len() < count_max
        && let Some((copy, message)) = next_row(tables, &from)?
        && copy.blob() == blob.0
    {
        found.push(located(tables, &copy, &message)?);
        from = copy.behind();
    }
    Ok(found)
}

/// See [`Catalog::copies`](crate::Catalog::copies).
pub(crate) fn copies(
    tables: &dyn Tables,
    after: Option<&CopyKey>,
    count_max: usize,
) -> Result<Vec<KeptCopy>> {
    let mut found = Vec::new();
    let mut from = after.map(CopyKey::behind).unwrap_or_default();
    while found.len() < count_max
        && let Some((copy, message)) = next_row(tables, &from)?
    {
        let blob = located(tables, &copy, &message)?;
        found.push(KeptCopy { blob, references: times(tables, &copy)? });
        from = copy.behind();
    }
    Ok(found)
}

/// How often messages name a copy.
fn times(tables: &dyn Tables, copy: &CopyKey) -> Result<u64> {
    let mut sum = 0_u64;
    tables.scan(Table::References, &copy.0, &mut |key, row| {
        if !key.starts_with(&copy.0) {
            return Ok(ControlFlow::Break(()));
        }
        sum = sum.saturating_add(decode::<u32>(row)?.into());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(sum)
}
