//! Going on where a member failed (SPEC C5): the segment is closed at what all members acknowledged, another is opened
//! on members that are there, and what was on its way is placed again in it.
//!
//! Where some members are not waited for, it is closed behind what is kept instead, as that was acknowledged. The members
//! that are well get what is on its way to them before; what the one that failed lacks, it gets from them when it comes
//! back, or another server gets all of it (`heal`): it does not count as a copy.
//!
//! # Why no caller sees anything but a delay
//! The new segment takes over the day key, the sequence numbers and the payloads; only the records' headers change, as
//! they say where a record lies. A place that was given out stays right: in a closed segment that goes on in another,
//! an offset at or above its length is the same distance from that one's first record (`State::resolve`). Its header
//! says so, durably on all its members before the first record is sent. So whoever takes the array over finds the same
//! end of the closed segment, whichever servers answer, and nothing of it twice.
//!
//! # When it ends
//! Where nothing was acknowledged for as long as configured, everything on its way is in doubt, and its writers hear so.

use std::collections::VecDeque;

use super::open::OPEN_PAUSE;
use super::*;
use crate::array::group::CHAIN_PAUSE;
use crate::record::UncheckedRecord;

impl Lane {
    /// A member did not acknowledge the first of the groups on their way: places that, and all others, again in another
    /// segment.
    // SPEC: C5, B12
    pub(super) async fn go_on(&mut self, failed: Failed) {
        let now = Instant::now();
        let until = *self.failing_since.get_or_insert(now) + self.shared.config.go_on_time_max;
        let mut failed_members = self.shared.blame(failed).await;
        if self.active.as_ref().is_some_and(|active| active.header.is_mirrored_later()) {
            failed_members = self.hear_others(failed_members).await;
        }
        self.acknowledgements = FuturesOrdered::new();
        self.keepings = FuturesOrdered::new();
        let groups: VecDeque<OnItsWay> = self.on_their_way.drain(..).filter(|group| !group.is_kept).collect();
        if !self.unfinished.is_empty() {
            // Not the first time for these.
            let doublings = u32::try_from(self.unfinished.len()).unwrap_or(u32::MAX).min(6);
            tokio::time::sleep(OPEN_PAUSE * (1 << doublings)).await;
        }
        let Some(active) = &mut self.active else { return in_doubt(groups) };
        let closed = Closed { segment: active.header.segment, length: active.kept, goes_on: true };
        let plan = Plan {
            storage_day: active.header.storage_day,
            deletion_day: active.header.deletion_day,
            day_key: Arc::clone(&active.day_key),
            tail: active.tail,
            until,
        };
        self.retire(Some(&failed_members));
        self.unfinished.push(closed);
        let is_over = Instant::now() > until || plan.deletion_day.end() <= (self.shared.clock)();
        if is_over || self.shared.is_fenced() || self.open_segment(plan).await.is_err() {
            tracing::error!(class = ?self.class, "no servers to go on with: what was on its way is in doubt");
            self.failing_since = None;
            self.unfinished.clear();
            return in_doubt(groups);
        }
        tracing::info!(segment = %closed.segment, groups = groups.len(), "a segment was closed, and writing goes on in another");
        self.shared.counters.went_on.fetch_add(1, Ordering::Relaxed);
        self.is_chained = false;
        for group in groups {
            self.place_again(group).await;
        }
    }

    /// Waits for what the members that are well say of the groups on their way: whoever waits for one that is kept after
    /// all hears so. Gives all that failed.
    async fn hear_others(&mut self, mut failed: Vec<Member>) -> Vec<Member> {
        loop {
            tokio::select! {
                biased;
                Some(kept) = self.keepings.next() => self.take_kept(kept),
                Some(acknowledged) = self.acknowledgements.next() => {
                    let Err(mut more) = acknowledged else { continue };
                    more.members.retain(|member| !failed.contains(member));
                    failed.extend(self.shared.blame(more).await);
                }
                else => return failed,
            }
        }
    }

    async fn place_again(&mut self, group: OnItsWay) {
        let Some(active) = &mut self.active else { return in_doubt([group]) };
        let header = Arc::clone(&active.header);
        let (offset, mut digest) = (active.next, AppendDigest::default());
        let mut records = Vec::with_capacity(group.records.len());
        for record in &group.records {
            let placed = place_again(record, &header, active.next, active.acked, &mut digest);
            active.next += placed.len() as u64;
            active.records += 1;
            records.push(placed);
        }
        let (end, len) = (active.next, usize::try_from(active.next - offset).unwrap_or(0));
        let sent = Group { header, offset, len, digest: digest.value(), records: records.clone() };
        self.on_their_way.push_back(OnItsWay { records, end, ..group });
        self.send(sent, false, end).await;
    }
}

/// The same record with another header.
fn place_again(
    record: &Bytes,
    header: &SegmentHeader,
    offset: u64,
    acked_through: u64,
    digest: &mut AppendDigest,
) -> Bytes {
    let mut bytes = record.to_vec();
    if let Ok(old) = RecordHeader::decode(record) {
        let SegmentHeader { segment, epoch, .. } = *header;
        let new = RecordHeader { segment, epoch, offset, acked_through, ..old };
        bytes[..RECORD_HEADER_LEN].copy_from_slice(&new.encode());
        if let Ok(checked) = UncheckedRecord::new(&bytes).check(segment, offset) {
            digest.add(&checked);
        }
    }
    bytes.into()
}

/// In doubt also where a member refused: another may have written it.
fn in_doubt(groups: impl IntoIterator<Item = OnItsWay>) {
    for group in groups {
        group.outcome.send_replace(Some(Err(WriteError::InDoubt)));
    }
}

impl Shared {
    /// Members that failed are connected anew by their keepers, with nothing of before still on its way, and avoided
    /// for a while; gives those.
    async fn blame(&self, failed: Failed) -> Vec<Member> {
        let Failed { mut members, suspects, is_chain, fenced_by } = failed;
        if let Some(present) = fenced_by {
            self.saw_fence(present);
        }
        // Of a chain that did not answer, those fail that do not answer anything.
        let asked = suspects.into_iter().map(async |member| {
            let link = self.state().live(&member.peer).map(|live| Arc::clone(&live.writes));
            let answered = match link {
                Some(link) => link.done(&Request::Ping, Vec::new(), self.config.write_time_min).await.is_ok(),
                None => false,
            };
            (!answered).then_some(member)
        });
        members.extend(futures_util::future::join_all(asked).await.into_iter().flatten());
        let now = Instant::now();
        let mut state = self.state();
        if is_chain {
            state.chain_after = Some(now + CHAIN_PAUSE);
        }
        for member in &members {
            if let Some(live) = state.live(&member.peer) {
                live.close();
            }
            if let Some(server) = state.server_mut(&member.peer) {
                server.health.fail(now);
            }
        }
        members
    }
}
