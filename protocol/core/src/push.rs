//! The holder's side of pushing: what the store wants, cut into streams (SPEC A6, A19).
//!
//! The store's answer to [`crate::wire::Request::PushOffer`] says what is missing. [`Pushing`] gives one [`Push`] after
//! the other, a few at a time: the manifest first, many small blobs in one, a large blob in several. The first one that
//! does not end well is the last: the store asks for what has not come, and the holder serves that like any pull. So
//! nothing depends on a push, and nothing is pushed twice.

use std::collections::VecDeque;

use crate::blob::RangeSet;
use crate::limits::{GET_RANGES_MAX, PIECE_LEN_MAX, PIECE_LEN_MIN, PUSH_PARTS_MAX, PUSH_STREAMS_MAX};
use crate::offer::Delivery;
use crate::wire::{Push, PushPart};
use crate::{BlobId, DeliveryId};

/// What is still to be pushed of one delivery.
#[derive(Clone, Debug, Hash)]
pub struct Pushing {
    delivery: DeliveryId,
    /// In order. None of them is empty.
    left: VecDeque<(BlobId, RangeSet)>,
    /// Streams that are open.
    open: usize,
}

impl Pushing {
    /// What the store `wanted` of `delivery`. What is not the delivery's is passed over: a store cannot ask so for
    /// anything else.
    pub fn new(delivery: &Delivery, wanted: &[PushPart]) -> Self {
        let part = |part: &PushPart| {
            let size = delivery.size_of(&part.blob)?;
            let within = part.ranges.iter().map(|(start, end)| *start..(*end).min(size));
            let ranges: RangeSet = within.filter(|range| range.start < range.end).collect();
            (!ranges.is_empty()).then_some((part.blob, ranges))
        };
        Self { delivery: delivery.id, left: wanted.iter().filter_map(part).collect(), open: 0 }
    }

    /// The next stream to open, where one may be: its parts are sent behind it, in order. To be followed by
    /// [`Pushing::handle_end`].
    pub fn poll(&mut self) -> Option<Push> {
        if self.left.is_empty() || self.open >= PUSH_STREAMS_MAX {
            return None;
        }
        let all: u64 = self.left.iter().map(|(_, ranges)| ranges.len()).sum();
        let free = (PUSH_STREAMS_MAX - self.open) as u64;
        let mut room = all.div_ceil(free).clamp(PIECE_LEN_MIN, PIECE_LEN_MAX);
        let mut ranges_left = GET_RANGES_MAX;
        let mut parts = Vec::new();
        while room > 0 && ranges_left > 0 && parts.len() < PUSH_PARTS_MAX {
            let Some((blob, ranges)) = self.left.front_mut() else { break };
            let piece = ranges.take(room, ranges_left);
            ranges.subtract(&piece);
            room = room.saturating_sub(piece.len());
            ranges_left -= piece.iter().len();
            parts.push(PushPart { blob: *blob, ranges: piece.to_wire() });
            if ranges.is_empty() {
                self.left.pop_front();
            }
        }
        self.open += 1;
        Some(Push { delivery: self.delivery, parts })
    }

    /// A stream ended: `well` where the store said that it has all of it. Otherwise nothing more is pushed.
    pub fn handle_end(&mut self, well: bool) {
        self.open = self.open.saturating_sub(1);
        if !well {
            self.left.clear();
        }
    }

    /// Nothing more is pushed: this side's limits, or the connection, do not let it.
    pub fn stop(&mut self) {
        self.left.clear();
    }

    /// Whether nothing is left to be opened, and nothing open.
    pub fn is_over(&self) -> bool {
        self.left.is_empty() && self.open == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{blob, bob, now};
    use crate::wire::Check;

    fn delivery(sizes: &[u64]) -> Delivery {
        let mut blobs: Vec<_> = sizes.iter().map(|size| blob(7, *size)).collect();
        for (number, blob) in (0_u32..).zip(&mut blobs) {
            blob.id.0[..4].copy_from_slice(&number.to_le_bytes());
        }
        Delivery {
            id: DeliveryId([9; 16]),
            mailbox: bob(),
            manifest: blob(1, 5_000),
            blobs,
            sources: Vec::new(),
            expires: now().wall,
        }
    }

    fn whole(delivery: &Delivery) -> Vec<PushPart> {
        let all = std::iter::once(&delivery.manifest).chain(&delivery.blobs);
        all.map(|offered| PushPart { blob: offered.id, ranges: vec![(0, offered.size)] }).collect()
    }

    // SPEC: A6
    #[test]
    fn many_small_blobs_take_few_streams_with_the_manifest_in_front() {
        let delivery = delivery(&[10_000; 1_000]);
        let mut pushing = Pushing::new(&delivery, &whole(&delivery));
        let mut streams = 0;
        while let Some(push) = pushing.poll() {
            assert!(streams > 0 || push.parts[0].blob == delivery.manifest.id);
            push.check().unwrap();
            pushing.handle_end(true);
            streams += 1;
        }
        assert!(streams <= 10 && pushing.is_over(), "{streams}");
    }

    // SPEC: A6
    #[test]
    fn nothing_more_is_pushed_after_one_that_did_not_end_well() {
        let delivery = delivery(&[300 << 20]);
        let mut pushing = Pushing::new(&delivery, &whole(&delivery));
        let open = std::iter::from_fn(|| pushing.poll()).count();
        assert_eq!(open, PUSH_STREAMS_MAX);
        pushing.handle_end(false);
        assert!(pushing.poll().is_none() && !pushing.is_over(), "the others are let end");
        (1..open).for_each(|_| pushing.handle_end(true));
        assert!(pushing.is_over());
    }

    // SPEC: A6
    #[test]
    fn a_store_cannot_want_what_is_not_in_the_delivery() {
        let delivery = delivery(&[100_000]);
        let wanted = [
            PushPart { blob: BlobId([66; 32]), ranges: vec![(0, 100)] },
            PushPart { blob: delivery.blobs[0].id, ranges: vec![(16_384, 1 << 40)] },
            PushPart { blob: delivery.manifest.id, ranges: vec![(5_000, 6_000)] },
        ];
        let push = Pushing::new(&delivery, &wanted).poll().unwrap();
        let within = PushPart { blob: delivery.blobs[0].id, ranges: vec![(16_384, 100_000)] };
        assert_eq!(push.parts, [within]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        // SPEC: A6
        #[test]
        fn all_that_is_wanted_is_pushed_once_and_every_push_is_within_its_bounds(
            sizes in proptest::collection::vec(1_u64..400_000_000, 0..300),
            gaps in proptest::collection::vec(0_u64..10_000, 0..600),
            ends in proptest::collection::vec(any::<bool>(), 0..50),
        ) {
            let delivery = delivery(&sizes);
            let mut gaps = gaps.into_iter();
            let mut wanted = Vec::new();
            for offered in std::iter::once(&delivery.manifest).chain(&delivery.blobs) {
                // What is here already, as groups.
                let have: RangeSet = gaps.by_ref().take(2).map(|at| at * 32_768..at * 32_768 + 16_384).collect();
                let ranges = have.missing(offered.size).to_wire();
                if !ranges.is_empty() {
                    wanted.push(PushPart { blob: offered.id, ranges });
                }
            }
            let set = |parts: &[PushPart], blob: BlobId| -> RangeSet {
                let of = parts.iter().filter(|part| part.blob == blob);
                of.flat_map(|part| part.ranges.iter().map(|(start, end)| *start..*end)).collect()
            };
            let mut pushing = Pushing::new(&delivery, &wanted);
            let (mut pushed, mut open, mut ends) = (Vec::<PushPart>::new(), 0, ends.into_iter());
            while !pushing.is_over() {
                match pushing.poll() {
                    Some(push) => {
                        push.check().unwrap();
                        for part in &push.parts {
                            let mut again = set(&pushed, part.blob);
                            let before = again.len();
                            again.subtract(&set(std::slice::from_ref(part), part.blob));
                            prop_assert_eq!(again.len(), before, "pushed twice");
                            pushed.push(part.clone());
                        }
                        open += 1;
                        prop_assert!(open <= PUSH_STREAMS_MAX);
                        if ends.next().unwrap_or_default() {
                            pushing.handle_end(true);
                            open -= 1;
                        }
                    }
                    None => {
                        pushing.handle_end(true);
                        open -= 1;
                    }
                }
            }
            for part in &wanted {
                prop_assert_eq!(set(&pushed, part.blob), set(&wanted, part.blob));
            }
        }
    }
}
