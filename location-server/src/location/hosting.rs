//! Hosted stores: which mailboxes they are the store of, and what they say of them (SPEC A29).
//!
//! A hosted store enrols, registers and pings for a mailbox of its own, as any store does. Because the configuration names
//! its key, its session is also told of the mailboxes that it hosts, with an attestation for each, and takes them on. From
//! then on each ping covers all of them.

use std::collections::BTreeSet;
use std::time::Duration;

use lighter_protocol::time::Now;
use lighter_protocol::{Mailbox, PeerId, SealingKey, Signed};
use lighter_transport::location::Presence;
use lighter_transport::location::api::{Acceptance, HostedMailbox, HostingAnswer, PrimaryRequest};
use lighter_transport::location::limits::{HOSTED_KEYS_MAX, HOSTED_PAGE_MAX};

use super::{Location, is_confirmed, presence_events};
use crate::directory::StoreId;
use crate::directory::hosting::Rehosted;
use crate::error::CallError;
use crate::hosted_files::{self, Looks};
use crate::limits::HOSTED_LOOK_INTERVAL;
use crate::lock::{read, write};
use crate::policy::Choice;
use crate::rows::{StoreKey, TokenHash};
use crate::sessions::Session;

impl Location {
    /// A page of the mailboxes that the session's store hosts: those behind `after`.
    ///
    /// # Errors
    /// [`CallError::Refused`] where it hosts none, or is itself not confirmed.
    pub fn hosting(
        &self,
        token: &TokenHash,
        after: Option<&Mailbox>,
        now: Now,
    ) -> Result<HostingAnswer, CallError> {
        let session = self.session(token, now)?;
        let directory = read(&self.directory);
        let group = hosts(&directory, &session, now)?;
        let mut members = directory.members(group, after);
        let mut mailboxes = Vec::new();
        for store in members.by_ref().take(HOSTED_PAGE_MAX) {
            let (attestation, _) = self.sign_attestation(&directory, store, now)?;
            mailboxes.push(HostedMailbox { attestation, registered: store.sealing_key.is_some() });
        }
        let more = members.next().is_some();
        drop(members);
        Ok(HostingAnswer { state: self.hosting_state(&directory, group, now), mailboxes, more })
    }

    /// The session's store takes mailboxes on; they are online from here on.
    ///
    /// # Errors
    /// [`CallError::Refused`] where one is not its own, or a sealing key does not count: then nothing is changed.
    pub async fn register_hosted(
        &self,
        token: &TokenHash,
        sealing_keys: Vec<Signed<SealingKey>>,
        now: Now,
    ) -> Result<(), CallError> {
        if sealing_keys.len() > HOSTED_KEYS_MAX {
            return Err(CallError::Malformed("at most 500 sealing keys at once"));
        }
        let session = self.session(token, now)?;
        let group = hosts(&read(&self.directory), &session, now)?;
        let verify = |signed: Signed<SealingKey>| {
            let claim = signed.claim().map_err(|_| CallError::Refused)?;
            let key =
                SealingKey::verify(&signed, &claim.mailbox, now.wall).map_err(|_| CallError::Refused)?;
            Ok::<_, CallError>((key, signed))
        };
        let sealing_keys = sealing_keys.into_iter().map(verify).collect::<Result<Vec<_>, _>>()?;
        let taken_on = self
            .writer
            .write(move |directory, changes| directory.register_hosted(group, sealing_keys, changes))
            .await?;
        let directory = read(&self.directory);
        let mut live = write(&self.live);
        if !live.sessions.set_serving(token) {
            return Err(CallError::Unauthorised);
        }
        let (before, _) = live.presences.get(group);
        live.presences.handle_ping(group, now);
        self.publish_all(&directory, &mut live);
        if before == Presence::Online {
            // The others were told of before, or just now.
            self.tell(presence_events(&taken_on, Presence::Online));
        }
        // However many deadlines there were before: this costs nothing.
        self.deadline_set.notify_one();
        Ok(())
    }

    /// What a user has chosen whose only store is the session's hosted one.
    ///
    /// # Errors
    /// [`CallError::Refused`] where it is not.
    pub fn hosted_acceptance(
        &self,
        token: &TokenHash,
        mailbox: &Mailbox,
        now: Now,
    ) -> Result<Acceptance, CallError> {
        let session = self.session(token, now)?;
        self.speaks_for_hosted(&session, mailbox, now).ok_or(CallError::Refused)?;
        let directory = read(&self.directory);
        Ok(directory.choice(mailbox).map(Choice::to_acceptance).unwrap_or_default())
    }

    /// The user of the session's mailbox says which store is the primary one.
    ///
    /// # Errors
    /// [`CallError::Refused`].
    pub async fn prefer(
        &self,
        token: &TokenHash,
        request: PrimaryRequest,
        now: Now,
    ) -> Result<(), CallError> {
        let by = self.session(token, now)?.store;
        let peer = request.peer;
        self.writer.write(move |directory, changes| directory.prefer(by, &peer, now.wall, changes)).await?;
        tracing::info!(%peer, "a user said which store is primary");
        Ok(())
    }

    /// The entry of `mailbox`, where the session's store hosts it and nobody else speaks for the user: they have no store of
    /// their own.
    pub(super) fn speaks_for_hosted(
        &self,
        session: &Session,
        mailbox: &Mailbox,
        now: Now,
    ) -> Option<StoreId> {
        let directory = read(&self.directory);
        let group = hosts(&directory, session, now).ok()?;
        let member = directory.member(group, mailbox)?;
        (!directory.has_enrolled(mailbox)).then_some(member)
    }

    /// What a hosted store is told with each ping: another text whenever what it knows of its mailboxes is not all that is
    /// to be said. It is another one after a restart, too.
    pub(super) fn hosting_state(
        &self,
        directory: &crate::directory::Directory,
        group: StoreId,
        now: Now,
    ) -> String {
        let (relays, relays_version) = directory.relays();
        let mut hash = blake3::Hasher::new();
        hash.update(&self.started_as);
        hash.update(&directory.hosting_version(group, now.wall).to_le_bytes());
        hash.update(&relays_version.to_le_bytes());
        hash.update(&(self.helpers(relays).len() as u64).to_le_bytes());
        hash.update(&self.signing(now.wall).peer().to_bytes());
        hash.finalize().to_hex()[..16].to_owned()
    }

    /// Reads the files that name hosted stores' mailboxes again when they change, until [`Location::stop`].
    pub async fn watch_hosted(&self) {
        let mut read_at: Vec<Looks> = self.config.hosted.iter().map(hosted_files::looks).collect();
        let mut seen = read_at.clone();
        if self.config.hosted.iter().all(|hosted| hosted.files.is_empty()) {
            return;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(HOSTED_LOOK_INTERVAL) => {}
                () = self.stopping.cancelled() => return,
            }
            let looks: Vec<Looks> = self.config.hosted.iter().map(hosted_files::looks).collect();
            // Who writes a file is given the time to end.
            let is_still = looks == seen;
            seen = looks;
            if is_still && seen != read_at {
                read_at.clone_from(&seen);
                self.rehost().await;
            }
        }
    }

    async fn rehost(&self) {
        let (configs, domains) = (self.config.hosted.clone(), self.config.domains.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let read = |config| Ok((config, hosted_files::mailboxes(config, &domains)?));
            let all = configs.iter().map(read).collect::<Result<Vec<_>, hosted_files::HostedFileError>>()?;
            Ok::<_, hosted_files::HostedFileError>(
                all.into_iter().map(|(config, mailboxes)| (config.peer, mailboxes)).collect::<Vec<_>>(),
            )
        });
        let stores = match reading.await {
            Ok(Ok(stores)) => {
                self.metrics.hosted_files_unusable.set(0);
                stores
            }
            Ok(Err(error)) => {
                self.metrics.hosted_files_unusable.set(1);
                tracing::warn!(%error, "hosted stores keep the mailboxes that they have");
                return;
            }
            Err(_) => return,
        };
        let write = self.writer.write(move |directory, changes| Ok(set_all(directory, &stores, changes)));
        match write.await {
            Ok(rehosted) => {
                say(&rehosted);
                self.tell(presence_events(&rehosted.removed, Presence::Offline));
            }
            Err(error) => tracing::warn!(%error, "hosted stores keep the mailboxes that they have"),
        }
    }
}

/// Sets all hosted stores. Twice, where a mailbox may have moved from one to another.
pub(super) fn set_all(
    directory: &mut crate::directory::Directory,
    stores: &[(PeerId, BTreeSet<Mailbox>)],
    changes: &mut Vec<crate::rows::Change>,
) -> Rehosted {
    let mut all = Rehosted::default();
    for _ in 0..2 {
        all.left_out = 0;
        for (peer, mailboxes) in stores {
            let rehosted = directory.set_hosted(*peer, mailboxes, changes);
            all.added += rehosted.added;
            all.removed.extend(rehosted.removed);
            all.left_out += rehosted.left_out;
        }
        if all.left_out == 0 {
            break;
        }
    }
    all
}

pub(super) fn say(rehosted: &Rehosted) {
    let Rehosted { added, removed, left_out } = rehosted;
    tracing::info!(added, removed = removed.len(), "mailboxes of hosted stores");
    if *left_out > 0 {
        tracing::warn!(
            left_out,
            "mailboxes are left out that two hosted stores are named for, or one has enrolled for"
        );
    }
}

fn hosts(directory: &crate::directory::Directory, session: &Session, now: Now) -> Result<StoreId, CallError> {
    let is_confirmed = is_confirmed(directory, session.store, now.wall);
    session.hosts.filter(|_| is_confirmed).ok_or(CallError::Refused)
}

/// A store's key, of those that are members of `group`: for the presence stream.
pub(super) fn keys_of(directory: &crate::directory::Directory, group: StoreId) -> Vec<StoreKey> {
    let members = directory.members(group, None).filter(|store| store.sealing_key.is_some());
    members.map(|store| store.key.clone()).collect()
}

const _: () = assert!(HOSTED_LOOK_INTERVAL.as_secs() >= Duration::from_secs(1).as_secs());
