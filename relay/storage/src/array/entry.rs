//! A segment, as the array knows it: what it is, who has a copy, and how that is.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::Sequence;
use crate::keys::DayKey;
use crate::segment::RECORDS_AT;
use crate::segment::footer::Summary;
use crate::segment::header::{Member, SegmentHeader};
use crate::wire::{CopyState, SegmentInfo};

/// A segment, as the array knows it.
pub(super) struct Entry {
    pub(super) header: Arc<SegmentHeader>,
    /// `None` where it does not open: then nothing of the segment can be read.
    pub(super) day_key: Option<Arc<DayKey>>,
    /// What each member said of its copy; `None`: nothing yet, or that it has none.
    pub(super) copies: Vec<Option<SegmentInfo>>,
    /// Units that are no members and have a copy all the same: it was moved there, whole and sealed.
    pub(super) moved: BTreeMap<Member, SegmentInfo>,
    /// What counts: records below are the log, whatever a copy has beyond.
    pub(super) length: u64,
    /// While it is written: all members have what is below. Less than the length where some get it in the background.
    pub(super) on_all: u64,
    /// Whoever takes the array over will find the same length: members that are there need not wait for the others.
    pub(super) is_decided: bool,
    pub(super) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Found at opening; its length is still what the longest copy says.
    Found,
    /// A lane writes it.
    Active,
    /// Its length is fixed; it is not yet sealed on all members.
    Closing,
    /// Sealed on all members, or as well as it can be.
    Settled,
}

impl Entry {
    pub(super) fn see_copy(&mut self, holder: Member, info: SegmentInfo) {
        match self.header.members.iter().position(|member| *member == holder) {
            Some(position) => self.copies[position] = Some(info),
            None if matches!(info.state, CopyState::Sealed(_)) => {
                self.moved.insert(holder, info);
            }
            None => return, // no copy is begun there but by moving a whole one
        }
        let is_sealed = matches!(info.state, CopyState::Sealed(_)) && info.length == self.length;
        if self.stage == Stage::Settled && !is_sealed {
            self.stage = Stage::Closing; // it was away when the others were settled
        }
        if self.stage == Stage::Found {
            self.length = self.length.max(info.length);
        }
    }

    /// What is known of a unit's copy.
    pub(super) fn copy(&self, holder: &Member) -> Option<&SegmentInfo> {
        match self.header.members.iter().position(|member| member == holder) {
            Some(position) => self.copies.get(position)?.as_ref(),
            None => self.moved.get(holder),
        }
    }

    /// As [`Entry::copy`].
    pub(super) fn copy_mut(&mut self, holder: &Member) -> Option<&mut SegmentInfo> {
        match self.header.members.iter().position(|member| member == holder) {
            Some(position) => self.copies.get_mut(position)?.as_mut(),
            None => self.moved.get_mut(holder),
        }
    }

    /// A member that failed is not known to have more than that: what it lacks is on others only.
    pub(super) fn falls_short(&mut self, member: &Member, length: u64) {
        if let Some(position) = self.header.members.iter().position(|other| other == member) {
            let (first, state) = (Sequence::ZERO, CopyState::Open);
            self.copies[position] = Some(SegmentInfo { length, first, state, damaged: 0, is_moved: false });
        }
    }

    /// The unit has no copy any more.
    pub(super) fn lose_copy(&mut self, holder: &Member) {
        self.moved.remove(holder);
        if let Some(position) = self.header.members.iter().position(|member| member == holder) {
            self.copies[position] = None;
        }
    }

    /// The footer of a copy that is sealed at its length, without damage.
    pub(super) fn sound_summary(&self) -> Option<Summary> {
        self.copies.iter().flatten().chain(self.moved.values()).find_map(|info| match info.state {
            CopyState::Sealed(summary) if summary.length == self.length && info.damaged == 0 => Some(summary),
            _ => None,
        })
    }

    /// Units that have a copy, or may have one.
    pub(super) fn holders(&self) -> impl Iterator<Item = Member> + '_ {
        self.header.members.iter().copied().chain(self.moved.keys().copied())
    }

    /// Where its records end, as far as a footer says; and the footer: a sound copy's, where there is one.
    pub(super) fn summary(&self) -> Option<Summary> {
        self.sound_summary().or_else(|| self.any_summary())
    }

    pub(super) fn any_summary(&self) -> Option<Summary> {
        self.copies.iter().flatten().chain(self.moved.values()).find_map(|info| match info.state {
            CopyState::Sealed(summary) if summary.length == self.length => Some(summary),
            _ => None,
        })
    }

    /// The number of its first record, as far as known.
    pub(super) fn first(&self) -> Sequence {
        let known = self.copies.iter().flatten().map(|info| info.first).find(|first| *first > Sequence::ZERO);
        known.unwrap_or(Sequence::first_of(self.header.epoch))
    }

    /// Bytes that count and that are still on their way to some member.
    pub(super) fn behind(&self) -> u64 {
        if self.stage == Stage::Active { self.length.saturating_sub(self.on_all) } else { 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length <= RECORDS_AT
    }
}
