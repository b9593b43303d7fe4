//! One outgoing delivery's task: finds the recipient's store, offers, and waits for the receipt; again, with growing
//! waits, for as long as the delivery lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lighter_protocol::offer::{Command, GiveUp, Offering, State};
use lighter_protocol::wire::{NoReason, Offer, Response};
use lighter_protocol::{DeliveryId, PeerId, UnixTime};
use lighter_store::{Outgoing, OutgoingState, StoreError};
use lighter_transport::Connection;
use lighter_transport::location::Presence;
use rand::RngExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::{Event, Stage, facts, push, whole};
use crate::finding;
use crate::limits::{QUIET_LOOK_INTERVAL, SILENCE_LOOK_INTERVAL};
use crate::links::close_when_silent;
use crate::serve;
use crate::shared::{Handle, now};
use crate::sharing::tell;
use crate::ways::{self, NotFound, Reached};

/// Where an outgoing delivery is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Attempt {
    /// The store is looked for and offered to for the first time.
    #[default]
    Looking,
    /// The store takes it, and pulls.
    Pulling,
    /// It did not work now; the agent tries again.
    Waiting {
        /// Why, in words for the user.
        why: String,
    },
    /// Receipted.
    Released,
    /// The store will not take it, or its time ran out.
    Failed {
        /// Why, in words for the user.
        why: String,
    },
    /// The store did not take it in its time, or at all: its message, which had gone with placeholders, went whole by mail.
    MailedWhole {
        /// Why, in words for the user.
        why: String,
    },
}

/// How long a store that is offline is left alone between two look-ups, at first and at most. Agents do not listen to
/// presence: that is for relays.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(15);
const LOOK_AGAIN_MAX: Duration = Duration::from_mins(10);
/// The same for one whose connection was lost, where it had been a steady one.
const LOST_AGAIN: Duration = Duration::from_millis(500);
const STEADY: Duration = Duration::from_secs(3);

/// Offers the delivery until nothing is to be done for it any more. It is on the list of those that are told of receipts.
pub(super) async fn run(
    shared: &Handle,
    outgoing: Outgoing,
    mut events: mpsc::Receiver<Event>,
    progress: watch::Sender<Stage>,
    others: Arc<Notify>,
) {
    // A receipt that came before it was on that list is on record, and no other one comes.
    if is_released(shared, outgoing.delivery).await {
        progress.send_modify(|stage| stage.attempt = Attempt::Released);
        return;
    }
    let machine = Offering::new(facts(&outgoing), outgoing.introduction.clone(), rand::rng().random());
    let mut driver = Driver {
        shared,
        outgoing,
        machine,
        progress,
        link: None,
        pushing: None,
        others,
        telling: None,
        deadline: None,
        refused: None,
    };
    let mut look_again = LOOK_AGAIN_MIN;
    loop {
        let mut wakes = shared.wakes.subscribe();
        let mut membership = shared.membership.subscribe();
        // Without a session nothing can be looked up: having one again is worth a try at once.
        let had_session = shared.session().is_some();
        if driver.given_up(UnixTime::now()).is_none() {
            match driver.find().await {
                Ok(reached) => {
                    let began = Instant::now();
                    let outcome = driver.offer(reached, &mut events).await;
                    driver.progress.send_modify(|stage| stage.way = None);
                    match outcome {
                        Outcome::Over => return,
                        Outcome::GivenUp => look_again = LOOK_AGAIN_MIN,
                        Outcome::Lost => {
                            // It was there a moment ago, and may only be elsewhere now: on another network, or started
                            // again.
                            look_again = if began.elapsed() < STEADY { LOOK_AGAIN_MIN } else { LOST_AGAIN };
                            driver.stage(Attempt::Waiting {
                                why: "the recipient's store went away".to_owned(),
                            });
                        }
                    }
                }
                Err(why) => driver.stage(Attempt::Waiting { why: why.to_string() }),
            }
        }
        let now = UnixTime::now();
        let mut pause = look_again.mul_f64(rand::rng().random_range(0.7..=1.0));
        match driver.given_up(now) {
            Some(reason) => {
                if driver.give_up(reason).await {
                    return;
                }
            }
            // Its end is not slept through.
            None => pause = pause.min(driver.outgoing.expires.since(now)),
        }
        look_again = (look_again * 2).min(LOOK_AGAIN_MAX);
        tokio::select! {
            () = sleep(pause) => {}
            _ = wakes.changed() => look_again = LOOK_AGAIN_MIN,
            _ = membership.wait_for(|now| !had_session && now.session.is_some()) => {}
            // A receipt can come without an offer: the store dialled in.
            Some(event) = events.recv() => if matches!(event, Event::Released) {
                driver.stage(Attempt::Released);
                return;
            },
        }
    }
}

async fn is_released(shared: &Handle, delivery: DeliveryId) -> bool {
    let known = shared.blocking(move |store| store.outgoing(delivery)).await;
    known.is_ok_and(|known| known.is_some_and(|known| matches!(known.state, OutgoingState::Released(_))))
}

enum Outcome {
    /// Receipted.
    Over,
    /// The store does not take it, or its time is over.
    GivenUp,
    /// The store is gone; the delivery waits.
    Lost,
}

struct Driver<'a> {
    shared: &'a Handle,
    outgoing: Outgoing,
    machine: Offering,
    progress: watch::Sender<Stage>,
    /// The connection to the store, and the task that answers what it asks on it.
    link: Option<Link>,
    /// What is pushed on it.
    pushing: Option<AbortOnDropHandle<()>>,
    /// Wakes whoever tells the store of others who have it; and that task, on this connection.
    others: Arc<Notify>,
    telling: Option<AbortOnDropHandle<()>>,
    deadline: Option<Instant>,
    /// The store said that it will never take it.
    refused: Option<NoReason>,
}

struct Link {
    shared: Handle,
    connection: Connection,
    serving: JoinHandle<()>,
    watching: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close();
        self.serving.abort();
        self.watching.abort();
        self.shared.links.sweep(&self.connection.peer());
    }
}

impl Driver<'_> {
    fn stage(&self, attempt: Attempt) {
        self.progress.send_modify(|stage| stage.attempt = attempt);
    }

    /// Looks the recipient up, gets an introduction, connects and pings.
    async fn find(&mut self) -> Result<Reached, NotFound> {
        let shared = self.shared;
        let (sender, recipient) = (self.outgoing.sender.clone(), self.outgoing.recipient.clone());
        let store = finding::look_up_one(shared, &sender, &recipient).await?.ok_or(NotFound::None)?;
        if store.presence == Presence::Offline {
            return Err(NotFound::Offline);
        }
        let bytes = self.outgoing.parts().fold(0, |sum: u64, part| sum.saturating_add(part.size));
        let introduction = finding::introduction(shared, &sender, &recipient, bytes).await?;
        let introduction = introduction.ok_or(NotFound::None)?;
        self.machine.introduce(introduction.clone());
        if store.peer != self.outgoing.store {
            // The recipient has another primary store now: that one pulls and receipts.
            self.outgoing.store = store.peer;
            self.change(move |outgoing| outgoing.store = store.peer).await;
        }
        ways::reach(shared, &sender, &recipient, &store).await
    }

    async fn change(&self, change: impl FnOnce(&mut Outgoing) + Send + 'static) {
        let delivery = self.outgoing.delivery;
        if let Err(error) = self.shared.blocking(move |store| store.change_outgoing(delivery, change)).await {
            tracing::warn!(delivery = %self.outgoing.delivery, %error, "could not be recorded");
        }
    }

    /// Offers on an open connection, and follows the pull until it is receipted or the connection is gone.
    async fn offer(&mut self, reached: Reached, events: &mut mpsc::Receiver<Event>) -> Outcome {
        let Ok(_permit) = self.shared.offering.acquire().await else { return Outcome::Lost };
        let Reached { connection, way } = reached;
        self.progress.send_modify(|stage| stage.way = Some(way));
        let peer = connection.peer();
        let stages = self.progress.subscribe();
        let interval = move || {
            let pulls = stages.borrow().attempt == Attempt::Pulling;
            if pulls { SILENCE_LOOK_INTERVAL } else { QUIET_LOOK_INTERVAL }
        };
        let wakes = self.shared.wakes.subscribe();
        let watching = tokio::spawn(close_when_silent(connection.clone(), interval, wakes));
        let serving = tokio::spawn(serve::connection(self.shared.clone(), connection.clone()));
        let shared = self.shared.clone();
        self.link = Some(Link { shared, connection: connection.clone(), serving, watching });
        let mut command = self.machine.handle_online(peer, now());
        loop {
            command = match command {
                Command::SendOffer { to, offer, until } => {
                    let answer = self.ask(to, *offer, until).await;
                    let command = match answer {
                        Some(response) => {
                            let command = self.machine.handle_response(&response, now());
                            self.push(&connection, response);
                            command
                        }
                        None => self.machine.handle_lost(now()),
                    };
                    match self.machine.state() {
                        State::Pulling { .. } => {
                            self.stage(Attempt::Pulling);
                            self.tell_of_others(&connection);
                        }
                        // Who waits for the first answer need not wait for the next try.
                        State::Backoff { .. } => {
                            self.stage(Attempt::Waiting {
                                why: "the recipient's store does not take it now".to_owned(),
                            });
                        }
                        _ => {}
                    }
                    command
                }
                Command::GiveUp(reason) => {
                    if let GiveUp::No(reason) = reason {
                        self.refused = Some(reason);
                    }
                    (self.link, self.pushing, self.telling) = (None, None, None);
                    return Outcome::GivenUp;
                }
                Command::Wait(until) => {
                    self.deadline = Some(until);
                    match self.next(&connection, events).await {
                        Some(command) => command,
                        None => return self.end(events),
                    }
                }
                Command::Nothing | Command::WaitForPresence | Command::Record(_) | Command::Release => {
                    match self.next(&connection, events).await {
                        Some(command) => command,
                        None => return self.end(events),
                    }
                }
            };
        }
    }

    /// What happens next; none where the delivery is released, or the connection is gone.
    async fn next(&mut self, connection: &Connection, events: &mut mpsc::Receiver<Event>) -> Option<Command> {
        let deadline = self.deadline;
        let wait = async {
            match deadline {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(event) = events.recv() => match event {
                Event::Progress => {
                    self.stage(Attempt::Pulling);
                    Some(self.machine.handle_progress(now()))
                }
                Event::Released => {
                    self.stage(Attempt::Released);
                    None
                }
                Event::Wanted => Some(self.machine.handle_online(connection.peer(), now())),
            },
            _ = connection.closed() => {
                self.machine.handle_offline(now());
                None
            }
            () = wait => {
                self.deadline = None;
                Some(self.machine.handle_time(now()))
            }
        }
    }

    /// How it stands when nothing more comes of this connection.
    fn end(&mut self, events: &mut mpsc::Receiver<Event>) -> Outcome {
        (self.deadline, self.pushing, self.telling) = (None, None, None);
        // The receipt may have come just before the connection went.
        while let Ok(event) = events.try_recv() {
            if matches!(event, Event::Released) {
                self.stage(Attempt::Released);
            }
        }
        let released = self.progress.borrow().attempt == Attempt::Released;
        // The store closes the connection when it has read the answer to its receipt; if not, it had its time.
        if let Some(link) = self.link.take().filter(|_| released) {
            tokio::spawn(async move {
                let _ = tokio::time::timeout(LINGER, link.connection.closed()).await;
                drop(link);
            });
        }
        if released { Outcome::Over } else { Outcome::Lost }
    }

    async fn ask(&self, to: PeerId, offer: Offer, until: Instant) -> Option<Response> {
        let connection = self.link.as_ref().map(|link| &link.connection).filter(|link| link.peer() == to)?;
        let limit = until.saturating_duration_since(Instant::now());
        let pushes = push::is_wanted(self.shared, &self.outgoing);
        match connection.offer(offer, pushes, limit).await {
            Ok(response) => Some(response),
            Err(error) => {
                tracing::debug!(store = %to, %error, "an offer was not answered");
                None
            }
        }
    }

    /// Pushes what the store said that it wants, beside whatever it asks for.
    fn push(&mut self, connection: &Connection, response: Response) {
        let is_taken = matches!(self.machine.state(), State::Pulling { .. });
        let Response::PushAnswer(answer) = response else { return };
        if is_taken {
            let facts = facts(&self.outgoing);
            let pushing = push::run(self.shared.clone(), connection.clone(), facts, answer.wanted);
            self.pushing = Some(AbortOnDropHandle::new(tokio::spawn(pushing)));
        }
    }

    /// Tells the store who else has it, now and when others do (SPEC D3).
    fn tell_of_others(&mut self, connection: &Connection) {
        if self.telling.is_some() {
            self.others.notify_one();
            return;
        }
        let (shared, outgoing, others) =
            (self.shared.clone(), self.outgoing.clone(), Arc::clone(&self.others));
        let telling = tell::run(shared, connection.clone(), outgoing, others);
        self.telling = Some(AbortOnDropHandle::new(tokio::spawn(telling)));
    }

    /// Why it is not offered any more.
    fn given_up(&self, now: UnixTime) -> Option<GiveUp> {
        let is_over = now >= self.outgoing.expires;
        self.refused.map(GiveUp::No).or(is_over.then_some(GiveUp::Expired))
    }

    /// No store takes it: a message that went with placeholders goes whole. Gives whether nothing is left to be done.
    async fn give_up(&mut self, reason: GiveUp) -> bool {
        let why = match reason {
            GiveUp::Expired => "their store did not take it in time".to_owned(),
            GiveUp::No(NoReason::TooLarge) => {
                "the recipient's store does not take files that large".to_owned()
            }
            GiveUp::No(NoReason::NotAccepted) => "the recipient's store does not accept it".to_owned(),
        };
        let attempt = match self.state_at_end(&why).await {
            Ok(Some(OutgoingState::Waiting)) => match whole::mail(self.shared, &self.outgoing).await {
                Ok(()) => Attempt::MailedWhole { why },
                Err(failure) => {
                    let why = format!("{why}, and the message could not be mailed whole: {failure}");
                    if failure.is_temporary() { Attempt::Waiting { why } } else { self.fail(why).await }
                }
            },
            Ok(Some(OutgoingState::Released(_))) => Attempt::Released,
            Ok(Some(OutgoingState::MailedWhole(_))) => Attempt::MailedWhole { why },
            // Whoever prepares it sends it whole.
            Ok(Some(OutgoingState::Failed { .. } | OutgoingState::Preparing) | None) => {
                Attempt::Failed { why }
            }
            Err(error) => Attempt::Waiting { why: format!("{why}; it could not be recorded: {error}") },
        };
        tracing::warn!(delivery = %self.outgoing.delivery, ?attempt, "given up");
        let is_over = !matches!(attempt, Attempt::Waiting { .. });
        self.stage(attempt);
        is_over
    }

    /// What is on record now that it is given up: one whose message was not mailed yet has failed from now on.
    async fn state_at_end(&self, why: &str) -> Result<Option<OutgoingState>, StoreError> {
        let (delivery, reason) = (self.outgoing.delivery, why.to_owned());
        let changed = self.shared.blocking(move |store| {
            store.change_outgoing(delivery, |outgoing| {
                if outgoing.state == OutgoingState::Preparing {
                    outgoing.state = OutgoingState::Failed { reason };
                }
            })
        });
        match changed.await {
            Ok(outgoing) => Ok(Some(outgoing.state)),
            Err(StoreError::NoDelivery(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// It can neither be delivered nor mailed: what is kept for it stays until the user cancels it (rule 3).
    async fn fail(&self, why: String) -> Attempt {
        let reason = why.clone();
        self.change(|outgoing| {
            // A receipt that came in the meantime says more.
            if outgoing.is_held() {
                outgoing.state = OutgoingState::Failed { reason };
            }
        })
        .await;
        Attempt::Failed { why }
    }
}

/// How long a connection stays after the receipt, for the store to read the last answer.
const LINGER: Duration = Duration::from_secs(5);
