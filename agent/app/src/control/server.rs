//! The running agent's side.

use std::future::pending;
use std::io;

use lighter_protocol::{Mailbox, UnixTime};
use lighter_shell::control::{Connection, Limits, Listener};
use lighter_store::{Store, StoreError};
use tokio::sync::mpsc;

use super::{Answer, Question};
use crate::failure::Failure;
use crate::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_LINE_LEN_MAX};
use crate::shared::Handle;
use crate::views::{DeliveryRow, DeliveryState};
use crate::{acceptance, get, hosted, key, lookup, offers, remove, send, status};

/// Answers commands until the agent stops.
pub async fn run(shared: Handle, listener: Listener) {
    let limits = Limits {
        connections_max: CONTROL_CONNECTIONS_MAX,
        line_len_max: CONTROL_LINE_LEN_MAX,
        // A command may follow its message for as long as that is on its way.
        time_max: None,
    };
    listener.serve(limits, pending(), |connection| command(shared.clone(), connection)).await;
}

async fn command(shared: Handle, mut connection: Connection) -> io::Result<()> {
    while let Some(question) = connection.read::<Question>().await? {
        match answer(&shared, question, &mut connection).await {
            Ok(()) => {}
            Err(Told::Gone(error)) => return Err(error),
            Err(Told::Failed(failure)) => {
                let temporary = failure.is_temporary();
                connection.write(&Answer::Failed { message: failure.to_string(), temporary }).await?;
            }
        }
    }
    Ok(())
}

/// Why a question has no answer.
enum Told {
    /// The command is gone.
    Gone(io::Error),
    /// To be told to the command.
    Failed(Failure),
}

impl From<io::Error> for Told {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Told {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

async fn answer(shared: &Handle, question: Question, connection: &mut Connection) -> Result<(), Told> {
    let answer = match question {
        Question::Status(mailbox) => Answer::Status(Box::new(status::of_running(shared, mailbox).await?)),
        Question::List(mailbox) => return list(shared, mailbox, connection).await,
        Question::Blob(blob) => {
            let files = shared.blocking(move |store| store.files_of(blob)).await;
            match files {
                Ok(files) => Answer::Blob(Some(files)),
                Err(StoreError::NoBlob(_)) => Answer::Blob(None),
                Err(error) => return Err(error.into()),
            }
        }
        Question::Delivery(delivery, mailbox) => {
            let incoming = shared.blocking(move |store| store.incoming(delivery)).await?;
            let is_meant = |of: &lighter_store::Incoming| mailbox.is_none_or(|mailbox| of.mailbox == mailbox);
            let incoming = incoming.filter(is_meant);
            Answer::Parts(
                incoming.map(|incoming| {
                    (incoming.manifest.id, incoming.blobs.iter().map(|blob| blob.id).collect())
                }),
            )
        }
        Question::Lookup(mailbox) => Answer::Lookup(Box::new(lookup::ask(shared, mailbox).await?)),
        Question::Cancel(delivery, whole) => {
            Answer::Cancelled(Box::new(offers::cancel(shared, delivery, whole).await?))
        }
        Question::Places => Answer::Places(Box::new(get::places(shared).await?)),
        Question::Fetch(wish) => Answer::Fetched(get::fetch(shared, wish).await?),
        Question::Choose(change) => Answer::Chosen(Box::new(acceptance::change(shared, *change).await?)),
        Question::Limits(wish) => {
            let handle = shared.clone();
            let said = tokio::task::spawn_blocking(move || handle.guest.say(wish)).await;
            Answer::Limits(Box::new(said.map_err(Failure::failed)??))
        }
        Question::Remove(delivery) => {
            let removed = shared.blocking(move |store| remove::remove(store, delivery)).await?;
            shared.hosted.let_go();
            shared.guest.there_is_room();
            Answer::Removed(removed)
        }
        Question::Prefer(peer) => {
            let peer = peer.map(|peer| peer.parse()).transpose();
            let peer = peer.map_err(|_| Failure::wrong_use("that is no key of a store"))?;
            hosted::prefer(shared, peer).await?;
            Answer::End
        }
        Question::Confirm(peer) => {
            let peer = peer.parse().map_err(|_| Failure::wrong_use("that is no key of a store"))?;
            hosted::confirm(shared, peer).await?;
            Answer::End
        }
        Question::Key { rotate: false } => Answer::Key(Box::new(key::rotation::show(shared).await?)),
        Question::Key { rotate: true } => {
            let handle = shared.clone();
            // It is gone on with even when the command is gone.
            let rotated = tokio::spawn(async move { key::rotation::rotate(&handle).await });
            let view = rotated.await.map_err(Failure::failed)??;
            // Only then does this agent stop: who asked is answered.
            let told = connection.write(&Answer::Key(Box::new(view))).await;
            shared.key_changed.cancel();
            return Ok(told?);
        }
        Question::RemoveAll(mailbox) => return remove_all(shared, mailbox, connection).await,
        Question::Send(request) => return send(shared, *request, connection).await,
    };
    Ok(connection.write(&answer).await?)
}

async fn remove_all(shared: &Handle, mailbox: Mailbox, connection: &mut Connection) -> Result<(), Told> {
    if hosted::is_served(shared, &mailbox) {
        let why = format!("{mailbox} is served here: take it out at the location server first");
        return Err(Failure::failed(why).into());
    }
    let of = mailbox.clone();
    let all = shared.blocking(move |store| remove::all_of(store, &of)).await?;
    for delivery in all {
        let removed = shared.blocking(move |store| remove::whatever(store, delivery)).await?;
        shared.hosted.let_go();
        connection.write(&Answer::Removed(removed)).await?;
    }
    shared.guest.there_is_room();
    Ok(connection.write(&Answer::End).await?)
}

async fn list(shared: &Handle, mailbox: Option<Mailbox>, connection: &mut Connection) -> Result<(), Told> {
    let is_meant = |of: &Mailbox| mailbox.as_ref().is_none_or(|mailbox| of == mailbox);
    let mut all = shared.blocking(Store::all_incoming).await?;
    all.retain(|incoming| is_meant(&incoming.mailbox));
    let mut pulls = status::pulls(shared).await;
    let limits = shared.guest.view();
    let mut waits = shared.pulls.waits.all(UnixTime::now());
    waits.retain(|wait| is_meant(&wait.mailbox));
    for incoming in all.into_iter().rev() {
        let delivery = incoming.delivery;
        let mut row = shared
            .blocking(move |store| {
                let row = DeliveryRow::of(store, &incoming)?;
                let mut here = Vec::new();
                for part in &row.parts {
                    if store.holds(part.id)? {
                        here.push(part.id);
                    }
                }
                Ok::<_, StoreError>((row, here))
            })
            .await?;
        let is_on_its_way = matches!(row.0.state, DeliveryState::Offered | DeliveryState::Pulling);
        if let Some(at) = waits.iter().position(|wait| wait.delivery == delivery) {
            let wait = waits.remove(at);
            row.0.reason = row.0.reason.take().or_else(|| is_on_its_way.then(|| wait.words(&limits)));
        } else if is_on_its_way && shared.pulls.is_running(&delivery) {
            row.0.reason = limits.reason.as_ref().map(|reason| format!("waits: {reason}"));
        }
        if let Some(pull) = pulls.iter_mut().find(|pull| pull.delivery == delivery) {
            row.0.sources = std::mem::take(&mut pull.sources);
        }
        connection.write(&Answer::Delivery(Box::new(row.0), row.1)).await?;
    }
    // What is on record nowhere here: its holder keeps it.
    for wait in waits {
        connection.write(&Answer::Delivery(Box::new(wait.row(&limits)), Vec::new())).await?;
    }
    Ok(connection.write(&Answer::End).await?)
}

/// Sends; goes on with what was taken over even when the command is gone.
async fn send(shared: &Handle, request: send::SendRequest, connection: &mut Connection) -> Result<(), Told> {
    let (events, mut told) = mpsc::channel(send::EVENTS_MAX);
    let sending = tokio::spawn(send::run(shared.clone(), request, events));
    while let Some(event) = told.recv().await {
        connection.write(&Answer::Sending(event)).await?;
    }
    match sending.await {
        Ok(Ok(())) => Ok(connection.write(&Answer::End).await?),
        Ok(Err(failure)) => Err(failure.into()),
        Err(_) => Err(Failure::failed("the agent could not go on with this message: see its log").into()),
    }
}
