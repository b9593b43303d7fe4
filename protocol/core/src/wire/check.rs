//! What a message must be besides well-formed: every list counted, every size and range within [`crate::limits`].
//!
//! The codec calls this on the way in and on the way out. A refusal names the field, its place and what is wrong.

use std::collections::HashMap;
use std::fmt;

use super::{
    DropState, Get, GetBlobs, GetShared, NewDrop, Offer, OfferedBlob, Push, PushAnswer, PushPart, Request,
    Response, Sources,
};
use crate::BlobId;
use crate::limits::{
    BLOB_SIZE_MAX, GET_BLOBS_MAX, GET_RANGES_MAX, NAME_LEN_MAX, OFFER_BLOBS_MAX, PUSH_ANSWER_RANGES_MAX,
    PUSH_PARTS_MAX, SHARING_LEN_MAX, SHARINGS_MAX, SIGNATURE_LEN, SOURCES_MAX, STATEMENT_LEN_MAX,
    SUCCESSION_LEN_MAX, SUCCESSIONS_MAX,
};
use crate::signed::Signed;

/// Something with bounds beyond its encoding.
pub trait Check {
    /// Whether every bound holds.
    ///
    /// # Errors
    /// The first bound that does not.
    fn check(&self) -> Result<(), Invalid>;
}

/// A bound that does not hold: where, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What is wrong.
    pub kind: InvalidKind,
    /// The message's field, as `offer.blobs`.
    pub field: &'static str,
    /// The place in the list, from 0; 0 where the field is no list.
    pub index: usize,
}

/// Which bound does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKind {
    /// A list has more entries than allowed.
    #[error("too many entries")]
    TooMany,
    /// A list has fewer entries than it must.
    #[error("too few entries")]
    TooFew,
    /// A text or a statement is longer than allowed.
    #[error("too long")]
    TooLong,
    /// A size over [`BLOB_SIZE_MAX`].
    #[error("size over the limit")]
    TooLarge,
    /// One blob with two sizes.
    #[error("the same blob with another size")]
    SizeConflict,
    /// A range that holds nothing, or ends before it starts.
    #[error("empty range")]
    EmptyRange,
    /// A range that starts before the one in front of it ends.
    #[error("ranges unsorted or overlapping")]
    RangeOrder,
    /// A range that ends beyond the largest blob.
    #[error("range beyond the largest blob")]
    RangeBeyond,
}

impl Invalid {
    pub(crate) fn new(kind: InvalidKind, field: &'static str, index: usize) -> Self {
        Self { kind, field, index }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.field, self.index, self.kind)
    }
}

impl std::error::Error for Invalid {}

impl Check for Request {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Ping | Self::Have(_) | Self::Here(_) | Self::DropState(_) => Ok(()),
            Self::Offer(offer) | Self::PushOffer(offer) => offer.check(),
            Self::Push(push) => push.check(),
            Self::Get(get) => get.check(),
            Self::Receipt(receipt) => signed(receipt, "receipt"),
            Self::Waiting(waiting) => signed(&waiting.attestation, "waiting.attestation"),
            Self::Meet(meet) => signed(&meet.introduction, "meet.introduction"),
            Self::Knock(knock) => signed(&knock.introduction, "knock.introduction"),
            Self::Drop(new) => new.check(),
            Self::Sources(sources) => sources.check(),
            Self::GetShared(get) => get.check(),
            Self::GetBlobs(get) => get.check(),
            Self::Succession(successions) => {
                if successions.is_empty() {
                    return Err(Invalid::new(InvalidKind::TooFew, "successions", 0));
                }
                count(successions.len(), SUCCESSIONS_MAX, "successions")?;
                let mut all = successions.iter().enumerate();
                all.try_for_each(|(index, one)| short(one, SUCCESSION_LEN_MAX, "successions", index))
            }
        }
    }
}

impl Check for Response {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Answer(answers) => count(answers.len(), OFFER_BLOBS_MAX, "answer"),
            Self::Data { size } => within(*size, "data.size", 0),
            Self::DropState(DropState::Receipted(receipt)) => signed(receipt, "drop-state.receipt"),
            Self::PushAnswer(answer) => answer.check(),
            Self::Pong
            | Self::Pushed
            | Self::Noted
            | Self::Have(_)
            | Self::Released
            | Self::Waiting(_)
            | Self::Refused
            | Self::Later(_)
            | Self::Met(_)
            | Self::Coming
            | Self::Dropped(_)
            | Self::DropState(DropState::Waiting | DropState::Expired) => Ok(()),
        }
    }
}

impl Check for Offer {
    fn check(&self) -> Result<(), Invalid> {
        blob(&self.manifest, "offer.manifest", 0)?;
        count(self.blobs.len(), OFFER_BLOBS_MAX, "offer.blobs")?;
        let mut sizes: HashMap<BlobId, u64> = HashMap::from([(self.manifest.id, self.manifest.size)]);
        for (index, offered) in self.blobs.iter().enumerate() {
            blob(offered, "offer.blobs", index)?;
            if *sizes.entry(offered.id).or_insert(offered.size) != offered.size {
                return Err(Invalid::new(InvalidKind::SizeConflict, "offer.blobs", index));
            }
        }
        count(self.sources.len(), SOURCES_MAX, "offer.sources")?;
        self.introduction.as_ref().map_or(Ok(()), |statement| signed(statement, "offer.introduction"))
    }
}

impl Check for NewDrop {
    fn check(&self) -> Result<(), Invalid> {
        within(self.envelope.size, "drop.envelope", 0)?;
        count(self.blobs.len(), OFFER_BLOBS_MAX, "drop.blobs")?;
        let mut sizes: HashMap<BlobId, u64> = HashMap::from([(self.envelope.id, self.envelope.size)]);
        for (index, sealed) in self.blobs.iter().enumerate() {
            within(sealed.size, "drop.blobs", index)?;
            if *sizes.entry(sealed.id).or_insert(sealed.size) != sealed.size {
                return Err(Invalid::new(InvalidKind::SizeConflict, "drop.blobs", index));
            }
        }
        signed(&self.introduction, "drop.introduction")
    }
}

impl Check for Get {
    fn check(&self) -> Result<(), Invalid> {
        count(self.ranges.len(), GET_RANGES_MAX, "get.ranges")?;
        ranges(&self.ranges, "get.ranges")?;
        self.attestation.as_ref().map_or(Ok(()), |statement| signed(statement, "get.attestation"))
    }
}

impl Check for GetBlobs {
    fn check(&self) -> Result<(), Invalid> {
        if self.blobs.is_empty() {
            return Err(Invalid::new(InvalidKind::TooFew, "get-blobs.blobs", 0));
        }
        count(self.blobs.len(), GET_BLOBS_MAX, "get-blobs.blobs")?;
        self.attestation.as_ref().map_or(Ok(()), |statement| signed(statement, "get-blobs.attestation"))
    }
}

impl Check for GetShared {
    fn check(&self) -> Result<(), Invalid> {
        self.get.check()?;
        short(&self.sharing, SHARING_LEN_MAX, "get-shared.sharing", 0)
    }
}

impl Check for Sources {
    fn check(&self) -> Result<(), Invalid> {
        if self.sharings.is_empty() {
            return Err(Invalid::new(InvalidKind::TooFew, "sources.sharings", 0));
        }
        count(self.sharings.len(), SHARINGS_MAX, "sources.sharings")?;
        let mut sharings = self.sharings.iter().enumerate();
        sharings.try_for_each(|(index, one)| short(one, SHARING_LEN_MAX, "sources.sharings", index))
    }
}

impl Check for PushAnswer {
    fn check(&self) -> Result<(), Invalid> {
        count(self.answers.len(), OFFER_BLOBS_MAX, "push-answer.answers")?;
        count(self.wanted.len(), OFFER_BLOBS_MAX + 1, "push-answer.wanted")?;
        parts(&self.wanted, PUSH_ANSWER_RANGES_MAX, "push-answer.wanted")
    }
}

impl Check for Push {
    fn check(&self) -> Result<(), Invalid> {
        if self.parts.is_empty() {
            return Err(Invalid::new(InvalidKind::TooFew, "push.parts", 0));
        }
        count(self.parts.len(), PUSH_PARTS_MAX, "push.parts")?;
        parts(&self.parts, GET_RANGES_MAX, "push.parts")
    }
}

/// Parts of a push: some ranges of each, so many in all.
fn parts(parts: &[PushPart], ranges_max: usize, field: &'static str) -> Result<(), Invalid> {
    let mut left = ranges_max;
    for (index, part) in parts.iter().enumerate() {
        if part.ranges.is_empty() {
            return Err(Invalid::new(InvalidKind::EmptyRange, field, index));
        }
        left = left.checked_sub(part.ranges.len()).ok_or(Invalid::new(InvalidKind::TooMany, field, index))?;
        ranges(&part.ranges, field)?;
    }
    Ok(())
}

/// Ranges that ascend, none empty, none beyond the largest blob.
fn ranges(ranges: &[(u64, u64)], field: &'static str) -> Result<(), Invalid> {
    let mut end_before = 0;
    for (index, &(start, end)) in ranges.iter().enumerate() {
        let fault = if start >= end {
            InvalidKind::EmptyRange
        } else if start < end_before {
            InvalidKind::RangeOrder
        } else if end > BLOB_SIZE_MAX {
            InvalidKind::RangeBeyond
        } else {
            end_before = end;
            continue;
        };
        return Err(Invalid::new(fault, field, index));
    }
    Ok(())
}

fn blob(blob: &OfferedBlob, field: &'static str, index: usize) -> Result<(), Invalid> {
    within(blob.size, field, index)?;
    if blob.name.len() > NAME_LEN_MAX || blob.media_type.len() > NAME_LEN_MAX {
        return Err(Invalid::new(InvalidKind::TooLong, field, index));
    }
    Ok(())
}

fn within(size: u64, field: &'static str, index: usize) -> Result<(), Invalid> {
    if size > BLOB_SIZE_MAX { Err(Invalid::new(InvalidKind::TooLarge, field, index)) } else { Ok(()) }
}

fn count(len: usize, max: usize, field: &'static str) -> Result<(), Invalid> {
    if len > max { Err(Invalid::new(InvalidKind::TooMany, field, max)) } else { Ok(()) }
}

/// A statement of a kind that is short, so that many of them fit.
fn short<T>(statement: &Signed<T>, len_max: usize, field: &'static str, index: usize) -> Result<(), Invalid> {
    let (payload, signature) = statement.lens();
    if payload > len_max || signature > SIGNATURE_LEN {
        return Err(Invalid::new(InvalidKind::TooLong, field, index));
    }
    Ok(())
}

fn signed<T>(statement: &Signed<T>, field: &'static str) -> Result<(), Invalid> {
    short(statement, STATEMENT_LEN_MAX, field, 0)
}
