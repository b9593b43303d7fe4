//! Whom a pull goes to: the connections that its offers came on, those to further sources, and what becomes of streams when
//! a holder comes back on another one.

use lighter_protocol::PeerId;
use lighter_protocol::pull::{Command, NotAdmitted, Role, SourceState, StreamId};
use lighter_protocol::wire::Response;
use lighter_transport::{Connection, Responder};
use tokio::sync::mpsc;

use super::driver::{Driver, Event, Offered, ToldSources};
use super::push;
use super::streams::Stream;
use crate::limits::PULL_EVENTS_MAX;
use crate::shared::now;
use crate::sharing::{self, take};
use crate::sources::{self, Found};

impl Driver<'_> {
    pub(super) async fn offered_again(&mut self, offered: Offered) -> Vec<Command> {
        let Offered { offer, pushes, standing, responder } = offered;
        let (from, connection) = (responder.peer(), responder.connection().clone());
        let joined = if pushes && !self.hides && push::are_taken(self.shared) {
            // What was pushed on the connection before is missing again: the answer says so.
            let mut left = Vec::new();
            for stream in self.older(from, &connection) {
                left.extend(self.drop_stream(stream).await);
            }
            self.machine.handle_left(&left, now());
            self.machine.handle_push_offer(&offer, from, &standing, now())
        } else {
            self.machine.handle_offer(&offer, from, &standing, now())
        };
        match joined {
            Ok(mut commands) => {
                self.holders.insert(from, connection.clone());
                self.watch(from);
                self.responders.insert(from, responder);
                commands.extend(self.leave_older(from, &connection).await);
                commands
            }
            Err(reason) => {
                refuse(reason, responder).await;
                self.machine.handle_time(now())
            }
        }
    }

    /// A holder offers on a new connection: the one before is dead, though nobody here knows yet (the holder was killed
    /// and came back, or changed networks), or a worse way. Its streams go on over there.
    async fn leave_older(&mut self, from: PeerId, newest: &Connection) -> Vec<Command> {
        let mut commands = Vec::new();
        for stream in self.older(from, newest) {
            commands.extend(self.abort(stream).await);
        }
        commands
    }

    /// Streams on other connections of this holder.
    fn older(&self, from: PeerId, newest: &Connection) -> Vec<StreamId> {
        let is_left = |(stream, open): (&StreamId, &Stream)| {
            (open.connection.peer() == from && !open.connection.is_same(newest)).then_some(*stream)
        };
        self.streams.iter().filter_map(is_left).collect()
    }

    /// Looks for others that have it, too, beside the pull.
    pub(super) fn find_sources(&mut self, from: PeerId) {
        let (here, all) = self.machine.progress();
        let missing = all.saturating_sub(here);
        if !sources::is_worth(self.machine.offer(), missing) {
            return;
        }
        let (shared, events) = (self.shared.clone(), self.events.clone());
        let offer = self.machine.offer().clone();
        let (sender, mut found) = mpsc::channel(PULL_EVENTS_MAX);
        self.work.spawn(sources::find(shared, offer, from, missing, sender));
        self.work.spawn(async move {
            while let Some(found) = found.recv().await {
                let _ = events.send(Event::Source(found)).await;
            }
        });
    }

    pub(super) fn found(&mut self, found: Found) -> Vec<Command> {
        let Found { role, connection } = found;
        let peer = connection.peer();
        tracing::info!(delivery = %self.machine.offer().delivery, source = %peer, ?role, "a further source");
        if matches!(role, Role::Device | Role::Recipient) {
            self.dialled.retain(|known| !known.is_closed());
            self.dialled.push(connection.clone());
        }
        self.holders.insert(peer, connection);
        self.watch(peer);
        self.machine.handle_source(peer, role, now())
    }

    /// Who offers it says who else has it: they are looked for, beside the pull.
    pub(super) fn told_sources(&mut self, told: ToldSources) {
        let ToldSources { sharings, responder } = told;
        let from = responder.peer();
        let is_holder =
            self.machine.sources().iter().any(|view| {
                view.peer == from && view.role == Role::Holder && view.state != SourceState::Wrong
            });
        let answer = if is_holder { Response::Noted } else { Response::Refused };
        self.answering.spawn(async move {
            let _ = responder.respond(&answer).await;
        });
        let (here, all) = self.machine.progress();
        if !is_holder || !sharing::is_worth(all.saturating_sub(here)) {
            return;
        }
        let (own, mailbox) = (self.shared.identity.peer(), self.machine.offer().mailbox.clone());
        let taken = self.givers.take(sharings, &from, (&own, &mailbox), self.shared.share(), now().wall);
        for sharing in taken {
            let (sender, mut found) = mpsc::channel(1);
            let events = self.events.clone();
            self.work.spawn(take::seek(self.shared.clone(), sharing, sender));
            self.work.spawn(async move {
                while let Some(found) = found.recv().await {
                    let _ = events.send(Event::Source(found)).await;
                }
            });
        }
    }

    /// Notes the connection that an offer came on.
    pub(super) fn hold(&mut self, peer: PeerId) {
        if let Some(responder) = self.responders.get(&peer) {
            self.holders.insert(peer, responder.connection().clone());
            self.watch(peer);
        }
    }

    /// Tells this task when that connection is gone.
    pub(super) fn watch(&mut self, peer: PeerId) {
        let Some(connection) = self.holders.get(&peer).cloned() else { return };
        let events = self.events.clone();
        self.watched.spawn(async move {
            connection.closed().await;
            let _ = events.send(Event::Lost(peer)).await;
        });
    }
}

/// Whatever was wrong, the peer hears the same (bad input 34); the log says more.
pub(super) async fn refuse(reason: NotAdmitted, responder: Responder) {
    tracing::info!(peer = %responder.peer(), %reason, "offer refused");
    let _ = responder.respond(&Response::Refused).await;
}
