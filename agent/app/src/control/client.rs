//! The command's side.

use std::io;
use std::path::Path;

use lighter_protocol::{BlobId, DeliveryId, Mailbox};
use lighter_shell::control::{Connection, is_nobody};
use lighter_store::BlobFiles;
use lighter_transport::location::api::AcceptanceChange;

use super::{Answer, Question};
use crate::acceptance::AcceptanceView;
use crate::failure::Failure;
use crate::get::{Places, Wish};
use crate::guest::by_hand;
use crate::guest::view::GuestView;
use crate::key::KeyView;
use crate::limits::CONTROL_LINE_LEN_MAX;
use crate::send::{SendEvent, SendRequest};
use crate::views::{Cancelled, List, Lookup, Removed, Status};

/// A connection to the agent that runs.
#[derive(Debug)]
pub struct Client(Connection);

impl Client {
    /// Connects; none where no agent runs.
    ///
    /// # Errors
    /// What the system says else.
    pub async fn connect(path: &Path) -> io::Result<Option<Self>> {
        match Connection::open(path, CONTROL_LINE_LEN_MAX).await {
            Ok(connection) => Ok(Some(Self(connection))),
            Err(error) if is_nobody(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How things stand.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn status(&mut self, mailbox: Option<Mailbox>) -> Result<Status, Failure> {
        match self.ask(&Question::Status(mailbox)).await? {
            Answer::Status(status) => Ok(*status),
            _ => Err(unexpected()),
        }
    }

    /// The key, and those of before; changed first, where that is asked for.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn key(&mut self, rotate: bool) -> Result<KeyView, Failure> {
        match self.ask(&Question::Key { rotate }).await? {
            Answer::Key(view) => Ok(*view),
            _ => Err(unexpected()),
        }
    }

    /// What is in the store, or in it for one mailbox.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn list(&mut self, mailbox: Option<Mailbox>) -> Result<List, Failure> {
        let mut list = List::default();
        let mut seen = std::collections::HashSet::new();
        let mut answer = self.ask(&Question::List(mailbox)).await?;
        loop {
            match answer {
                Answer::Delivery(delivery, here) => {
                    for part in &delivery.parts {
                        if here.contains(&part.id) && seen.insert(part.id) {
                            list.blobs.push(part.clone());
                        }
                    }
                    list.deliveries.push(*delivery);
                }
                Answer::End => return Ok(list),
                _ => return Err(unexpected()),
            }
            answer = self.next().await?;
        }
    }

    /// Where a complete blob lies.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn blob(&mut self, blob: BlobId) -> Result<Option<BlobFiles>, Failure> {
        match self.ask(&Question::Blob(blob)).await? {
            Answer::Blob(file) => Ok(file),
            _ => Err(unexpected()),
        }
    }

    /// A delivery's manifest and attachments; none where it is not for `mailbox`.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn delivery(
        &mut self,
        delivery: DeliveryId,
        mailbox: Option<Mailbox>,
    ) -> Result<Option<(BlobId, Vec<BlobId>)>, Failure> {
        match self.ask(&Question::Delivery(delivery, mailbox)).await? {
            Answer::Parts(parts) => Ok(parts),
            _ => Err(unexpected()),
        }
    }

    /// What the location server says of a mailbox.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn lookup(&mut self, mailbox: Mailbox) -> Result<Lookup, Failure> {
        match self.ask(&Question::Lookup(mailbox)).await? {
            Answer::Lookup(lookup) => Ok(*lookup),
            _ => Err(unexpected()),
        }
    }

    /// Changes who learns of the store, and gives all that is chosen.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn choose(&mut self, change: AcceptanceChange) -> Result<AcceptanceView, Failure> {
        match self.ask(&Question::Choose(Box::new(change))).await? {
            Answer::Chosen(chosen) => Ok(*chosen),
            _ => Err(unexpected()),
        }
    }

    /// Gives up a delivery that waits.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub(crate) async fn cancel(&mut self, delivery: DeliveryId, whole: bool) -> Result<Cancelled, Failure> {
        match self.ask(&Question::Cancel(delivery, whole)).await? {
            Answer::Cancelled(cancelled) => Ok(*cancelled),
            _ => Err(unexpected()),
        }
    }

    /// Where attachments can be, besides the store on this machine.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub(crate) async fn places(&mut self) -> Result<Places, Failure> {
        match self.ask(&Question::Places).await? {
            Answer::Places(places) => Ok(*places),
            _ => Err(unexpected()),
        }
    }

    /// Fetches from the mailbox's store on another machine; false where it does not give it.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub(crate) async fn fetch(&mut self, wish: Wish) -> Result<bool, Failure> {
        match self.ask(&Question::Fetch(wish)).await? {
            Answer::Fetched(fetched) => Ok(fetched),
            _ => Err(unexpected()),
        }
    }

    /// Says something by hand of limits, and gives what holds then.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn limits(&mut self, wish: by_hand::Wish) -> Result<GuestView, Failure> {
        match self.ask(&Question::Limits(wish)).await? {
            Answer::Limits(limits) => Ok(*limits),
            _ => Err(unexpected()),
        }
    }

    /// Lets go of a delivery that is here.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn remove(&mut self, delivery: DeliveryId) -> Result<Removed, Failure> {
        match self.ask(&Question::Remove(delivery)).await? {
            Answer::Removed(removed) => Ok(removed),
            _ => Err(unexpected()),
        }
    }

    /// Says which of the mailbox's stores is the primary one.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn prefer(&mut self, peer: Option<String>) -> Result<(), Failure> {
        match self.ask(&Question::Prefer(peer)).await? {
            Answer::End => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Says that the store with this key is the mailbox's.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn confirm(&mut self, peer: String) -> Result<(), Failure> {
        match self.ask(&Question::Confirm(peer)).await? {
            Answer::End => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Lets go of everything that is here for a mailbox that is served no more.
    ///
    /// # Errors
    /// What the agent says, or that it is gone.
    pub async fn remove_all(
        &mut self,
        mailbox: Mailbox,
        mut follow: impl FnMut(Removed) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut answer = self.ask(&Question::RemoveAll(mailbox)).await?;
        loop {
            match answer {
                Answer::Removed(removed) => follow(removed)?,
                Answer::End => return Ok(()),
                _ => return Err(unexpected()),
            }
            answer = self.next().await?;
        }
    }

    /// Sends a message; `follow` is told what happens.
    ///
    /// # Errors
    /// What the agent says, or that it is gone: then what it had taken over it goes on with when it runs again.
    pub async fn send(
        &mut self,
        request: SendRequest,
        mut follow: impl FnMut(SendEvent),
    ) -> Result<(), Failure> {
        let mut answer = self.ask(&Question::Send(Box::new(request))).await?;
        loop {
            match answer {
                Answer::Sending(event) => follow(event),
                Answer::End => return Ok(()),
                _ => return Err(unexpected()),
            }
            answer = self.next().await?;
        }
    }

    async fn ask(&mut self, question: &Question) -> Result<Answer, Failure> {
        self.0.write(question).await.map_err(gone)?;
        self.next().await
    }

    async fn next(&mut self) -> Result<Answer, Failure> {
        match self.0.read().await.map_err(gone)? {
            Some(Answer::Failed { message, temporary: true }) => Err(Failure::temporary(message)),
            Some(Answer::Failed { message, temporary: false }) => Err(Failure::failed(message)),
            Some(answer) => Ok(answer),
            None => Err(Failure::temporary("the running agent went away")),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn gone(error: io::Error) -> Failure {
    Failure::temporary(format!("the running agent cannot be spoken to: {error}"))
}

fn unexpected() -> Failure {
    Failure::failed("the running agent is of another version: restart it")
}
