//! A group of records on its way to a segment's members, and what their acknowledgements are worth.
//!
//! Small groups go to each member directly (SPEC C3); from the configured length on, the first member gets them and
//! passes them to the second, and answers for both (SPEC C4). Either way the writer has one key from each member's unit
//! in the end, or the group has failed. An acknowledgement counts only if it names exactly that place, that length and
//! that digest.
//!
//! Where so set, a group is *kept* once some of the members have it (SPEC B12): its writers hear so then, and the others'
//! acknowledgements come in the background. As each member takes groups in their order, one that acknowledges a group has
//! all before it as well.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::WriteError;
use super::state::Shared;
use crate::ids::{Class, DataKey, Epoch, SegmentId};
use crate::limits::ANSWER_TIME_MAX;
use crate::link::{Link, LinkError, Pending};
use crate::segment::header::{Member, SegmentHeader};
use crate::watch;
use crate::wire::{Hop, Refusal, Request, Response};

/// Whether a group is on stable storage on as many members as promised: shared by all that wait for it.
#[derive(Clone, Debug)]
pub(super) struct Durability {
    /// Where it was placed at first.
    pub(super) segment: SegmentId,
    /// Whose lane has it on its way.
    pub(super) class: Class,
    outcome: watch::Receiver<Option<Result<(), WriteError>>>,
}

/// Tells the outcome of a group.
pub(super) type Outcome = watch::Sender<Option<Result<(), WriteError>>>;

impl Durability {
    pub(super) fn new(segment: SegmentId, class: Class) -> (Outcome, Self) {
        let (outcome, receiver) = watch::channel(None);
        (outcome, Self { segment, class, outcome: receiver })
    }

    /// What is known now.
    pub(super) fn now(&self) -> Option<Result<(), WriteError>> {
        self.outcome.get()
    }

    /// Waits until it is known.
    pub(super) async fn known(&mut self) -> Result<(), WriteError> {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(known) => known.unwrap_or(Err(WriteError::InDoubt)),
            // The lane is gone: nobody knows.
            Err(_) => Err(WriteError::InDoubt),
        }
    }
}

/// Placed records, ready to be sent.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) header: Arc<SegmentHeader>,
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) digest: u32,
    pub(super) records: Vec<Bytes>,
}

/// A group that was sent: its acknowledgements are to come.
pub(super) struct Sent {
    /// For each request: the members that its answer must cover, and the answer.
    asked: Vec<(Vec<Member>, Result<Pending, LinkError>)>,
    since: Instant,
    deadline: Instant,
    header: Arc<SegmentHeader>,
    offset: u64,
    len: usize,
    digest: u32,
    kept: Option<oneshot::Sender<()>>,
}

/// A group that every member acknowledged.
#[derive(Debug)]
pub(super) struct Acknowledged {
    /// How long each took.
    pub(super) took: Vec<(Member, Duration)>,
}

/// A group that not every member acknowledged.
#[derive(Debug)]
pub(super) struct Failed {
    /// Members that did not, of which each is to blame.
    pub(super) members: Vec<Member>,
    /// Members of a chain that did not answer in time: one of them is to blame.
    pub(super) suspects: Vec<Member>,
    /// Whether it was the way between two members that failed.
    pub(super) is_chain: bool,
    /// The later epoch that was the reason.
    pub(super) fenced_by: Option<Epoch>,
}

impl Shared {
    /// Sends a group to all members. Groups of one lane reach each member in the order of these calls.
    pub(super) async fn send_group(&self, group: Group, is_chained: bool) -> Sent {
        let Group { header, offset, len, digest, records } = group;
        let since = Instant::now();
        let deadline = since + self.state().patience(&header.members, &self.config, since);
        let mut asked = Vec::new();
        for (members, hop) in self.routes(&header, is_chained) {
            let (link, target) = {
                let state = self.state();
                let first = members[0];
                let link = state.live(&first.peer).map(|live| Arc::clone(&live.writes));
                (link, state.target(self.peer, header.segment, &first))
            };
            let request = Request::Append { target, offset, forward: hop };
            let pending = match link {
                None => Err(LinkError::Closed),
                Some(link) => send(&link, &request, &records, deadline).await,
            };
            asked.push((members, pending));
        }
        Sent { asked, since, deadline, header, offset, len, digest, kept: None }
    }

    /// Whether groups may go along chains now. Never where some members are not waited for: the first of a chain
    /// answers only once the second has.
    pub(super) fn may_chain(&self) -> bool {
        let copies = self.config.copies;
        let waits_for_all = self.config.acknowledged_after(copies) == copies;
        copies > 1 && waits_for_all && self.state().chain_after.is_none_or(|after| Instant::now() >= after)
    }

    /// Which members one request covers, and where the first of them passes it on to.
    fn routes(&self, header: &SegmentHeader, is_chained: bool) -> Vec<(Vec<Member>, Option<Hop>)> {
        let chain = match &header.members[..] {
            [first, second, ..] if is_chained => self.record_of(&second.peer).map(|record| {
                let hop = Hop { peer: second.peer, address: record.address, unit: second.unit };
                (vec![*first, *second], Some(hop))
            }),
            _ => None,
        };
        let covered = if chain.is_some() { 2 } else { 0 };
        let direct = header.members.iter().skip(covered).map(|member| (vec![*member], None));
        chain.into_iter().chain(direct).collect()
    }
}

async fn send(
    link: &Link,
    request: &Request,
    records: &[Bytes],
    deadline: Instant,
) -> Result<Pending, LinkError> {
    let sending = link.send(request, records.to_vec());
    timeout_at(deadline, sending).await.unwrap_or(Err(LinkError::TimedOut))
}

impl Sent {
    /// Tells when as many members as promised have acknowledged; fails where that will not be.
    pub(super) fn kept(&mut self) -> oneshot::Receiver<()> {
        let (kept, receiver) = oneshot::channel();
        self.kept = Some(kept);
        receiver
    }

    /// Waits for all acknowledgements.
    // SPEC: B12, C3, C4
    pub(super) async fn acknowledged(self) -> Result<Acknowledged, Failed> {
        let Self { asked, since, deadline, header, offset, len, digest, mut kept } = self;
        let answers = asked.into_iter().map(async |(members, pending)| {
            let answer = match pending {
                Ok(pending) => {
                    timeout_at(deadline, pending.answer()).await.unwrap_or(Err(LinkError::TimedOut))
                }
                Err(error) => Err(error),
            };
            let judged = answer.and_then(|(response, _)| {
                let expected = members.iter().map(|member| DataKey {
                    server: member.peer,
                    unit: member.unit,
                    segment: header.segment,
                    offset,
                    length: u32::try_from(len).unwrap_or(u32::MAX),
                    deletion_day: header.deletion_day,
                });
                judge(&response, expected.collect(), digest)
            });
            (members, judged, since.elapsed())
        });
        let mut acknowledged = Acknowledged { took: Vec::new() };
        let mut failed =
            Failed { members: Vec::new(), suspects: Vec::new(), is_chain: false, fenced_by: None };
        let mut answers: FuturesUnordered<_> = answers.collect();
        while let Some((members, judged, time)) = answers.next().await {
            match judged {
                Ok(()) => {
                    acknowledged.took.extend(members.into_iter().map(|member| (member, time)));
                    if acknowledged.took.len() >= header.acknowledged_after {
                        kept.take().map(|kept| kept.send(()));
                    }
                }
                Err(error) => {
                    tracing::warn!(server = %members[0].peer, %error, "a write was not acknowledged");
                    failed.add(members, error);
                }
            }
        }
        if failed.is_none() { Ok(acknowledged) } else { Err(failed) }
    }
}

impl Failed {
    fn is_none(&self) -> bool {
        self.members.is_empty() && self.suspects.is_empty()
    }

    fn add(&mut self, members: Vec<Member>, error: LinkError) {
        if let LinkError::Refused(Refusal::Fenced { present }) = error {
            self.fenced_by = self.fenced_by.max(Some(present));
        }
        match error {
            // The first of a chain that answers is not at fault: the next one may be.
            LinkError::Refused(Refusal::Chain) => {
                self.is_chain = true;
                self.members.extend(&members[usize::from(members.len() > 1)..]);
            }
            LinkError::TimedOut if members.len() > 1 => {
                self.is_chain = true;
                self.suspects.extend(members);
            }
            // The first was asked, and did not answer as it should.
            _ => self.members.extend(members.first()),
        }
    }
}

/// An acknowledgement of another place, length or content is none.
fn judge(response: &Response, mut expected: Vec<DataKey>, digest: u32) -> Result<(), LinkError> {
    let Response::Appended { keys, digest: theirs } = response else { return Err(LinkError::Wrong) };
    let mut keys = keys.clone();
    keys.sort_unstable();
    expected.sort_unstable();
    if keys == expected && *theirs == digest { Ok(()) } else { Err(LinkError::Wrong) }
}

/// After a chain broke, groups go directly for this long.
pub(super) const CHAIN_PAUSE: Duration = Duration::from_secs(60);

const _: () = assert!(CHAIN_PAUSE.as_secs() > ANSWER_TIME_MAX.as_secs());

#[cfg(test)]
mod tests {
    use lighter_protocol::{Day, PeerId};

    use super::*;
    use crate::ids::UnitId;

    #[test]
    fn bad_input_33_an_acknowledgement_of_something_else_is_none() {
        let key = |server: PeerId| DataKey {
            server,
            unit: UnitId([1; 16]),
            segment: SegmentId([2; 16]),
            offset: 4096,
            length: 112,
            deletion_day: Day(9),
        };
        let (one, two) = (key(PeerId::random()), key(PeerId::random()));
        let appended = |keys: &[DataKey], digest| Response::Appended { keys: keys.to_vec(), digest };
        let expected = || vec![one, two];
        assert!(judge(&appended(&[two, one], 7), expected(), 7).is_ok());
        let longer = DataKey { length: 128, ..two };
        let elsewhere = DataKey { offset: 8192, ..two };
        let of_another_day = DataKey { deletion_day: Day(8), ..two };
        let bad = [
            appended(&[one, two], 8),
            appended(&[one], 7),
            appended(&[one, one], 7),
            appended(&[one, two, two], 7),
            appended(&[one, longer], 7),
            appended(&[one, elsewhere], 7),
            appended(&[one, of_another_day], 7),
            Response::Done,
        ];
        for response in bad {
            assert_eq!(judge(&response, expected(), 7), Err(LinkError::Wrong), "{response:?}");
        }
    }
}
