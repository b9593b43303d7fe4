//! Handing messages on to the next hop: the stub to who has a store, the whole message to everybody else.
//!
//! What is due is a question to the catalog, when to ask it is the queue's ([`lighter_queue::HandOvers`]); here is the
//! loop around both, and the work itself. Everything is made from the stored manifest, at every try anew, so a crash
//! between two steps costs nothing but a try; where the next hop took a message and the relay crashed before it wrote
//! that down, the next hop sees it twice, as SMTP allows (RFC 5321 §6.1), and a Maildir does not. So that this stays the
//! only window, nothing is handed over while the array takes no records, and what cannot be written down at once is
//! written down later, not handed over again.
//!
//! With several relays on one database, what is due is claimed by one of them ([`Catalog::claim_due`]), and what became of
//! it counts only while that claim does.
//!
//! [`Catalog::claim_due`]: lighter_catalog::Catalog::claim_due

mod body;
mod outcome;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lighter_catalog::{CatalogError, Claim, ClaimedHandOvers, Ledger};
use lighter_protocol::ticket::TicketKey;
use lighter_protocol::{MessageId, UnixTime};
use lighter_queue::{HandOvers, Task};
use lighter_storage::Array;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ingest::Ingest;
use crate::next_hop::NextHop;

/// How long the loop sleeps at most: the wall clock may be set while it does.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// When the catalog is asked again after a question failed.
const QUESTION_RETRY: Duration = Duration::from_secs(5);

/// What handing over needs.
pub struct HandOverParts {
    /// Where the manifests and blobs lie.
    pub array: Array,
    /// What is due, and where it is written down what became of it.
    pub ledger: Ledger<Array>,
    /// Where it goes.
    pub next_hop: NextHop,
    /// Takes in what the relay writes itself: reports.
    pub ingest: Ingest,
    /// From which the links in stubs are made.
    pub tickets: TicketKey,
    /// What links begin with, no slash at the end.
    pub retrieval_url: String,
    /// The relay's name in reports.
    pub hostname: String,
    /// How long a message that the next hop does not take is tried.
    pub give_up_after: Duration,
    /// Told when something may have become due.
    pub due: Arc<Notify>,
}

/// What happened, for the loop.
enum Event {
    /// The catalog said what is due, and when the next thing will be.
    Page(Result<ClaimedHandOvers, CatalogError>),
    /// A message's hand-overs have been tried.
    Done(MessageId),
}

/// Hands over what is due, until `stop`; then lets what is on its way end.
pub async fn run(parts: HandOverParts, stop: CancellationToken) {
    let parts = Arc::new(parts);
    let mut queue = HandOvers::default();
    let mut tasks = JoinSet::new();
    let (events, mut happened) = mpsc::unbounded_channel();
    loop {
        while let Some(task) = queue.poll() {
            begin(task, &parts, &stop, &events, &mut tasks);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(event) = happened.recv() => match event {
                Event::Page(Ok(ClaimedHandOvers { claims, next })) => {
                    let page = claims.into_iter().map(|claim| (claim.due.message, claim)).collect();
                    queue.handle_page(page, next);
                }
                Event::Page(Err(error)) => {
                    tracing::warn!(%error, "the catalog does not say what is due");
                    queue.handle_page_lost(UnixTime::now().plus(QUESTION_RETRY));
                }
                Event::Done(message) => queue.handle_done(&message),
            },
            () = parts.due.notified() => queue.handle_due(),
            () = tokio::time::sleep(until(queue.next_time())) => queue.handle_time(UnixTime::now()),
            // Reaps what has ended; what it was is told by its event.
            Some(_) = tasks.join_next() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Starts one task. The queue bounds how many run.
fn begin(
    task: Task<Claim>,
    parts: &Arc<HandOverParts>,
    stop: &CancellationToken,
    events: &mpsc::UnboundedSender<Event>,
    tasks: &mut JoinSet<()>,
) {
    let (parts, stop, events) = (Arc::clone(parts), stop.clone(), events.clone());
    tasks.spawn(async move {
        let event = match task {
            Task::Fetch { count_max, except } => Event::Page(fetch(&parts, count_max, except).await),
            Task::HandOver { message, due } => {
                outcome::hand_over(&parts, message, due, &stop).await;
                Event::Done(message)
            }
        };
        // The loop is gone only when the relay stops.
        let _ = events.send(event);
    });
}

async fn fetch(
    parts: &HandOverParts,
    count_max: usize,
    except: BTreeSet<MessageId>,
) -> Result<ClaimedHandOvers, CatalogError> {
    let now = UnixTime::now();
    let claimed = parts.ledger.read(move |catalog| catalog.claim_due(now, count_max, &except)).await?;
    if parts.ledger.database().is_none() {
        return Ok(claimed);
    }
    // What another relay took in and could not claim before it died is told by nobody.
    let again = now.plus(LOOK_INTERVAL_MAX);
    Ok(ClaimedHandOvers { next: Some(claimed.next.map_or(again, |next| next.min(again))), ..claimed })
}

/// How long until `time`, bounded.
fn until(time: Option<UnixTime>) -> Duration {
    let wait = time.map_or(LOOK_INTERVAL_MAX, |time| time.since(UnixTime::now()));
    // The wall clock has whole seconds: a time that is reached within this one is reached in the next.
    wait.clamp(Duration::from_millis(200), LOOK_INTERVAL_MAX)
}
