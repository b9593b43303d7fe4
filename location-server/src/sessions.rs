//! Stores that registered with this process: in memory only, at most one session for each store.

use std::collections::HashMap;
use std::sync::Arc;

use lighter_protocol::{PeerId, UnixTime};

use crate::directory::StoreId;
use crate::rate::Allowance;
use crate::rows::{StoreKey, TokenHash};

/// What a session's bearer token stands for.
#[derive(Clone, Debug)]
pub struct Session {
    /// The store.
    pub store: StoreId,
    /// Whose, and which.
    pub key: Arc<StoreKey>,
    /// Whether it is an outgoing mail server's, which speaks for the users of a domain.
    pub is_speaker: bool,
    /// Where it is a hosted store's: the number of its mailboxes' presence.
    pub hosts: Option<StoreId>,
    /// Whether it has taken these mailboxes on: then its pings are theirs.
    pub is_serving: bool,
    /// When its last attestation was made, and from which version of the relays; none while it was pending.
    pub attested: Option<Attested>,
    /// Names that it looked up.
    pub names: Arc<Allowance>,
    /// Other calls.
    pub calls: Arc<Allowance>,
}

/// What the last attestation said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attested {
    /// When it was made.
    pub issued: UnixTime,
    /// Version of the relays that it names.
    pub relays_version: u64,
    /// Whether it says primary.
    pub primary: bool,
    /// The key that signed it.
    pub by: PeerId,
}

/// All sessions. Invariant: `by_store` is the inverse of `by_token`.
#[derive(Debug, Default)]
pub struct Sessions {
    by_token: HashMap<TokenHash, Session>,
    by_store: HashMap<StoreId, TokenHash>,
}

impl Session {
    /// The hosted mailboxes' presence that its pings are for.
    pub fn served(&self) -> Option<StoreId> {
        self.hosts.filter(|_| self.is_serving)
    }

    /// Whether it is the admin's own machine, and calls often: a mail server's, for all its users.
    pub fn is_of_many(&self) -> bool {
        self.is_speaker || self.hosts.is_some()
    }
}

impl Sessions {
    /// Starts a session, which ends the store's former one. What it did so far still counts.
    pub fn start(&mut self, token: TokenHash, mut session: Session) {
        if let Some(former) = self.end(session.store) {
            session.names = former.names;
            session.calls = former.calls;
        }
        self.by_store.insert(session.store, token);
        self.by_token.insert(token, session);
    }

    /// The session that a token stands for.
    pub fn get(&self, token: &TokenHash) -> Option<&Session> {
        self.by_token.get(token)
    }

    /// Notes what the store's last attestation said.
    pub fn set_attested(&mut self, token: &TokenHash, attested: Attested) {
        if let Some(session) = self.by_token.get_mut(token) {
            session.attested = Some(attested);
        }
    }

    /// The session's store has taken its hosted mailboxes on. False where there is no such session any more.
    pub fn set_serving(&mut self, token: &TokenHash) -> bool {
        let session = self.by_token.get_mut(token);
        session.map(|session| session.is_serving = true).is_some()
    }

    /// Ends a store's session.
    pub fn end(&mut self, store: StoreId) -> Option<Session> {
        let token = self.by_store.remove(&store)?;
        self.by_token.remove(&token)
    }
}

#[cfg(test)]
mod tests {
    use lighter_transport::Identity;

    use super::*;

    fn session(store: u32) -> Session {
        let key = StoreKey { mailbox: "a@x.org".parse().unwrap(), peer: Identity::generate().peer() };
        Session {
            store: StoreId::new(store),
            key: Arc::new(key),
            is_speaker: false,
            hosts: None,
            is_serving: false,
            attested: None,
            names: Arc::default(),
            calls: Arc::default(),
        }
    }

    #[test]
    fn a_store_has_one_session_and_registering_again_resets_no_allowance() {
        let mut sessions = Sessions::default();
        let first = session(7);
        let names = first.names.clone();
        sessions.start([1; 32], first);
        sessions.start([2; 32], session(7));
        assert!(sessions.get(&[1; 32]).is_none());
        assert!(Arc::ptr_eq(&sessions.get(&[2; 32]).unwrap().names, &names));
        sessions.end(StoreId::new(7));
        assert!(sessions.by_token.is_empty() && sessions.by_store.is_empty());
    }
}
