//! Calls by those who ask: look-ups, introductions, relays.

use std::sync::Arc;

use lighter_protocol::limits::{ADDRESSES_MAX, SEALING_KEYS_MAX};
use lighter_protocol::time::Now;
use lighter_protocol::{Introduction, Mailbox, PeerId, RelayRecord, SealingKey, Signed, UnixTime};
use lighter_transport::location::api::{IntroductionAnswer, IntroductionRequest, LookupAnswer, StoreRecord};
use lighter_transport::location::limits::{LOOKUP_NAMES_MAX, RELAYS_TOLD_NAMES_MAX};
use lighter_transport::location::{Presence, Scope, Secret};
use rand::RngExt;

use super::{Live, Location};
use crate::address::may_be_relay;
use crate::directory::{Directory, Store, StoreId};
use crate::error::CallError;
use crate::limits::{INTRODUCTION_BYTES_MAX, INTRODUCTION_LIFETIME, RETRIEVAL_URL_LEN_MAX};
use crate::lock::read;
use crate::policy;
use crate::rate::Allowance;
use crate::rows::StoreKey;
use crate::sessions::Session;
use crate::token::TokenKind;

/// Who looks something up.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A mail server or relay, whom the admin gave a token: learns of everybody.
    Token(Arc<Allowance>),
    /// A store, for its user: learns of whom its user may.
    Session(Session),
    /// A store of another domain, which has proved that it acts for its user: the same.
    Foreign(StoreKey),
}

impl Location {
    /// Who shows this bearer token, if it may look up.
    ///
    /// # Errors
    /// [`CallError::Unauthorised`].
    pub fn lookup_caller(&self, bearer: &Secret, now: Now) -> Result<Caller, CallError> {
        if bearer.expose().starts_with(TokenKind::Session.prefix()) {
            let live = read(&self.live);
            let session = live.sessions.get(&bearer.hash()).ok_or(CallError::Unauthorised)?;
            return Ok(Caller::Session(session.clone()));
        }
        self.authorise(bearer, Scope::Lookup, now).map(Caller::Token)
    }

    /// Whether this is an API token that is good for `scope`.
    ///
    /// # Errors
    /// [`CallError::Unauthorised`].
    pub fn authorise(&self, bearer: &Secret, scope: Scope, now: Now) -> Result<Arc<Allowance>, CallError> {
        let directory = read(&self.directory);
        match directory.token(&bearer.hash()) {
            Some(token) if token.allows(scope, now.wall) => Ok(token.allowance.clone()),
            _ => Err(CallError::Unauthorised),
        }
    }

    /// The stores of `names`, in their order (SPEC A3, A15).
    ///
    /// `none` is made in the same way for unknown, not endowed and not accepted: the policy is asked for every name,
    /// whatever the directory says, and the directory is asked for every name, whatever the policy says.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn lookup(
        &self,
        caller: &Caller,
        names: &[Mailbox],
        now: Now,
    ) -> Result<Vec<LookupAnswer>, CallError> {
        if names.len() > LOOKUP_NAMES_MAX {
            return Err(CallError::Malformed("at most 1000 mailboxes at once"));
        }
        let count = names.len() as u64;
        match caller {
            Caller::Token(allowance) => allowance.take(&self.rates.token_names, count, now.instant)?,
            Caller::Session(session) => {
                // An outgoing mail server is the admin's, as those with a token are.
                let rate =
                    if session.is_of_many() { &self.rates.token_names } else { &self.rates.session_names };
                session.names.take(rate, count, now.instant)?;
            }
            Caller::Foreign(asker) => self.count_foreign(asker.mailbox.domain(), count, now)?,
        }
        let directory = read(&self.directory);
        let live = read(&self.live);
        let may_ask = match caller {
            // A domain attests only stores that are confirmed.
            Caller::Token(_) | Caller::Foreign(_) => true,
            Caller::Session(session) => is_confirmed(&directory, session.store, now.wall),
        };
        // Who helps a store to find another, and what it leaves with them. Mail servers and relays wait for the store's own
        // session instead.
        let tells_all = !matches!(caller, Caller::Token(_)) && names.len() <= RELAYS_TOLD_NAMES_MAX;
        let relays = if tells_all { self.helpers(directory.relays().0) } else { Vec::new() };
        let answer = |name| {
            let found = find(&directory, &live, caller, may_ask, name, now.wall);
            let told = |store: StoreRecord| StoreRecord {
                relays: relays.clone(),
                sealing_keys: if tells_all {
                    sealing_keys(&directory, name, &store, now.wall)
                } else {
                    Vec::new()
                },
                successions: if tells_all { directory.successions(name).to_vec() } else { Vec::new() },
                ..store
            };
            LookupAnswer { store: found.map(told) }
        };
        let answers: Vec<_> = names.iter().map(answer).collect();
        self.metrics.names.inc_by(count);
        self.metrics
            .names_found
            .inc_by(answers.iter().filter(|answer| answer.store.is_some()).count() as u64);
        Ok(answers)
    }

    /// This server's word to a recipient's store that the session's store may offer (DESIGN §4).
    ///
    /// # Errors
    /// [`CallError`].
    pub fn introduce(
        &self,
        session: &Session,
        request: IntroductionRequest,
        now: Now,
    ) -> Result<IntroductionAnswer, CallError> {
        self.introduce_caller(&Caller::Session(session.clone()), &session.key, request, now)
    }

    /// The same for any caller, whose store is `sender`.
    pub(super) fn introduce_caller(
        &self,
        caller: &Caller,
        sender: &StoreKey,
        request: IntroductionRequest,
        now: Now,
    ) -> Result<IntroductionAnswer, CallError> {
        if request.bytes > INTRODUCTION_BYTES_MAX {
            return Err(CallError::Malformed("more bytes than one introduction covers"));
        }
        let found = self.lookup(caller, std::slice::from_ref(&request.recipient), now)?;
        if found.first().is_none_or(|answer| answer.store.is_none()) {
            return Ok(IntroductionAnswer { introduction: None });
        }
        let introduction = Introduction {
            sender: sender.peer,
            sender_mailbox: sender.mailbox.clone(),
            recipient: request.recipient,
            bytes_max: request.bytes,
            expires: now.wall.plus(INTRODUCTION_LIFETIME),
            number: rand::rng().random(),
        };
        match Signed::sign(&introduction, self.signing(now.wall).keypair()) {
            Ok(signed) => Ok(IntroductionAnswer { introduction: Some(signed) }),
            Err(error) => {
                tracing::error!(%error, "an introduction could not be signed");
                Err(CallError::Unavailable)
            }
        }
    }

    /// The session that a bearer token stands for; counts the call.
    ///
    /// # Errors
    /// [`CallError::Unauthorised`].
    pub fn session_of(&self, bearer: &Secret, now: Now) -> Result<Session, CallError> {
        self.session(&bearer.hash(), now)
    }

    /// Makes a relay known.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn put_relay(&self, relay: RelayRecord) -> Result<(), CallError> {
        if relay.addresses.len() > ADDRESSES_MAX {
            return Err(CallError::Malformed("a relay has at most 16 addresses"));
        }
        if !relay.addresses.iter().all(|&address| may_be_relay(address)) {
            return Err(CallError::Address);
        }
        if !is_origin(&relay.retrieval_url) {
            return Err(CallError::Malformed(
                "retrieval_url is https://host or http://host:port, without a path",
            ));
        }
        let peer = relay.peer;
        self.writer.write(move |directory, changes| directory.put_relay(relay, changes)).await?;
        tracing::info!(%peer, "relay made known");
        Ok(())
    }

    /// Takes a relay out.
    ///
    /// # Errors
    /// [`CallError::NotFound`].
    pub async fn remove_relay(&self, peer: PeerId) -> Result<(), CallError> {
        Ok(self.writer.write(move |directory, changes| directory.remove_relay(&peer, changes)).await?)
    }
}

pub(super) fn is_confirmed(directory: &Directory, store: StoreId, now: UnixTime) -> bool {
    directory.store(store).is_some_and(|store| store.is_confirmed(now))
}

fn find(
    directory: &Directory,
    live: &Live,
    caller: &Caller,
    may_ask: bool,
    name: &Mailbox,
    now: UnixTime,
) -> Option<StoreRecord> {
    let accepted = match caller {
        Caller::Token(_) => true,
        Caller::Session(session) => policy::accepts(directory.choice(name), name, &session.key.mailbox),
        Caller::Foreign(asker) => policy::accepts(directory.choice(name), name, &asker.mailbox),
    };
    // A store that asks about its own mailbox wants to know of another one.
    let asker = match caller {
        Caller::Session(session) if session.key.mailbox == *name => Some(session.key.peer),
        _ => None,
    };
    let best = best_store(directory, live, name, asker, now);
    if !(accepted && may_ask) {
        return None;
    }
    let (store, presence, since) = best?;
    Some(StoreRecord {
        peer: store.key.peer,
        addresses: directory.addresses(store, now).to_vec(),
        presence,
        since,
        primary: directory.is_primary(store, now),
        relays: Vec::new(),
        sealing_keys: Vec::new(),
        successions: Vec::new(),
    })
}

/// What a drop for the mailbox is sealed to: a key of each of its attested stores, that of `first` in front.
fn sealing_keys(
    directory: &Directory,
    name: &Mailbox,
    first: &StoreRecord,
    now: UnixTime,
) -> Vec<Signed<SealingKey>> {
    let mut stores: Vec<_> = directory.endowed(name, now).map(|(_, store)| store).collect();
    stores.sort_by_key(|store| {
        (store.key.peer != first.peer, !directory.is_primary(store, now), store.enrolled)
    });
    let keys = stores.into_iter().filter_map(|store| store.sealing_key.as_deref().cloned());
    keys.take(SEALING_KEYS_MAX).collect()
}

/// Of a mailbox's stores the one to go to: one that is online, and of those the primary. For `asker`, which is one of them,
/// another one, where there is any.
fn best_store<'a>(
    directory: &'a Directory,
    live: &Live,
    name: &Mailbox,
    asker: Option<PeerId>,
    now: UnixTime,
) -> Option<(&'a Store, Presence, UnixTime)> {
    let with_presence = directory.endowed(name, now).map(|(id, store)| {
        let (presence, since) = live.presences.get(directory.presence_of(id));
        (store, presence, since)
    });
    with_presence.max_by_key(|(store, presence, _)| {
        let is_another = Some(store.key.peer) != asker;
        let is_online = *presence == Presence::Online;
        (is_another, is_online, directory.is_primary(store, now), *presence == Presence::Unknown)
    })
}

/// `https://host[:port]` or `http://host[:port]`, and nothing behind it.
fn is_origin(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let is_plain = |host: &str| {
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c))
    };
    url.len() <= RETRIEVAL_URL_LEN_MAX && rest.is_some_and(is_plain)
}
