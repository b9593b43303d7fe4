use std::ops::Range;
use std::sync::Arc;

use bao_tree::io::fsm::encode_ranges_validated;
use bao_tree::io::outboard::PreOrderMemOutboard;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::limits::{BLOB_SIZE_MAX, RANGE_SET_RANGES_MAX};

/// Bytes that differ from chunk to chunk.
fn data(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at / 1021 + at % 251) % 256).unwrap()).collect()
}

/// Sizes at and around every edge of the tree.
fn sizes() -> Vec<usize> {
    let edges = [1024, 16 * 1024, 32 * 1024, 48 * 1024, 1 << 20, 2 << 20, 3 << 20, 5 << 20];
    let mut sizes = vec![0, 1, 2, 1023];
    for edge in edges {
        sizes.extend([edge - 1, edge, edge + 1, edge + 17 * 1024]);
    }
    sizes
}

struct InMemory(Vec<Portion>);

impl PortionSource for InMemory {
    async fn portion(&self, index: u64) -> std::io::Result<Portion> {
        self.0
            .get(usize::try_from(index).unwrap())
            .cloned()
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

fn stored(data: &[u8]) -> (PortionTree, InMemory) {
    let mut hasher = BlobHasher::new();
    let mut portions = Vec::new();
    for bytes in data.chunks(1 << 20) {
        let hashed = hasher.push(bytes).unwrap();
        portions.push(Portion { bytes: Bytes::copy_from_slice(bytes), pairs: hashed.pairs.into() });
    }
    (hasher.finish(), InMemory(portions))
}

fn encoded(data: &[u8], ranges: &ChunkRanges) -> Vec<u8> {
    let outboard = PreOrderMemOutboard::create(data, GROUP);
    let mut bytes = Vec::new();
    bao_tree::io::sync::encode_ranges_validated(data, &outboard, ranges, &mut bytes).unwrap();
    bytes
}

/// Runs a future that never waits.
fn ready<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the future waits"),
    }
}

// SPEC: D3
#[test]
fn the_root_over_portions_is_the_blake3_hash_at_every_edge_of_the_tree() {
    for size in sizes() {
        let data = data(size);
        let (tree, portions) = stored(&data);
        assert_eq!(tree.id(), BlobId::of(&data), "{size} bytes");
        assert_eq!(tree.size(), size as u64);
        assert_eq!(portion_count(tree.size()), portions.0.len() as u64);
        for (index, portion) in portions.0.iter().enumerate() {
            let len = portion_len(tree.size(), index as u64);
            assert_eq!(portion.bytes.len() as u64, len);
            assert_eq!(portion.pairs.len(), portion_pairs_len(len));
            assert!(tree.is_portion(index as u64, &portion.bytes));
        }
        let again = PortionTree::new(tree.id(), tree.size(), tree.portions().to_vec()).unwrap();
        assert_eq!(again, tree);
    }
}

#[test]
fn a_portion_alone_knows_the_id_of_its_blob() {
    for size in [1, 1024, 1025, 16 * 1024, 16 * 1024 + 1, 1 << 20] {
        let data = data(size);
        assert_eq!(HashedPortion::of(0, &data).unwrap().alone, Some(BlobId::of(&data)));
    }
    assert_eq!(HashedPortion::of(1, &[7]).unwrap().alone, None);
}

// SPEC: D3
#[test]
fn a_blob_in_portions_streams_the_same_bytes_as_bao_tree_does() {
    for size in sizes() {
        let data = data(size);
        let size = size as u64;
        let (tree, portions) = stored(&data);
        let blob = PortionBlob::new(Arc::new(tree), Arc::new(portions));
        for ranges in
            [vec![], vec![(0, 1)], vec![(size / 2, size)], vec![(0, size / 3), (size / 2, size / 2 + 70_000)]]
        {
            let chunks = chunk_ranges(&ranges, size);
            let mut bytes = Vec::new();
            ready(encode_ranges_validated(blob.clone(), blob.clone(), &chunks, &mut bytes)).unwrap();
            assert_eq!(bytes, encoded(&data, &chunks), "{size} bytes, {ranges:?}");
        }
    }
}

#[test]
fn bad_input_33_a_portion_that_storage_returns_wrong_is_never_streamed() {
    let data = data((2 << 20) + 5000);
    let (tree, mut portions) = stored(&data);
    let mut bytes = portions.0[1].bytes.to_vec();
    bytes[40_000] ^= 1;
    portions.0[1].bytes = bytes.into();
    let pairs = portions.0[2].pairs.slice(..0);
    portions.0[2] = Portion { bytes: portions.0[2].bytes.slice(1..), pairs };
    let blob = PortionBlob::new(Arc::new(tree), Arc::new(portions));
    let send = |ranges: &[(u64, u64)]| {
        let chunks = chunk_ranges(ranges, blob.portion_tree().size());
        ready(encode_ranges_validated(blob.clone(), blob.clone(), &chunks, &mut Vec::new()))
    };
    assert!(send(&[(0, 1 << 20)]).is_ok());
    assert!(send(&[(0, 2 << 20)]).is_err(), "a flipped bit");
    assert!(send(&[(2 << 20, (2 << 20) + 1)]).is_err(), "a portion that is too short");
}

#[test]
fn portions_that_make_no_blob_are_refused() {
    let data = data(3 << 20);
    let (tree, _) = stored(&data);
    let mut swapped = tree.portions().to_vec();
    swapped.swap(0, 1);
    assert_eq!(PortionTree::new(tree.id(), tree.size(), swapped), Err(TreeError::Mismatch));
    assert_eq!(
        PortionTree::new(tree.id(), tree.size() + 1, tree.portions().to_vec()),
        Err(TreeError::Count { wanted: 4, got: 3 })
    );
    assert_eq!(PortionTree::new(tree.id(), BLOB_SIZE_MAX + 1, Vec::new()), Err(TreeError::TooLarge));
    assert_eq!(PortionTree::new(tree.id(), 0, Vec::new()), Err(TreeError::Mismatch));
    assert_eq!(HashedPortion::of(0, &[]), Err(TreeError::PortionLen { index: 0, len: 0 }));
    assert_eq!(HashedPortion::of(u64::MAX, &[1]), Err(TreeError::TooLarge));
    let mut hasher = BlobHasher::new();
    hasher.push(&[1]).unwrap();
    assert_eq!(hasher.push(&[1]), Err(TreeError::AfterLast));
}

#[test]
fn ranges_are_rounded_out_to_groups_on_both_sides() {
    let size = 100_000;
    let chunks = |range: Range<u64>| ChunkRanges::from(ChunkNum(range.start)..ChunkNum(range.end));
    assert_eq!(chunk_ranges(&[], size), ChunkRanges::all());
    assert_eq!(chunk_ranges(&[(1, 2)], size), chunks(0..16));
    assert_eq!(chunk_ranges(&[(16_384, 16_385)], size), chunks(16..32));
    assert_eq!(chunk_ranges(&[(99_999, u64::MAX)], size), chunks(96..112));
    assert_eq!(chunk_ranges(&[(100_000, u64::MAX)], size), ChunkRanges::empty());
}

#[test]
fn a_range_set_says_what_is_missing() {
    let mut set = RangeSet::new();
    assert!(set.insert(16_384..32_768));
    assert!(set.insert(65_536..81_920));
    let missing: Vec<_> = set.missing(100_000).iter().collect();
    assert_eq!(missing, [0..16_384, 32_768..65_536, 81_920..100_000]);
    assert!(set.insert(0..100_000));
    assert!(set.is_whole(100_000));
    assert!(set.missing(100_000).is_empty());
    assert_eq!(set.iter().len(), 1);
}

#[test]
fn a_range_set_is_bounded() {
    let mut set = RangeSet::new();
    for index in 0..RANGE_SET_RANGES_MAX as u64 {
        assert!(set.insert(index * 10..index * 10 + 1));
    }
    assert!(!set.insert(100_000..100_001), "one range more");
    assert!(set.insert(1..10), "one that joins two");
    assert!(set.insert(100_000..100_001));
    assert!(RangeSet::from_bytes(&set.to_bytes()).is_ok());
}

#[test]
fn bad_input_35_a_range_set_that_lies_is_refused() {
    let cases: [(&[u8], RangeSetError); 9] = [
        (&[], RangeSetError::Number(0)),
        (&[1, 0], RangeSetError::Number(2)),
        (&[0x80, 0], RangeSetError::Number(0)),
        (&[1, 0, 0], RangeSetError::Range(0)),
        (&[2, 0, 1, 0, 1], RangeSetError::Range(1)),
        (&[1, 0, 1, 9], RangeSetError::LeftOver),
        (&[0xff, 0xff, 0xff, 0xff, 0x0f], RangeSetError::TooMany),
        (&[1, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20], RangeSetError::Beyond(0)),
        (&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1], RangeSetError::Beyond(0)),
    ];
    for (bytes, error) in cases {
        assert_eq!(RangeSet::from_bytes(bytes), Err(error), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn a_range_set_is_the_union_of_what_went_in(ranges in prop::collection::vec((0_u64..300, 0_u64..40), 0..40)) {
        let mut set = RangeSet::new();
        let mut model = [false; 400];
        for (start, len) in ranges {
            set.insert(start..start + len);
            model[usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap()].fill(true);
        }
        for (at, known) in (0_u64..).zip(model) {
            prop_assert_eq!(set.contains(&(at..at + 1)), known);
        }
        let mut end = None;
        for range in set.iter() {
            prop_assert!(range.start < range.end && end.is_none_or(|end| end < range.start));
            end = Some(range.end);
        }
        prop_assert_eq!(set.len(), model.iter().filter(|known| **known).count() as u64);
        prop_assert_eq!(RangeSet::from_bytes(&set.to_bytes()).unwrap(), set);
    }

    #[test]
    fn taking_out_and_taking_the_first_are_what_they_say(
        ours in prop::collection::vec((0_u64..300, 0_u64..40), 0..20),
        theirs in prop::collection::vec((0_u64..300, 0_u64..40), 0..20),
        len in 0_u64..200_000,
        count in 0_usize..5,
    ) {
        let set = |ranges: &[(u64, u64)]| -> RangeSet { ranges.iter().map(|(at, len)| *at..at + len).collect() };
        let (ours, theirs) = (set(&ours), set(&theirs));
        let mut rest = ours.clone();
        rest.subtract(&theirs);
        for at in 0..400 {
            let here = at..at + 1;
            prop_assert_eq!(rest.contains(&here), ours.contains(&here) && !theirs.contains(&here));
        }
        let groups: RangeSet = ours.iter().map(|range| range.start * GROUP_LEN..range.end * GROUP_LEN).collect();
        let first = groups.take(len, count);
        prop_assert!(first.len() < len + GROUP_LEN && first.iter().len() <= count);
        prop_assert!(count < groups.iter().len() || first.len() >= len.min(groups.len()));
        let mut outside = first;
        outside.subtract(&groups);
        prop_assert!(outside.is_empty());
    }

    #[test]
    fn what_a_range_set_decodes_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(set) = RangeSet::from_bytes(&bytes) {
            prop_assert_eq!(set.to_bytes(), bytes);
        }
    }

    #[test]
    fn split_pieces_are_apart_and_make_the_whole(
        ranges in prop::collection::vec((0_u64..100, 1_u64..20), 1..10),
        size in 1_600_000_u64..2_000_000,
        pieces in 1_usize..6,
    ) {
        let known: RangeSet = ranges.iter().map(|(at, len)| at * GROUP_LEN..(at + len) * GROUP_LEN).collect();
        let missing = known.missing(size);
        let sets = missing.split(pieces);
        prop_assert!(sets.len() <= pieces);
        prop_assert_eq!(sets.iter().map(RangeSet::len).sum::<u64>(), missing.len());
        let union: RangeSet = sets.iter().flat_map(|set| set.iter().collect::<Vec<_>>()).collect();
        prop_assert_eq!(union, missing);
        for range in sets.iter().flat_map(RangeSet::iter) {
            prop_assert!(range.start % GROUP_LEN == 0 && (range.end % GROUP_LEN == 0 || range.end == size));
        }
    }

    // SPEC: D3
    #[test]
    fn random_sizes_and_ranges_stream_and_decode(size in 0_usize..4_000_000, from in 0_u64..4_000_000, len in 1_u64..3_000_000) {
        let data = data(size);
        let (tree, portions) = stored(&data);
        let id = tree.id();
        let blob = PortionBlob::new(Arc::new(tree), Arc::new(portions));
        let chunks = chunk_ranges(&[(from, from + len)], size as u64);
        let mut bytes = Vec::new();
        ready(encode_ranges_validated(blob.clone(), blob, &chunks, &mut bytes)).unwrap();
        let mut got = vec![0; size];
        let outboard = bao_tree::io::outboard::EmptyOutboard { tree: super::tree(size as u64), root: id.hash() };
        bao_tree::io::sync::decode_ranges(bytes.as_slice(), &chunks, &mut got, outboard).unwrap();
        let (from, end) = (usize::try_from(from).unwrap().min(size), usize::try_from(from + len).unwrap().min(size));
        prop_assert_eq!(&got[from..end], &data[from..end]);
    }
}
