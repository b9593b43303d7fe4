//! What the machine says and is told: commands for the shell, ends of streams and of the pull.

use std::time::Instant;

use crate::blob::RangeSet;
use crate::wire::{Answer, PushPart};
use crate::{BlobId, DeliveryId, Mailbox, PeerId, Receipt, Signed};

#[cfg(doc)]
use super::Pull;

/// A range stream of this pull, numbered as they are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answer the offer that `to` made.
    Answer {
        /// Who offered.
        to: PeerId,
        /// One for each of the offer's blobs.
        answers: Vec<Answer>,
    },
    /// Answer the offer that `to` made: it is to push `wanted`, in streams that [`Pull::handle_push`] is told of.
    PushAnswer {
        /// Who offered.
        to: PeerId,
        /// One for each of the offer's blobs.
        answers: Vec<Answer>,
        /// What is missing, the manifest first.
        wanted: Vec<PushPart>,
    },
    /// Read this blob again from disk and hash it, then call [`Pull::handle_reread`].
    Reread {
        /// Which.
        blob: BlobId,
        /// Its size, as offered: another one on disk is a failure.
        size: u64,
    },
    /// Open a stream and ask for these ranges. Verify what comes against the blob's id and `size`, write it, and call
    /// [`Pull::handle_verified`]; at its end [`Pull::handle_end`].
    Get {
        /// The stream's name from here on.
        stream: StreamId,
        /// Whom to ask.
        from: PeerId,
        /// Which blob.
        blob: BlobId,
        /// Its size, as offered: a [`crate::wire::Response::Data`] that says another is [`StreamEnd::Wrong`].
        size: u64,
        /// What to ask for: at most [`crate::limits::GET_RANGES_MAX`] ranges, whole groups.
        ranges: RangeSet,
    },
    /// Stop this stream, and call [`Pull::handle_end`] with [`StreamEnd::Left`] once all that it brought was told.
    Leave {
        /// Which.
        stream: StreamId,
    },
    /// All that this stream is still wanted for is here: stop it, whatever is on its way, and call
    /// [`Pull::handle_end`] with [`StreamEnd::Left`].
    Enough {
        /// Which.
        stream: StreamId,
    },
    /// Call [`Pull::handle_time`] then.
    Wait(Instant),
    /// All blobs are whole: sync data, index and directories; then sign the receipt, keep it durably, and call
    /// [`Pull::handle_receipted`].
    SyncThenReceipt {
        /// For the receipt.
        delivery: DeliveryId,
        /// For the receipt.
        mailbox: Mailbox,
        /// For the receipt.
        manifest: BlobId,
    },
    /// Send the receipt to this holder, and hand its answer to [`Pull::handle_released`] or [`Pull::handle_lost`].
    SendReceipt {
        /// Who holds the blobs.
        to: PeerId,
        /// What to send.
        receipt: Box<Signed<Receipt>>,
    },
    /// The pull is over: forget it.
    Stop(Stop),
}

/// A part of a push that is taken: verify what comes against the blob's id and `size`, write it, and call
/// [`Pull::handle_verified`]; at its end [`Pull::handle_end`], for this part and in order for those behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedStream {
    /// The part's name from here on.
    pub stream: StreamId,
    /// Which blob.
    pub blob: BlobId,
    /// Its size, as offered.
    pub size: u64,
    /// What comes of it: whole groups.
    pub ranges: RangeSet,
}

/// Why a push is not taken: for the log. The holder hears [`crate::wire::Response::Later`], and is asked instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Nothing is pulled any more.
    #[error("nothing is missing, or the pull is over")]
    Over,
    /// It is not what this holder was told to push, or it is asked for by now.
    #[error("not what it was to push")]
    NotPromised,
}

/// Why a pull is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Every holder has let go.
    #[error("receipted and released")]
    Done,
    /// Nothing of it is pulled: see the answers.
    #[error("nothing is pulled")]
    Declined,
    /// All sources are gone; the next offer goes on where this one stopped.
    #[error("no source is left")]
    NoSource,
    /// What was to be pulled is here; the rest was answered `Later`.
    #[error("a part is here, the rest is for later")]
    Part,
    /// The receipt is on disk; the holder did not hear of it, and will offer again.
    #[error("receipted, but the holder does not know")]
    Unheard,
}

/// How a range stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamEnd {
    /// As it should, or broken: what it brought counts.
    Over,
    /// Given up here: its rest is asked for elsewhere, or on another connection where the source offers now. What it
    /// brought counts, and that it brought nothing does not.
    Left,
    /// The source said [`crate::wire::Response::Refused`].
    Refused,
    /// The source said [`crate::wire::Response::Later`], after so many seconds.
    Later(u32),
    /// Next to nothing came for too long: other sources are asked, and this one again only when nobody else is left.
    Slow,
    /// Bytes that do not verify, a size that is not the offer's, too many bytes: the source is not asked again.
    Wrong,
}
