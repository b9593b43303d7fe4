//! What an admin can tell a location server: one set of commands, whether a server runs (then over its control socket)
//! or not (then on the opened database).

use std::time::Duration;

use lighter_protocol::time::Now;
use lighter_protocol::{Mailbox, PeerId, RelayRecord, UnixTime};
use lighter_transport::location::api::RelayRequest;
use lighter_transport::location::keys::KeyChange;
use lighter_transport::location::{Presence, Scope, Secret};
use serde::{Deserialize, Serialize};

use super::Location;
use crate::error::CallError;
use crate::limits::{
    INVITATION_LIFETIME_DEFAULT, INVITATION_LIFETIME_MAX, KEY_OVERLAP_DEFAULT, KEY_OVERLAP_MAX,
    KEY_OVERLAP_MIN, TOKEN_NAME_LEN_MAX, USERS_PER_PAGE,
};
use crate::lock::{read, write};
use crate::rows::{InvitationRow, TokenRow};
use crate::token::{TokenKind, draw_id};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum AdminCommand {
    /// Makes an API token.
    TokenCreate {
        /// What to call it.
        name: String,
        /// What it may do.
        scopes: Vec<Scope>,
        /// None: it does not expire.
        lifetime_s: Option<u64>,
    },
    /// Lists API tokens.
    TokenList,
    /// Ends an API token.
    TokenRevoke {
        /// Its id.
        id: String,
    },
    /// Makes an enrolment token for a mailbox.
    UserInvite {
        /// For whom.
        mailbox: Mailbox,
        /// None: seven days.
        lifetime_s: Option<u64>,
    },
    /// Lists users with their stores, a page at a time.
    UserList {
        /// Where the page begins: 0, or the last page's `next`.
        from: u32,
    },
    /// Lists enrolment tokens that wait to be used.
    InvitationList,
    /// Removes a user's store, or all of them.
    UserRemove {
        /// Whose.
        mailbox: Mailbox,
        /// None: all.
        peer: Option<PeerId>,
    },
    /// Confirms a user's further store before its 24 hours are over.
    UserConfirm {
        /// Whose.
        mailbox: Mailbox,
        /// Which.
        peer: PeerId,
    },
    /// Lists the relays.
    RelayList,
    /// Announces another key of this server.
    KeyAnnounce {
        /// None: 14 days.
        overlap_s: Option<u64>,
    },
    /// Shows the key, and its changes.
    KeyShow,
}

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum AdminAnswer {
    /// To [`AdminCommand::TokenCreate`].
    Token {
        /// To revoke it by.
        id: String,
        /// The token: shown this once, kept nowhere.
        token: Secret,
        /// None: it does not expire.
        expires: Option<UnixTime>,
    },
    /// To [`AdminCommand::TokenList`].
    Tokens {
        /// By when they were made.
        tokens: Vec<TokenRow>,
    },
    /// To [`AdminCommand::UserInvite`].
    Invitation {
        /// For whom.
        mailbox: Mailbox,
        /// The token: shown this once, kept nowhere.
        token: Secret,
        /// From here on it is good for nothing.
        expires: UnixTime,
    },
    /// To [`AdminCommand::UserList`].
    Users {
        /// One for each store.
        stores: Vec<StoreRow>,
        /// Where the next page begins; `None`: this was the last.
        next: Option<u32>,
    },
    /// To [`AdminCommand::InvitationList`].
    Invitations {
        /// By when they were made.
        invitations: Vec<InvitationRow>,
    },
    /// To [`AdminCommand::UserRemove`].
    Removed {
        /// How many stores.
        stores: usize,
    },
    /// To [`AdminCommand::RelayList`].
    Relays {
        /// As they are named in attestations.
        relays: Vec<RelayRequest>,
    },
    /// To [`AdminCommand::KeyAnnounce`] and [`AdminCommand::KeyShow`].
    Keys {
        /// The key that signs now.
        present: PeerId,
        /// Its changes, oldest first.
        changes: Vec<KeyChange>,
    },
    /// Done; there is nothing to say.
    Done,
}

/// One store, as the admin sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRow {
    /// Whose.
    pub mailbox: Mailbox,
    /// Which.
    pub peer: PeerId,
    /// Its receipts release.
    pub primary: bool,
    /// Whether it is the mailbox's hosted store, which the configuration names.
    #[serde(default)]
    pub hosted: bool,
    /// When it enrolled.
    pub enrolled: UnixTime,
    /// When it is, or was, confirmed.
    pub confirmed: UnixTime,
    /// Addresses that are good now.
    pub addresses: Vec<std::net::SocketAddr>,
    /// Whether it can be reached; `unknown` where no server runs.
    pub presence: Presence,
    /// Since when that is known.
    pub since: UnixTime,
}

impl Location {
    /// Does what the admin says.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn administer(&self, command: AdminCommand, now: Now) -> Result<AdminAnswer, CallError> {
        match command {
            AdminCommand::TokenCreate { name, scopes, lifetime_s } => {
                self.create_token(name, scopes, lifetime_s, now).await
            }
            AdminCommand::TokenList => {
                let tokens = read(&self.directory).tokens().into_iter().cloned().collect();
                Ok(AdminAnswer::Tokens { tokens })
            }
            AdminCommand::TokenRevoke { id } => {
                self.writer.write(move |dir, changes| dir.revoke_token(&id, now.wall, changes)).await?;
                Ok(AdminAnswer::Done)
            }
            AdminCommand::UserInvite { mailbox, lifetime_s } => self.invite(mailbox, lifetime_s, now).await,
            AdminCommand::UserList { from } => Ok(self.list_users(from, now)),
            AdminCommand::InvitationList => {
                let invitations = read(&self.directory).invitations().into_iter().cloned().collect();
                Ok(AdminAnswer::Invitations { invitations })
            }
            AdminCommand::UserRemove { mailbox, peer } => self.remove_user(mailbox, peer, now).await,
            AdminCommand::UserConfirm { mailbox, peer } => {
                self.writer
                    .write(move |dir, changes| dir.confirm_store(&mailbox, &peer, now.wall, changes))
                    .await?;
                tracing::info!(%peer, "store confirmed by the admin");
                Ok(AdminAnswer::Done)
            }
            AdminCommand::RelayList => {
                let relays = read(&self.directory).relays().0.to_vec();
                Ok(AdminAnswer::Relays { relays: relays.into_iter().map(from_record).collect() })
            }
            AdminCommand::KeyAnnounce { overlap_s } => self.announce_key(overlap_s, now).await,
            AdminCommand::KeyShow => Ok(self.show_keys(now.wall)),
        }
    }

    async fn create_token(
        &self,
        name: String,
        mut scopes: Vec<Scope>,
        lifetime_s: Option<u64>,
        now: Now,
    ) -> Result<AdminAnswer, CallError> {
        scopes.sort();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(CallError::Malformed("a token needs a scope: lookup, presence, relay"));
        }
        if name.chars().count() > TOKEN_NAME_LEN_MAX || name.chars().any(char::is_control) {
            return Err(CallError::Malformed(
                "a token's name has at most 100 characters, none of them control",
            ));
        }
        let (token, id) = (TokenKind::Api.draw(&mut rand::rng()), draw_id(&mut rand::rng()));
        let expires = lifetime_s.map(|lifetime| now.wall.plus(Duration::from_secs(lifetime)));
        let row = TokenRow { id: id.clone(), name, scopes, created: now.wall, expires, revoked: None };
        let hash = token.hash();
        self.writer.write(move |directory, changes| directory.create_token(hash, row, changes)).await?;
        Ok(AdminAnswer::Token { id, token, expires })
    }

    async fn invite(
        &self,
        mailbox: Mailbox,
        lifetime_s: Option<u64>,
        now: Now,
    ) -> Result<AdminAnswer, CallError> {
        let domains = &self.config.domains;
        if !domains.is_empty() && !domains.iter().any(|domain| domain == mailbox.domain()) {
            return Err(CallError::Malformed("the mailbox is in none of this server's domains"));
        }
        let lifetime = lifetime_s.map_or(INVITATION_LIFETIME_DEFAULT, Duration::from_secs);
        if lifetime > INVITATION_LIFETIME_MAX {
            return Err(CallError::Malformed("an enrolment token is good for at most 90 days"));
        }
        let token = TokenKind::Invitation.draw(&mut rand::rng());
        let expires = now.wall.plus(lifetime);
        let row = InvitationRow { mailbox: mailbox.clone(), created: now.wall, expires };
        let hash = token.hash();
        self.writer.write(move |directory, changes| directory.invite(hash, row, changes)).await?;
        Ok(AdminAnswer::Invitation { mailbox, token, expires })
    }

    /// Answers when the announcement is durable: from then on it is told of.
    async fn announce_key(&self, overlap_s: Option<u64>, now: Now) -> Result<AdminAnswer, CallError> {
        let overlap = overlap_s.map_or(KEY_OVERLAP_DEFAULT, Duration::from_secs);
        if !(KEY_OVERLAP_MIN..=KEY_OVERLAP_MAX).contains(&overlap) {
            return Err(CallError::Malformed("a key is announced 2 to 365 days before it takes over"));
        }
        let keyring = read(&self.keyring).clone();
        let (folder, present) = (self.config.data.clone(), keyring.signing(now.wall).peer());
        let announce = move || keyring.announce(&folder, now.wall.plus(overlap), now.wall);
        let announced = tokio::task::spawn_blocking(announce).await.map_err(|_| CallError::Unavailable)?;
        let (keyring, change) = announced.map_err(|error| {
            tracing::error!(%error, "a key cannot be announced");
            CallError::Unavailable
        })?;
        self.writer.write(move |dir, changes| dir.announce_key(change, present, changes)).await?;
        *write(&self.keyring) = keyring;
        Ok(self.show_keys(now.wall))
    }

    fn show_keys(&self, now: UnixTime) -> AdminAnswer {
        let changes =
            read(&self.directory).key_changes().iter().filter_map(|signed| signed.claim().ok()).collect();
        AdminAnswer::Keys { present: self.signing(now).peer(), changes }
    }

    fn list_users(&self, from: u32, now: Now) -> AdminAnswer {
        let directory = read(&self.directory);
        let live = read(&self.live);
        let mut rows = Vec::new();
        for (id, store) in directory.stores_from(from) {
            if rows.len() == USERS_PER_PAGE {
                return AdminAnswer::Users { stores: rows, next: Some(id.number()) };
            }
            let (presence, since) = live.presences.get(directory.presence_of(id));
            rows.push(StoreRow {
                mailbox: store.key.mailbox.clone(),
                peer: store.key.peer,
                primary: directory.is_primary(store, now.wall),
                hosted: store.hosted.is_some(),
                enrolled: store.enrolled,
                confirmed: store.confirmed,
                addresses: directory.addresses(store, now.wall).to_vec(),
                presence,
                since,
            });
        }
        AdminAnswer::Users { stores: rows, next: None }
    }

    async fn remove_user(
        &self,
        mailbox: Mailbox,
        peer: Option<PeerId>,
        now: Now,
    ) -> Result<AdminAnswer, CallError> {
        let removed = self
            .writer
            .write(move |directory, changes| {
                directory.remove_user(&mailbox, peer.as_ref(), now.wall, changes)
            })
            .await?;
        self.forget(&removed, now);
        Ok(AdminAnswer::Removed { stores: removed.len() })
    }
}

fn from_record(record: RelayRecord) -> RelayRequest {
    record.into()
}
