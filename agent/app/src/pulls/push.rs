//! What a holder pushes: taken where this store said so in its answer, and would pull the same now (SPEC A6, A19).
//!
//! A limit, a pause, a schedule, a metered network: all of them mean that this side says what comes when, which only
//! asking does. So with any of them nothing is pushed; what was being pushed is stopped, and asked for in turns.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lighter_protocol::pull::{Command, PushedStream, StreamEnd};
use lighter_protocol::wire::{Push, Response};
use lighter_transport::limiter::{Allowance, Turns};
use lighter_transport::pull::Gauge;
use lighter_transport::{IncomingPush, Responder};
use tokio::sync::mpsc;

use super::LATER_S;
use super::driver::{Driver, Event};
use super::sink::{Sink, Way};
use super::streams::{Stream, Target, stream_end};
use crate::shared::{Handle, now};

/// A push that came, and that nobody looked at.
#[derive(Debug)]
pub(super) struct Arrived {
    push: Push,
    stream: IncomingPush,
}

/// Whether a holder that would push may: the user has nothing against it, and nothing limits what comes in.
pub(super) fn are_taken(shared: &Handle) -> bool {
    shared.pulls.takes_pushes.load(Ordering::Relaxed) && shared.guest.down.allowance() == Allowance::default()
}

/// A push came: hands it to the delivery's task. Where there is none, nothing was ever answered, and nobody may push it.
pub async fn pushed(shared: &Handle, push: Push, responder: Responder) {
    let (peer, delivery) = (responder.peer(), push.delivery);
    let Some(events) = shared.pulls.lock().get(&delivery).map(|pull| pull.events.clone()) else {
        tracing::info!(%peer, %delivery, "a push that nobody waits for");
        let _ = responder.respond(&Response::Refused).await;
        return;
    };
    let stream = match responder.into_push() {
        Ok(stream) => stream,
        Err(responder) => {
            let _ = responder.respond(&Response::Later(LATER_S)).await;
            return;
        }
    };
    if let Err(error) = events.try_send(Event::Push(Box::new(Arrived { push, stream })))
        && let Event::Push(arrived) = error.into_inner()
    {
        decline(arrived.stream).await;
    }
}

/// Whoever pushes is asked instead.
async fn decline(stream: IncomingPush) {
    let peer = stream.peer();
    if let Err(error) = stream.decline(&Response::Later(LATER_S)).await {
        tracing::debug!(%peer, %error, "could not decline a push");
    }
}

impl Driver<'_> {
    pub(super) async fn pushed(&mut self, arrived: Arrived) -> Vec<Command> {
        let Arrived { push, stream } = arrived;
        let from = stream.peer();
        let is_its = self.holders.get(&from).is_some_and(|holder| holder.is_same(stream.connection()));
        if !is_its || !self.goes_free() {
            self.answering.spawn(decline(stream));
            return Vec::new();
        }
        let (taken, commands) = self.machine.handle_push(from, &push.parts, now());
        match taken {
            Ok(parts) => self.take(parts, stream).await,
            Err(reason) => {
                tracing::info!(peer = %from, delivery = %push.delivery, %reason, "a push is not taken");
                self.answering.spawn(decline(stream));
            }
        }
        commands
    }

    /// Takes what is pushed, in a task of its own.
    async fn take(&mut self, parts: Vec<PushedStream>, stream: IncomingPush) {
        let mut places = Vec::with_capacity(parts.len());
        for part in parts {
            let target = self.target(part.blob, part.size).await;
            places.push(Place { turns: self.turns(part.blob), gauge: Gauge::default(), part, target });
        }
        let connection = stream.connection().clone();
        let open: Vec<_> = places.iter().map(|place| (place.part.stream, place.gauge.clone())).collect();
        let events = self.events.clone();
        let task = self.work.spawn(async move {
            if places.iter().all(|place| matches!(place.target, Target::Way(Way::Partial(..)))) {
                receive(places, stream, &events).await;
            } else {
                // Another delivery brought it in the meantime, or the disk does not take it.
                leave(places, &events).await;
                decline(stream).await;
            }
        });
        for (id, gauge) in open {
            let (task, connection) = (task.clone(), connection.clone());
            let open = Stream { task, connection, gauge, made: None, is_left: false, together: None };
            self.streams.insert(id, open);
        }
    }
}

/// A part of a push, and where it goes.
struct Place {
    part: PushedStream,
    target: Target,
    gauge: Gauge,
    turns: Turns,
}

/// Takes the parts, one after the other. The first that does not end well ends those behind it.
async fn receive(places: Vec<Place>, mut stream: IncomingPush, events: &mpsc::Sender<Event>) {
    let from = stream.peer();
    let last = places.len() - 1;
    let mut has_failed = false;
    for (at, Place { part, target, gauge, turns }) in places.into_iter().enumerate() {
        let id = part.stream;
        let mut end = StreamEnd::Left;
        if let (false, Target::Way(way)) = (has_failed, target) {
            // Nothing limits it, or it would not be taken; what is used is counted.
            let mut counted = 0;
            while counted < part.ranges.len() && !turns.is_held() {
                tokio::select! {
                    biased;
                    () = gauge.stopped() => break,
                    turn = turns.take(part.ranges.len() - counted) => counted += turn,
                }
            }
            let sink = Sink { stream: id, way, events: events.clone() };
            let received = stream.receive(&part, at == last, Arc::new(sink), &gauge).await;
            has_failed = received.is_err();
            end = stream_end(received.map(|_| ()), part.blob, from);
        }
        let _ = events.send(Event::Ended { stream: id, end }).await;
    }
    if !has_failed && let Err(error) = stream.done().await {
        tracing::debug!(peer = %from, %error, "could not say that a push has come");
    }
}

/// Ends parts that are not taken: what is here is told of.
async fn leave(places: Vec<Place>, events: &mpsc::Sender<Event>) {
    for Place { part, target, .. } in places {
        let is_held = matches!(target, Target::Held);
        for range in part.ranges.iter().filter(|_| is_held) {
            let _ = events.send(Event::Verified { stream: part.stream, range }).await;
        }
        let end = if is_held { StreamEnd::Over } else { StreamEnd::Left };
        let _ = events.send(Event::Ended { stream: part.stream, end }).await;
    }
}
