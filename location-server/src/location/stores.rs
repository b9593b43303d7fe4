//! Calls by stores: enrol, succeed, register, ping, offline, confirm.

use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::limits::ADDRESSES_MAX;
use lighter_protocol::time::Now;
use lighter_protocol::{Attestation, PeerId, Registration, SealingKey, Signed, Succession};
use lighter_transport::location::Secret;
use lighter_transport::location::api::{
    EnrolAnswer, EnrolRequest, Enrolment, PingAnswer, RegisterAnswer, SuccessionRequest,
};

use super::Location;
use super::feed::{revocation, revoked_event};
use crate::address::may_register;
use crate::directory::{Directory, Enrolled, Store, StoreId};
use crate::error::CallError;
use crate::limits::{CLOCK_SKEW_MAX, REGISTRATION_LIFETIME_MAX};
use crate::lock::{read, write};
use crate::rows::{StoreKey, TokenHash};
use crate::sessions::{Attested, Session};
use crate::token::TokenKind;

impl Location {
    /// Enrols a store (DESIGN §4).
    ///
    /// # Errors
    /// [`CallError::Refused`], the same for whatever is wrong with token or proof.
    pub async fn enrol(&self, request: EnrolRequest, now: Now) -> Result<EnrolAnswer, CallError> {
        let EnrolRequest { token, mailbox, peer, proof } = request;
        let token_hash = Secret::new(token).hash();
        let statement = proof.verify(&peer).map_err(|_| CallError::Refused)?;
        if statement != (Enrolment { token_hash, mailbox: mailbox.clone(), peer }) {
            return Err(CallError::Refused);
        }
        let key = StoreKey { mailbox, peer };
        let enrolled = self
            .writer
            .write(move |directory, changes| directory.enrol(&token_hash, key, now.wall, changes))
            .await?;
        tracing::info!(%peer, primary = enrolled.primary, "store enrolled");
        self.enrol_answer(&enrolled, now)
    }

    fn enrol_answer(&self, enrolled: &Enrolled, now: Now) -> Result<EnrolAnswer, CallError> {
        let attested = self.attest(enrolled.store, now)?;
        Ok(EnrolAnswer {
            location: self.peer(),
            primary: enrolled.primary,
            pending_until: (enrolled.confirmed > now.wall).then_some(enrolled.confirmed),
            attestation: attested.map(|(attestation, _)| attestation),
        })
    }

    /// Rotates a store's key, at the word of the one that goes and the one that comes (DESIGN §4).
    ///
    /// # Errors
    /// [`CallError::Refused`], the same for whatever is wrong.
    pub async fn succeed(&self, request: SuccessionRequest, now: Now) -> Result<EnrolAnswer, CallError> {
        let SuccessionRequest { succession: signed, agreed, sealing_key } = request;
        let succession =
            Succession::verify_agreed(&signed, &agreed, now.wall).map_err(|_| CallError::Refused)?;
        if let Some(sealing_key) = &sealing_key {
            let verified = SealingKey::verify(sealing_key, &succession.mailbox, now.wall);
            if !verified.is_ok_and(|key| key.peer == succession.next) {
                return Err(CallError::Refused);
            }
        }
        let Succession { former, next, .. } = succession;
        let succeeded = self
            .writer
            .write(move |directory, changes| {
                directory.succeed(&succession, signed, sealing_key, now.wall, changes)
            })
            .await?;
        if let Some(removed) = &succeeded.removed {
            tracing::info!(%former, %next, "a store's key was rotated");
            self.forget(std::slice::from_ref(removed), now);
        }
        self.enrol_answer(&succeeded.enrolled, now)
    }

    /// These are no stores any more: their sessions end, and relays are told.
    pub(super) fn forget(&self, removed: &[(StoreId, StoreKey)], now: Now) {
        let mut live = write(&self.live);
        for (store, _) in removed {
            live.sessions.end(*store);
            live.presences.forget(*store, now);
        }
        let key_of = |id| removed.iter().find(|(store, _)| *store == id).map(|(_, key)| key);
        self.publish(&mut live, key_of);
        self.tell(removed.iter().map(|(_, key)| revoked_event(&[revocation(key, now.wall)])));
    }

    /// Registers a store's addresses; it is online from here on (SPEC A12, A13).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn register(
        &self,
        signed: Signed<Registration>,
        sealing_key: Option<Signed<SealingKey>>,
        now: Now,
    ) -> Result<RegisterAnswer, CallError> {
        let registration = self.check_registration(&signed, now)?;
        if let Some(sealing_key) = &sealing_key {
            let verified = SealingKey::verify(sealing_key, &registration.mailbox, now.wall);
            if !verified.is_ok_and(|key| key.peer == registration.peer) {
                return Err(CallError::Refused);
            }
        }
        let store = self
            .writer
            .write(move |directory, changes| directory.register(&registration, signed, sealing_key, changes))
            .await?;
        let attested = self.attest(store, now)?;
        let session = self.start_session(store, attested.as_ref().map(|(_, said)| *said), now)?;
        Ok(RegisterAnswer {
            attestation: attested.map(|(attestation, _)| attestation),
            session,
            ping_interval_s: self.config.ping_interval_s,
            ttl_s: self.config.ttl_s,
        })
    }

    /// Everything that can be checked without the directory.
    fn check_registration(&self, signed: &Signed<Registration>, now: Now) -> Result<Registration, CallError> {
        let claimed = signed.claim().map_err(|_| CallError::Malformed("not a registration"))?;
        let registration = signed.verify(&claimed.peer).map_err(|_| CallError::Refused)?;
        if registration.expires <= now.wall {
            return Err(CallError::Refused);
        }
        if registration.expires > now.wall.plus(REGISTRATION_LIFETIME_MAX).plus(CLOCK_SKEW_MAX) {
            return Err(CallError::Malformed("a registration may expire at most 31 days ahead"));
        }
        if registration.addresses.len() > ADDRESSES_MAX {
            return Err(CallError::Malformed("a registration has at most 16 addresses"));
        }
        if !registration.addresses.iter().all(|&address| may_register(address, &self.networks)) {
            return Err(CallError::Address);
        }
        Ok(registration)
    }

    fn start_session(
        &self,
        store: StoreId,
        attested: Option<Attested>,
        now: Now,
    ) -> Result<Secret, CallError> {
        let token = TokenKind::Session.draw(&mut rand::rng());
        let directory = read(&self.directory);
        // Removed since it was registered.
        let key = &directory.store(store).ok_or(CallError::Refused)?.key;
        let mut live = write(&self.live);
        let key_shared = Arc::new(key.clone());
        let session = Session {
            store,
            is_speaker: self.is_speaker(&key.mailbox),
            hosts: directory.host_of(&key.peer),
            is_serving: false,
            key: key_shared,
            attested,
            names: Arc::default(),
            calls: Arc::default(),
        };
        live.sessions.start(token.hash(), session);
        let had_deadline = live.presences.poll_timeout().is_some();
        live.presences.handle_ping(store, now);
        self.publish(&mut live, |_| Some(key));
        if !had_deadline {
            self.deadline_set.notify_one();
        }
        Ok(token)
    }

    /// A store is still there. Writes nothing to disk.
    ///
    /// # Errors
    /// [`CallError::Unauthorised`]: register again.
    pub fn ping(&self, token: &TokenHash, now: Now) -> Result<PingAnswer, CallError> {
        let session = self.session(token, now)?;
        let hosting = {
            let directory = read(&self.directory);
            let mut live = write(&self.live);
            if live.sessions.get(token).is_none() {
                return Err(CallError::Unauthorised);
            }
            let had_deadline = live.presences.poll_timeout().is_some();
            for store in [Some(session.store), session.served()].into_iter().flatten() {
                live.presences.handle_ping(store, now);
            }
            self.publish_all(&directory, &mut live);
            if !had_deadline {
                self.deadline_set.notify_one();
            }
            session.hosts.map(|group| self.hosting_state(&directory, group, now))
        };
        let no_news = PingAnswer { attestation: None, hosting };
        if !self.needs_attestation(&session, now) {
            return Ok(no_news);
        }
        let Some((attestation, said)) = self.attest(session.store, now)? else {
            return Ok(no_news);
        };
        write(&self.live).sessions.set_attested(token, said);
        Ok(PingAnswer { attestation: Some(attestation), ..no_news })
    }

    /// A store goes: its addresses are removed, durably, and its session ends (SPEC A13).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn offline(&self, token: &TokenHash, now: Now) -> Result<(), CallError> {
        let session = self.session(token, now)?;
        let store = session.store;
        self.writer.write(move |directory, changes| directory.withdraw(store, changes)).await?;
        let directory = read(&self.directory);
        let mut live = write(&self.live);
        // Where it registered again meanwhile, it is online again.
        if live.sessions.get(token).is_some() {
            let served = live.sessions.end(store).and_then(|session| session.served());
            for store in [Some(store), served].into_iter().flatten() {
                live.presences.handle_offline(store, now);
            }
            self.publish_all(&directory, &mut live);
        }
        Ok(())
    }

    /// A store vouches for a further one of its mailbox (DESIGN §4).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn confirm(&self, token: &TokenHash, peer: PeerId, now: Now) -> Result<(), CallError> {
        let by = self.session(token, now)?.store;
        self.writer.write(move |directory, changes| directory.confirm(by, &peer, now.wall, changes)).await?;
        tracing::info!(%peer, "store confirmed by another of its mailbox");
        Ok(())
    }

    /// The session that a bearer token stands for; counts the call.
    pub(super) fn session(&self, token: &TokenHash, now: Now) -> Result<Session, CallError> {
        let session = read(&self.live).sessions.get(token).cloned().ok_or(CallError::Unauthorised)?;
        let rate = if session.is_of_many() { &self.rates.token_names } else { &self.rates.session_calls };
        session.calls.take(rate, 1, now.instant)?;
        Ok(session)
    }

    pub(super) fn attestation_lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.attestation_lifetime_s))
    }

    /// Whether the session's last attestation is half over, or no longer says what is true.
    fn needs_attestation(&self, session: &Session, now: Now) -> bool {
        let directory = read(&self.directory);
        let (_, relays_version) = directory.relays();
        let Some(store) = directory.store(session.store) else { return false };
        match session.attested {
            None => store.is_confirmed(now.wall),
            Some(attested) => {
                attested.relays_version != relays_version
                    || attested.by != self.signing(now.wall).peer()
                    || attested.primary != store.primary
                    || now.wall.since(attested.issued) >= self.attestation_lifetime() / 2
                    || now.wall < attested.issued
            }
        }
    }

    /// The domain's word for a store, unless it still waits to be confirmed.
    fn attest(&self, store: StoreId, now: Now) -> Result<Option<(Signed<Attestation>, Attested)>, CallError> {
        let directory = read(&self.directory);
        let store = directory.store(store).ok_or(CallError::Refused)?;
        if store.is_confirmed(now.wall) {
            self.sign_attestation(&directory, store, now).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The domain's word for a store.
    pub(super) fn sign_attestation(
        &self,
        directory: &Directory,
        store: &Store,
        now: Now,
    ) -> Result<(Signed<Attestation>, Attested), CallError> {
        let (relays, relays_version) = directory.relays();
        // A key that was revoked, and enrolled again within the same second.
        let not_before = directory.revoked(&store.key).map(|at| at.plus(Duration::from_secs(1)));
        let issued = not_before.map_or(now.wall, |earliest| earliest.max(now.wall));
        let attestation = Attestation {
            mailbox: store.key.mailbox.clone(),
            peer: store.key.peer,
            primary: directory.is_primary(store, now.wall),
            relays: self.helpers(relays),
            issued,
            expires: issued.plus(self.attestation_lifetime()),
        };
        let key = self.signing(now.wall);
        let attested =
            Attested { issued: now.wall, relays_version, primary: attestation.primary, by: key.peer() };
        match Signed::sign(&attestation, key.keypair()) {
            Ok(signed) => Ok((signed, attested)),
            Err(error) => {
                tracing::error!(%error, "an attestation could not be signed");
                Err(CallError::Unavailable)
            }
        }
    }
}
