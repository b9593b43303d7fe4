//! Settling: bringing all copies of a segment that is not written any more to one length, and sealing them.
//!
//! # Which length
//! A segment that this instance wrote ends where all its members acknowledged. One that was found open ends
//! 1. where the header of a later segment says that it was closed (the latest one, by epoch), or else
//! 2. where it was sealed, or else
//! 3. where the *longest* sound copy ends among the servers fenced at opening: every acknowledged record is on every
//!    copy, so each sound copy has them all; and where one copy was damaged at its end, the other still has what was
//!    acknowledged. (The design says the shortest; that would cut an acknowledged record after one damaged byte.)
//!
//! What lies beyond what was acknowledged is in doubt, and its writer was told so, or it lies in another segment, too.
//!
//! # When
//! A length is *decided* once whoever takes the array over finds the same: when all members had the same anyway, or
//! when the header of a later segment says it, durably on all that one's members. Before, all members must be live, or lost for good:
//! of a server that the array has no more, or of a unit that a live server has no more (its disk or folder was
//! replaced). Afterwards those that are there are sealed at once, and the others when they come back.
//!
//! # How
//! Shorter copies get the missing records from the longest; missing and failed ones are opened anew and get all of
//! them; longer ones are cut. Then each is sealed, and the footers are compared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lighter_protocol::PeerId;
use tokio::time::sleep;

use super::entry::{Entry, Stage};
use super::join::list_page;
use super::state::{Continued, Live, Shared};
use crate::ids::{Epoch, SegmentId, Sequence};
use crate::limits::{ANSWER_TIME_MAX, GROUP_LEN_MAX, SEAL_TIME_MAX};
use crate::link::LinkError;
use crate::record::UncheckedRecord;
use crate::segment::RECORDS_AT;
use crate::segment::header::{Member, SegmentHeader};
use crate::wire::{CopyState, Refusal, Request, Response, SegmentInfo, Target};

/// Why a segment could not be settled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum SettleError {
    /// A member is away: its coming back makes it due again.
    #[error("a member is away")]
    Away,
    /// A member did not do as asked.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No copy has the records that another lacks.
    #[error("no copy has the records that are missing")]
    Hole,
}

/// A member of the segment at hand.
struct Copy<'a> {
    member: &'a Member,
    live: Live,
    info: Option<SegmentInfo>,
}

impl Shared {
    /// Settles what is due, whenever something changed.
    pub(super) async fn settle_always(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            while self.settle_due().await {
                // A member was there and failed: it may be there again in a moment.
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Settles each segment whose members are all live; says whether one of them failed for another reason than a
    /// member that is away.
    pub(super) async fn settle_due(&self) -> bool {
        let mut is_to_be_retried = false;
        self.decide_found();
        for segment in self.unsettled() {
            if self.is_fenced() {
                return false;
            }
            match self.settle(segment).await {
                Ok(()) | Err(SettleError::Away) => {}
                Err(error) => {
                    tracing::warn!(%segment, %error, "a segment could not be settled yet");
                    is_to_be_retried = true;
                }
            }
        }
        is_to_be_retried
    }

    fn unsettled(&self) -> Vec<SegmentId> {
        let state = self.state();
        let due =
            state.segments.values().filter(|entry| matches!(entry.stage, Stage::Found | Stage::Closing));
        let mut due: Vec<_> = due.map(|entry| (entry.first(), entry.header.segment)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, segment)| segment).collect()
    }

    /// Says of everything found at opening where it ends: from here on every length stands, as it is what will be
    /// replayed. Those of which a member may have more are closed by the header of the next segment.
    pub(super) fn sort_found(&self) {
        self.decide_found();
        let mut state = self.state();
        state.continued = continued(&state.segments);
    }

    /// Says where each segment ends that was found and has not been seen to. One that only a server has that comes in
    /// later, since its others had nothing of it or have discarded it, ends where a header closed it, too: what that server
    /// has beyond was placed again elsewhere.
    fn decide_found(&self) {
        let mut state = self.state();
        let live: Vec<PeerId> = state.live_peers();
        let state = &mut *state;
        let closed = latest_closed(&state.segments);
        for (segment, entry) in &mut state.segments {
            if entry.stage != Stage::Found {
                continue;
            }
            let sealed = |info: &SegmentInfo| match info.state {
                CopyState::Sealed(summary) => Some(summary.length),
                _ => None,
            };
            let longest_sealed =
                entry.copies.iter().flatten().chain(entry.moved.values()).filter_map(sealed).max();
            let said = closed.get(segment).map(|(_, length)| *length);
            entry.length = said.or(longest_sealed).unwrap_or(entry.length);
            // Nothing is sealed anywhere before its length is decided, or all members were cut to it. A member that is
            // away and has another is seen to when it comes back, one that lacks it by healing.
            let mut known = entry.copies.iter().flatten().chain(entry.moved.values()).peekable();
            if known.peek().is_some() && known.all(|info| sealed(info) == Some(entry.length)) {
                (entry.stage, entry.is_decided) = (Stage::Settled, true);
                continue;
            }
            entry.stage = Stage::Closing;
            let may_have_more = |(member, copy): (&Member, &Option<SegmentInfo>)| match copy {
                Some(info) => !(matches!(info.state, CopyState::Sealed(_)) && info.length == entry.length),
                None => !live.contains(&member.peer),
            };
            if entry.header.members.iter().zip(&entry.copies).any(may_have_more) {
                state.blockers.insert(*segment);
            }
        }
    }

    async fn settle(&self, segment: SegmentId) -> Result<(), SettleError> {
        let (header, length, is_decided) = {
            let state = self.state();
            let Some(entry) = state.segments.get(&segment) else { return Ok(()) };
            (Arc::clone(&entry.header), entry.length, entry.is_decided)
        };
        if header.day_key.is_none() || header.deletion_day.end() <= (self.clock)() {
            self.forget(segment);
            return Ok(());
        }
        let (mut copies, away) = self.copies_of(&header).await?;
        if away > 0 && !is_decided || copies.is_empty() {
            return Err(SettleError::Away);
        }
        if length <= RECORDS_AT {
            for copy in &copies {
                let target = self.target_of(&header, copy.member);
                if copy.has_failed() {
                    copy.done(&Request::SetAside { target }, Vec::new()).await?;
                } else if copy.info.is_some_and(|info| info.length > RECORDS_AT) {
                    copy.done(&Request::Truncate { target, length: RECORDS_AT }, Vec::new()).await?;
                }
                copy.done(&Request::Discard { target }, Vec::new()).await?;
            }
            if away > 0 {
                return Err(SettleError::Away);
            }
            self.forget(segment);
            return Ok(());
        }
        self.bring_up(&header, length, away > 0, &mut copies).await?;
        let mut summaries = Vec::new();
        for copy in &mut copies {
            if copy.info.is_some_and(|info| info.length == length) {
                let summary = self.seal(&header, length, copy).await?;
                summaries.push(summary);
            }
        }
        if summaries.windows(2).any(|pair| !pair[0].is_same_log(&pair[1])) {
            self.count_bad_copy(segment, header.members[0].peer, "the copies differ");
        }
        let info_of = |member: &Member| copies.iter().find(|copy| copy.member == member)?.info;
        let mut state = self.state();
        // One that came back meanwhile was taken in while its copy still waited: it is its turn now.
        let has_returned = header.members.iter().any(|member| {
            let live = state.live(&member.peer).filter(|_| copies.iter().all(|copy| copy.member != member));
            live.is_some_and(|live| live.units.iter().any(|unit| unit.unit == member.unit))
        });
        if let Some(entry) = state.segments.get_mut(&segment) {
            // What one that is away lacks, it lacks until it comes back.
            let short = |copy: &Option<SegmentInfo>| copy.filter(|info| info.length < length);
            let known = header.members.iter().zip(&entry.copies);
            entry.copies = known.map(|(member, copy)| info_of(member).or_else(|| short(copy))).collect();
            // One that is away is seen to when it comes back with another length.
            entry.stage = if has_returned { Stage::Closing } else { Stage::Settled };
        }
        if away == 0 {
            state.blockers.remove(&segment);
        }
        drop(state);
        if has_returned {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Asks every member that is not lost how its copy is; says how many are away.
    async fn copies_of<'a>(&self, header: &'a SegmentHeader) -> Result<(Vec<Copy<'a>>, usize), SettleError> {
        let mut copies = Vec::with_capacity(header.members.len());
        let mut away = 0;
        for member in &header.members {
            if self.is_lost(member) {
                self.count_bad_copy(header.segment, member.peer, "its unit is no more");
                continue;
            }
            let Some(live) = self.state().live(&member.peer).cloned() else {
                away += 1;
                continue;
            };
            let stat = Request::Stat { unit: member.unit, segment: header.segment };
            let found = match list_page(&live.writes, &stat).await {
                Ok(found) => found,
                Err(error) => return Err(lost(&live, error)),
            };
            copies.push(Copy { member, live, info: found.first().map(|(_, info)| *info) });
        }
        Ok((copies, away))
    }

    /// Whether the member's copy is gone for good.
    fn is_lost(&self, member: &Member) -> bool {
        let state = self.state();
        state.server(&member.peer).is_none_or(|server| {
            let live = server.live.as_ref();
            live.is_some_and(|live| live.units.iter().all(|unit| unit.unit != member.unit))
        })
    }

    /// Brings each copy to `length`, open or sealed. One that cannot be, since no other has what it lacks, is counted
    /// and left as it is: its sound records can still be read.
    async fn bring_up(
        &self,
        header: &SegmentHeader,
        length: u64,
        is_one_away: bool,
        copies: &mut [Copy<'_>],
    ) -> Result<(), SettleError> {
        // One that failed is the source only where no other has everything, and the last to be seen to: once another
        // has everything, it can be replaced.
        let source = copies
            .iter()
            .filter(|copy| copy.info.is_some_and(|info| info.length >= length))
            .min_by_key(|copy| (copy.has_failed(), copy.info.map_or(u64::MAX, |info| info.damaged)))
            .map(|copy| (*copy.member, copy.live.clone(), copy.info.map_or(0, |info| info.damaged)));
        copies.sort_by_key(|copy| source.as_ref().is_some_and(|(member, ..)| member == copy.member));
        for copy in copies {
            let is_source = source.as_ref().is_some_and(|(member, ..)| member == copy.member);
            let is_replaceable = !is_source && source.as_ref().is_some_and(|(.., damaged)| *damaged == 0);
            self.make_appendable(header, length, copy, is_replaceable).await?;
            let Some(info) = copy.info else { continue };
            if info.length < length {
                let copied = match &source {
                    Some((member, live, _)) => self.copy_records(header, member, live, copy, length).await,
                    None => Err(SettleError::Hole),
                };
                match copied {
                    Ok(()) => {}
                    Err(SettleError::Hole) if is_one_away => return Err(SettleError::Away), // it may have them
                    Err(SettleError::Hole) => {
                        self.count_bad_copy(header.segment, copy.member.peer, "records missing everywhere");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Makes a copy sealed at `length`, or open at or below it. One that failed, or is damaged, is put aside and begun
    /// anew, if another copy has everything.
    async fn make_appendable(
        &self,
        header: &SegmentHeader,
        length: u64,
        copy: &mut Copy<'_>,
        is_replaceable: bool,
    ) -> Result<(), SettleError> {
        let target = self.target_of(header, copy.member);
        if let Some(info) = copy.info {
            match info.state {
                CopyState::Sealed(_) if info.length == length => return Ok(()),
                CopyState::Open if info.damaged > 0 && is_replaceable => {
                    copy.done(&Request::SetAside { target }, Vec::new()).await?;
                    self.count_bad_copy(header.segment, copy.member.peer, "damaged: set aside");
                }
                CopyState::Open if info.length <= length => return Ok(()),
                CopyState::Open | CopyState::Sealed(_) | CopyState::Short => {
                    let length = info.length.min(length);
                    copy.done(&Request::Truncate { target, length }, Vec::new()).await?;
                    copy.info = Some(SegmentInfo { length, state: CopyState::Open, ..info });
                    return Ok(());
                }
                CopyState::Sealing => return Err(LinkError::Refused(Refusal::State).into()),
                CopyState::Failed if is_replaceable => {
                    copy.done(&Request::SetAside { target }, Vec::new()).await?;
                    self.count_bad_copy(header.segment, copy.member.peer, "a sync failed: set aside");
                }
                // Nothing has what this copy has: it is not put aside.
                CopyState::Failed => return Err(LinkError::Refused(Refusal::Disk).into()),
            }
        }
        let open = Request::Open { unit: copy.member.unit, epoch: target.epoch, is_anew: true };
        copy.done(&open, vec![header.encode().into()]).await?;
        copy.info = Some(SegmentInfo {
            length: RECORDS_AT,
            first: Sequence::ZERO,
            state: CopyState::Open,
            damaged: 0,
            is_moved: false,
        });
        Ok(())
    }

    /// Copies records from another member, group by group, each checked on the way.
    async fn copy_records(
        &self,
        header: &SegmentHeader,
        source: &Member,
        from: &Live,
        copy: &mut Copy<'_>,
        length: u64,
    ) -> Result<(), SettleError> {
        let Some(mut info) = copy.info else { return Ok(()) };
        while info.length < length {
            let want = (length - info.length).min(GROUP_LEN_MAX as u64);
            let request = Request::ReadRange {
                unit: source.unit,
                segment: header.segment,
                offset: info.length,
                length: u32::try_from(want).unwrap_or(u32::MAX),
            };
            let read = from.writes.done(&request, Vec::new(), ANSWER_TIME_MAX).await;
            let bytes = read.map_err(|error| lost(from, error))?;
            let whole = whole_records(header.segment, info.length, &bytes);
            if whole == 0 {
                return Err(SettleError::Hole);
            }
            let target = self.target_of(header, copy.member);
            let append = Request::Append { target, offset: info.length, forward: None };
            let appended = copy.live.writes.call(&append, vec![bytes.slice(..whole)], ANSWER_TIME_MAX).await;
            appended.map_err(|error| lost(&copy.live, error))?;
            info.length += whole as u64;
            copy.info = Some(info);
        }
        Ok(())
    }

    async fn seal(
        &self,
        header: &SegmentHeader,
        length: u64,
        copy: &mut Copy<'_>,
    ) -> Result<crate::segment::footer::Summary, SettleError> {
        let target = self.target_of(header, copy.member);
        let sealed =
            copy.live.writes.call(&Request::Seal { target, length }, Vec::new(), SEAL_TIME_MAX).await;
        match sealed.map_err(|error| lost(&copy.live, error))? {
            (Response::Sealed(report), _) if report.summary.length == length => {
                if report.damaged > 0 {
                    self.count_bad_copy(header.segment, copy.member.peer, "damaged records");
                }
                let (state, damaged) = (CopyState::Sealed(report.summary), report.damaged);
                let is_moved = copy.info.is_some_and(|info| info.is_moved);
                let first = report.summary.first;
                copy.info = Some(SegmentInfo { length, first, state, damaged, is_moved });
                Ok(report.summary)
            }
            _ => Err(lost(&copy.live, LinkError::Wrong)),
        }
    }

    fn target_of(&self, header: &SegmentHeader, member: &Member) -> Target {
        self.state().target(self.peer, header.segment, member)
    }

    fn forget(&self, segment: SegmentId) {
        let mut state = self.state();
        state.segments.remove(&segment);
        state.blockers.remove(&segment);
        state.continued.retain(|_, next| next.segment != segment);
    }
}

impl Copy<'_> {
    fn has_failed(&self) -> bool {
        self.info.is_some_and(|info| info.state == CopyState::Failed)
    }

    async fn done(&self, request: &Request, data: Vec<Bytes>) -> Result<(), SettleError> {
        let done = self.live.writes.done(request, data, ANSWER_TIME_MAX).await;
        done.map(|_| ()).map_err(|error| lost(&self.live, error))
    }
}

/// How long until a segment that could not be settled is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A server that answers wrongly or not in time is taken in anew; one that refuses may be asked again later.
fn lost(live: &Live, error: LinkError) -> SettleError {
    if !matches!(error, LinkError::Refused(_)) {
        live.close();
        return SettleError::Away;
    }
    SettleError::Link(error)
}

/// What the headers say of segments that they close: for each its length, by the header of the latest epoch. One that
/// is older, and says something else, was not durable on its members when a later writer decided.
pub(super) fn latest_closed(segments: &BTreeMap<SegmentId, Entry>) -> BTreeMap<SegmentId, (Epoch, u64)> {
    let mut latest = BTreeMap::new();
    for header in segments.values().map(|entry| &entry.header) {
        for closed in &header.closed {
            let said = (header.epoch, closed.length);
            let known = latest.entry(closed.segment).or_insert(said);
            *known = (*known).max(said);
        }
    }
    latest
}

/// Where closed segments go on. Where several later ones say so, all but one were never written: the one that has
/// records counts.
fn continued(segments: &BTreeMap<SegmentId, Entry>) -> BTreeMap<SegmentId, Continued> {
    let mut found: BTreeMap<SegmentId, Continued> = BTreeMap::new();
    for entry in segments.values().filter(|entry| !entry.is_empty()) {
        for closed in entry.header.closed.iter().filter(|closed| closed.goes_on) {
            let next = Continued { length: closed.length, segment: entry.header.segment };
            found.insert(closed.segment, next);
        }
    }
    found
}

/// Bytes of the sound whole records at the front of `bytes`, which begin at `offset`.
fn whole_records(segment: SegmentId, offset: u64, bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Ok(record) = UncheckedRecord::new(&bytes[whole..]).check(segment, offset + whole as u64) {
        whole += record.header.record_len();
    }
    whole
}
