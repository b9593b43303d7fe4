//! How a command speaks to the agent that runs: one JSON line as the question, JSON lines as the answer, over a Unix
//! socket in the data folder that only its owner can open. A running agent owns the store (redb is for one process).

mod client;
mod server;

use lighter_protocol::{BlobId, DeliveryId, Mailbox};
use lighter_store::BlobFiles;
use lighter_transport::location::api::AcceptanceChange;
use serde::{Deserialize, Serialize};

pub use client::Client;
pub use server::run;

use crate::acceptance::AcceptanceView;
use crate::get::Places;
use crate::guest::by_hand::Wish;
use crate::guest::view::GuestView;
use crate::key::KeyView;
use crate::send::{SendEvent, SendRequest};
use crate::views::{Cancelled, Lookup, Removed, Status};

/// What a command asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// How things stand; of one mailbox as well, where this is the store of many.
    Status(Option<Mailbox>),
    /// What is in the store, or in it for one mailbox: one `Answer::Delivery` each, then `Answer::End`.
    List(Option<Mailbox>),
    /// Where a complete blob's file is.
    Blob(BlobId),
    /// A delivery's manifest and attachments; where a mailbox is named, only of one that is for it.
    Delivery(DeliveryId, Option<Mailbox>),
    /// What the location server says of a mailbox.
    Lookup(Mailbox),
    /// Where attachments can be, besides the store on this machine.
    Places,
    /// Fetch an attachment from the mailbox's store on another machine.
    Fetch(crate::get::Wish),
    /// Give up a delivery that waits; whether its message goes whole by mail instead.
    Cancel(DeliveryId, bool),
    /// Change who learns of the store, or nothing; and what is chosen then.
    Choose(Box<AcceptanceChange>),
    /// Send a message: `Answer::Sending` until `Answer::End`.
    Send(Box<SendRequest>),
    /// What the user says by hand of limits, or nothing; and what holds then.
    Limits(Wish),
    /// Let go of a delivery that is here.
    Remove(DeliveryId),
    /// Let go of everything that is here for a mailbox that is served no more: one `Answer::Removed` each, then `Answer::End`.
    RemoveAll(Mailbox),
    /// Say which of the mailbox's stores is the primary one: the one with this key, or this agent's.
    Prefer(Option<String>),
    /// Say that the store with this key is the mailbox's.
    Confirm(String),
    /// The key, and those of before; changed first, where that is asked for.
    Key {
        /// Whether.
        rotate: bool,
    },
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Status(Box<Status>),
    /// One delivery of the list, and which of its attachments are here as a whole.
    Delivery(Box<crate::views::DeliveryRow>, Vec<BlobId>),
    /// Where it lies; none where it is not here.
    Blob(Option<BlobFiles>),
    /// The manifest, and the attachments; none where the delivery is not known.
    Parts(Option<(BlobId, Vec<BlobId>)>),
    Lookup(Box<Lookup>),
    Cancelled(Box<Cancelled>),
    Places(Box<Places>),
    Chosen(Box<AcceptanceView>),
    /// Whether it was to be had.
    Fetched(bool),
    Sending(SendEvent),
    /// Nothing more comes.
    End,
    /// It did not work; `temporary`: trying again may help.
    Failed {
        message: String,
        temporary: bool,
    },
    Limits(Box<GuestView>),
    Removed(Removed),
    Key(Box<KeyView>),
}
