//! What only an agent on the network can do for `get`: say where an attachment may be, and fetch it from the mailbox's
//! store on another machine (SPEC A21, A24).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use lighter_transport::location::StoreRecord;
use lighter_transport::pull::{Piece, Pull, PullError, VerifiedSink};
use serde::{Deserialize, Serialize};

use super::Wish;
use crate::failure::Failure;
use crate::guest;
use crate::shared::Handle;
use crate::views::LookedUp;
use crate::{lookup, ways};

/// Where an attachment can be, besides the store on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Places {
    /// The own relays' retrieval URLs, as the attestation names them.
    pub(crate) retrieval: Vec<String>,
    /// Certificates to trust for them instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// The mailbox's store that the location server names, where that is another one than this agent's: it names one
    /// that is online, where there is one.
    pub(crate) store: Option<LookedUp>,
    /// Whether this agent's store is a further one of its mailbox: then there is another one, online or not.
    pub(crate) is_further: bool,
}

impl Places {
    /// Whether the store on another machine answers.
    pub(super) fn store_answers(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.answers)
    }

    /// What is known of the store on another machine, in a sentence.
    pub(super) fn elsewhere(&self) -> String {
        match &self.store {
            Some(store) if store.answers => {
                format!("Your store {} answers, and does not give it.", store.peer)
            }
            Some(store) => format!("Your store {} may have it: it is {} now.", store.peer, store.presence),
            None if self.is_further => "Your other store may have it: it is offline now.".to_owned(),
            None => "This mailbox has no other store that is known here.".to_owned(),
        }
    }
}

/// Looks where an attachment can be.
///
/// # Errors
/// Where the location server never attested this agent, so that nobody's word counts.
pub(crate) async fn places(shared: &Handle) -> Result<Places, Failure> {
    if shared.attested().is_none() {
        lookup::session(shared).await?;
    }
    let attestation = shared.attested().map(|attested| attested.attestation);
    let is_further = attestation.as_ref().is_some_and(|attestation| !attestation.primary);
    let relays = attestation.map(|attestation| attestation.relays).unwrap_or_default();
    let store = match other_store(shared).await {
        Some(store) => Some(lookup::looked_up(shared, shared.mailbox(), store).await),
        None => None,
    };
    Ok(Places {
        retrieval: relays
            .into_iter()
            .filter(|relay| !relay.is_only_helper())
            .map(|relay| relay.retrieval_url)
            .collect(),
        ca_file: shared.config.location.ca_file.clone(),
        store,
        is_further,
    })
}

/// The mailbox's store, where that is another one; none where nobody can be asked.
async fn other_store(shared: &Handle) -> Option<StoreRecord> {
    let session = shared.session()?;
    let found = shared.location.lookup_one(&session, shared.mailbox()).await;
    let found = found.inspect_err(|error| tracing::warn!(%error, "the own mailbox cannot be looked up"));
    found.ok().flatten().filter(|store| store.peer != shared.identity.peer())
}

/// Fetches from the mailbox's store on another machine; false where it does not give it. What is in the file then is
/// of no use.
///
/// # Errors
/// Where the file cannot be opened.
pub(crate) async fn fetch(shared: &Handle, wish: Wish) -> Result<bool, Failure> {
    let Wish { delivery, blob, size, into } = wish;
    let file = OpenOptions::new().write(true).open(&into);
    let file = file.map_err(|error| Failure::failed(error).when(into.display()))?;
    let (Some(store), Some(attested)) = (other_store(shared).await, shared.attested()) else {
        return Ok(false);
    };
    let Ok(reached) = ways::reach(shared, shared.mailbox(), shared.mailbox(), &store).await else {
        return Ok(false);
    };
    let connection = reached.connection;
    let turns = shared.guest.down.transfer(guest::asked(delivery));
    if turns.is_held() {
        return Err(Failure::temporary("everything is paused: `lighter-agent resume` ends that"));
    }
    let attestation = Some(attested.signed);
    let pull = Pull { attestation, turns: Some(turns), ..Pull::of(delivery, blob, size) };
    let pulled = connection.pull(&pull, &Arc::new(FileSink(Arc::new(file)))).await;
    connection.close();
    match pulled {
        Ok(_) => Ok(true),
        Err(PullError::Refused) => Ok(false),
        Err(error) => {
            tracing::warn!(%blob, store = %store.peer, %error, "the store on another machine gave it not or not all");
            Ok(false)
        }
    }
}

/// Writes verified pieces where they belong.
struct FileSink(Arc<File>);

impl VerifiedSink for FileSink {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let file = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || file.write_all_at(&piece.bytes, piece.offset));
        written.await.map_err(io::Error::other)?
    }
}
