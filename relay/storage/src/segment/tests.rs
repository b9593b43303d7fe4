use lighter_protocol::{Day, Keypair, PeerId, UnixTime};
use proptest::prelude::*;

use super::footer::{Hole, IndexEntry, Summary, encode_holes, encode_index};
use super::header::{Closed, Member, SegmentHeader};
use super::scan::{Scan, scan};
use super::stub::{ObjectPlace, Stub, StubError, segment_of_stub, stub_name};
use super::*;
use crate::disk::sim::{SimDisk, SimFile};
use crate::disk::{Disk, DiskFile};
use crate::ids::{Class, Epoch, ObjectId, Sequence, UnitId};
use crate::keys::WRAPPED_LEN;
use crate::objects::ObjectName;
use crate::record::{AppendDigest, Kind, RECORD_HEADER_LEN, UnplacedRecord};

const SEGMENT: SegmentId = SegmentId([7; 16]);

fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

fn header() -> SegmentHeader {
    SegmentHeader {
        segment: SEGMENT,
        class: Class::Days30,
        storage_day: Day(20_000),
        deletion_day: Class::Days30.deletion_day(Day(20_000)),
        epoch: Epoch(9),
        writer: peer(1),
        members: vec![
            Member { peer: peer(2), unit: UnitId([0x22; 16]) },
            Member { peer: peer(3), unit: UnitId([0x33; 16]) },
        ],
        acknowledged_after: 2,
        day_key: Some([0xEE; WRAPPED_LEN]),
        closed: vec![
            Closed { segment: SegmentId([0x44; 16]), length: 0x2000, goes_on: true },
            Closed { segment: SegmentId([0x55; 16]), length: 4096, goes_on: false },
        ],
    }
}

#[test]
fn the_header_block_is_these_bytes() {
    let block = header().encode();
    assert_eq!(block.len(), 4096);
    assert_eq!(&block[..8], b"LTRSEG1\n"); // magic
    assert_eq!(block[8..24], [7; 16]); // segment
    assert_eq!(block[24..28], [30, 0, 0, 2]); // class, flags, members
    assert_eq!(block[28..32], [0x20, 0x4E, 0, 0]); // storage day 20000
    assert_eq!(block[32..36], [0x45, 0x4E, 0, 0]); // deletion day 20037
    assert_eq!(block[36..48], [2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]); // segments closed, zero, epoch
    assert_eq!(block[48..108], [0xEE; 60]); // wrapped day key
    assert_eq!(block[112..118], [38, 0x00, 0x24, 0x08, 0x01, 0x12]); // the writer's PeerId
    assert_eq!(block[240..256], [0x22; 16]); // the first member's unit
    assert_eq!(block[320..336], [0x33; 16]); // the second member's unit
    assert_eq!(block[816..832], [0x44; 16]); // the first closed segment
    assert_eq!(block[832..848], [0, 0x20, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // its length, goes on here
    assert_eq!(block[848..864], [0x55; 16]); // the second
    assert_eq!(SegmentHeader::decode(&block), Ok(header()));

    let erased = SegmentHeader { day_key: None, ..header() };
    assert_eq!(SegmentHeader::decode(&erased.encode()), Ok(erased));
}

// SPEC: B12
#[test]
fn a_header_says_after_how_many_members_its_records_count_in_one_way_only() {
    let later = SegmentHeader { acknowledged_after: 1, ..header() };
    let mut block = later.encode();
    assert_eq!(block[36..40], [2, 0, 1, 0]);
    assert_eq!(SegmentHeader::decode(&block), Ok(later));
    for wrong in [2, 3, 9, 255] {
        block[38] = wrong;
        let crc = crc32c::crc32c(&block[..4092]);
        block[4092..].copy_from_slice(&crc.to_le_bytes());
        assert!(SegmentHeader::decode(&block).is_err(), "{wrong}");
    }
}

#[test]
fn every_changed_byte_of_a_header_block_is_found() {
    let block = header().encode();
    for at in 0..block.len() {
        let mut bad = block.clone();
        bad[at] ^= 1;
        assert!(SegmentHeader::decode(&bad).is_err(), "byte {at}");
        // Under a right checksum, too: decoded is either refused or says what stands there.
        let crc = crc32c::crc32c(&bad[..4092]).to_le_bytes();
        bad[4092..].copy_from_slice(&crc);
        if let Ok(decoded) = SegmentHeader::decode(&bad) {
            assert_eq!(decoded.encode(), bad, "byte {at}");
        }
    }
}

fn summary() -> Summary {
    let index = encode_index(&index());
    Summary {
        segment: SEGMENT,
        length: 8192,
        records: 3,
        first: Sequence(1),
        last: Sequence(5),
        root: [0xAB; 32],
        catalog_records: 2,
        index_crc: crc32c::crc32c(&index),
        holes: 0,
        hole_bytes: 0,
    }
}

fn index() -> [IndexEntry; 2] {
    [
        IndexEntry { sequence: Sequence(2), offset: 4096, length: 96 },
        IndexEntry { sequence: Sequence(5), offset: 8096, length: 96 },
    ]
}

#[test]
fn the_footer_of_a_thinned_segment_is_these_bytes() {
    let holes = [Hole { offset: 4192, length: 65_536 }, Hole { offset: 70_000, length: 70_000 }];
    let entries = &index()[..1];
    let index = [encode_index(entries), encode_holes(&holes)].concat();
    assert_eq!(index[16..32], [0x60, 0x10, 0, 0, 0, 0, 1, 0, 0x70, 0x11, 1, 0, 0x70, 0x11, 1, 0]);
    let thinned = Summary {
        length: 200_000,
        catalog_records: 1,
        index_crc: crc32c::crc32c(&index),
        holes: 2,
        hole_bytes: 135_536,
        ..summary()
    };
    let bytes = thinned.encode();
    assert_eq!(
        bytes[96..124],
        [2, 0, 0, 0, 0x70, 0x11, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(Summary::decode(&bytes, SEGMENT, 200_000 + 32 + 128), Ok(thinned));
    assert_eq!(thinned.decode_index(&index).unwrap(), entries);
    assert_eq!(thinned.decode_holes(&index).unwrap(), holes);
    assert_eq!(thinned.stored_len(), 200_000 - 4096 - 135_536);
    for impossible in [
        Summary { holes: 3, ..thinned },
        Summary { holes: 0, ..thinned },
        Summary { hole_bytes: 131_071, ..thinned },
        Summary { hole_bytes: 200_000, ..thinned },
    ] {
        let file_len = impossible.file_len();
        assert!(Summary::decode(&impossible.encode(), SEGMENT, file_len).is_err(), "{impossible:?}");
    }
}

#[test]
fn the_footer_is_these_bytes() {
    let bytes = summary().encode();
    assert_eq!(&bytes[..8], b"LTRSEAL1"); // magic
    assert_eq!(bytes[8..24], [7; 16]); // segment
    assert_eq!(bytes[24..32], [0, 0x20, 0, 0, 0, 0, 0, 0]); // length
    assert_eq!(bytes[32..40], [3, 0, 0, 0, 0, 0, 0, 0]); // records
    assert_eq!(bytes[40..48], [1, 0, 0, 0, 0, 0, 0, 0]); // first sequence
    assert_eq!(bytes[48..56], [5, 0, 0, 0, 0, 0, 0, 0]); // last sequence
    assert_eq!(bytes[56..88], [0xAB; 32]); // root
    assert_eq!(bytes[88..92], [2, 0, 0, 0]); // entries
    assert_eq!(bytes[96..124], [0; 28]); // no holes, and zero
    let file_len = 8192 + 32 + 128;
    assert_eq!(Summary::decode(&bytes, SEGMENT, file_len), Ok(summary()));
    assert!(Summary::decode(&bytes, SEGMENT, file_len + 1).is_err());
    assert!(Summary::decode(&bytes, SegmentId([8; 16]), file_len).is_err());
    for at in 0..bytes.len() {
        let mut bad = bytes;
        bad[at] ^= 1;
        assert!(Summary::decode(&bad, SEGMENT, file_len).is_err(), "byte {at}");
    }

    let entries = encode_index(&index());
    assert_eq!(entries[..16], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 96, 0, 0, 0]);
    assert_eq!(summary().decode_index(&entries).unwrap(), index());
    let mut bad = entries;
    bad[3] ^= 1;
    assert!(summary().decode_index(&bad).is_err());
}

/// Where the footer's index comes from `index()`, so must its checksum.
fn stub() -> Stub {
    let index = encode_index(&index());
    let summary = Summary { index_crc: crc32c::crc32c(&index), ..summary() };
    let name = ObjectName { segment: SEGMENT, object: ObjectId([0xB0; 16]) };
    let place = ObjectPlace { unit: UnitId([0x22; 16]), name, moved: UnixTime(0x6A00_0001) };
    Stub { header: header(), summary, index, place }
}

#[test]
fn the_stub_is_these_bytes() {
    let stub = stub();
    let bytes = stub.encode();
    assert_eq!(bytes.len(), 4096 + 2 * 16 + 128 + 128);
    assert_eq!(bytes[..4096], header().encode()); // header block
    assert_eq!(bytes[4096..4128], encode_index(&index())); // index
    assert_eq!(bytes[4128..4256], stub.summary.encode()); // summary
    let place = &bytes[4256..];
    assert_eq!(&place[..8], b"LTROBJ1\n"); // magic
    assert_eq!(place[8..24], [7; 16]); // segment
    assert_eq!(place[24..40], [0x22; 16]); // unit
    assert_eq!(place[40..56], [0xB0; 16]); // object
    assert_eq!(place[56..64], (stub.summary.length - 4096).to_le_bytes()); // bytes of the object
    assert_eq!(place[64..72], [1, 0, 0, 0x6A, 0, 0, 0, 0]); // when it was moved
    assert_eq!(place[72..76], crc32c::crc32c(&bytes[4096..4256]).to_le_bytes()); // CRC32C of index and summary
    assert_eq!(place[76..124], [0; 48]);
    assert_eq!(place[124..], crc32c::crc32c(&place[..124]).to_le_bytes()); // CRC32C of what is before
    assert_eq!(Stub::decode(&bytes, SEGMENT), Ok(stub.clone()));
    let erased = Stub { header: SegmentHeader { day_key: None, ..header() }, ..stub };
    assert_eq!(Stub::decode(&erased.encode(), SEGMENT), Ok(erased));
    assert_eq!(segment_of_stub(&stub_name(SEGMENT)), Some(SEGMENT));
    assert_eq!(segment_of_stub(&file_name(SEGMENT)), None);
}

#[test]
fn every_changed_byte_of_a_stub_and_every_shorter_one_is_refused() {
    let bytes = stub().encode();
    for at in (0..bytes.len()).step_by(3).chain(4000..bytes.len()) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x20;
        assert!(Stub::decode(&bad, SEGMENT).is_err(), "at {at}");
        assert!(Stub::decode(&bytes[..at], SEGMENT).is_err(), "cut at {at}");
    }
    assert_eq!(Stub::decode(&bytes, SegmentId([8; 16])), Err(StubError::Part));
    assert_eq!(Stub::decode(&[], SEGMENT), Err(StubError::Length));
    let longer = [&bytes[..], &[0; 16]].concat();
    assert_eq!(Stub::decode(&longer, SEGMENT), Err(StubError::NoMagic));
    // Parts that are sound each, and do not belong together.
    let other = SegmentHeader { segment: SegmentId([8; 16]), ..header() };
    assert_eq!(Stub::decode(&Stub { header: other, ..stub() }.encode(), SEGMENT), Err(StubError::Part));
}

#[test]
fn a_file_name_is_a_segment_or_none() {
    assert_eq!(segment_of(&file_name(SEGMENT)), Some(SEGMENT));
    for other in ["unit.meta", ".seg", "00.seg", "../../x.seg"] {
        assert_eq!(segment_of(other), None, "{other}");
    }
}

/// A file with `count` records of different lengths; gives their offsets and the end. Record `i` says that all before
/// record `i - lag` was acknowledged.
fn file_of(disk: &SimDisk, count: usize, lag: usize) -> (SimFile, Vec<u64>, u64) {
    let file = disk.create("file").unwrap();
    file.write_at(0, &[1; 4096]).unwrap();
    let (mut at, mut offsets) = (RECORDS_AT, Vec::new());
    for index in 0..count {
        let acked = if index >= lag { offsets.get(index - lag).copied().unwrap_or(at) } else { RECORDS_AT };
        let mut bytes = vec![u8::try_from(index).unwrap(); RECORD_HEADER_LEN + 100 + index * 700];
        bytes[..RECORD_HEADER_LEN].fill(0);
        let record = UnplacedRecord::new(Kind::Catalog, bytes, 0);
        let sequence = Sequence(index as u64 + 1);
        let placed = record.place(SEGMENT, Epoch(9), sequence, at, acked, &[], &mut AppendDigest::default());
        file.write_at(at, &placed).unwrap();
        offsets.push(at);
        at += placed.len() as u64;
    }
    file.truncate(at + 100_000).unwrap(); // zeros written ahead
    (file, offsets, at)
}

fn scanned(file: &SimFile) -> Scan {
    let mut seen = 0;
    let found = scan(file, SEGMENT, Epoch(9), u64::MAX, |_| seen += 1).unwrap();
    assert_eq!(found.records, seen);
    found
}

#[test]
fn a_sound_log_is_found_whole() {
    let disk = SimDisk::new(1);
    let (file, _, end) = file_of(&disk, 12, 1);
    let found = scanned(&file);
    assert_eq!((found.end, found.records, found.torn), (end, 12, false));
    assert_eq!((found.first, found.last), (Sequence(1), Sequence(12)));
    assert!(found.damaged.is_empty());
}

#[test]
fn a_bad_record_that_was_not_acknowledged_ends_the_log() {
    let disk = SimDisk::new(1);
    let (file, offsets, _) = file_of(&disk, 12, 12); // nothing is known to be acknowledged
    disk.flip("file", offsets[8] + 70);
    let found = scanned(&file);
    assert_eq!((found.end, found.records, found.torn), (offsets[8], 8, true));
    assert!(found.damaged.is_empty());
}

#[test]
fn a_bad_record_that_was_acknowledged_is_damage_and_the_log_goes_on() {
    let disk = SimDisk::new(1);
    let (file, offsets, end) = file_of(&disk, 12, 2);
    disk.flip("file", offsets[3] + 70); // in the payload
    disk.flip("file", offsets[4] + 1); // in a header
    disk.flip("file", offsets[7] + 57); // in a length
    let found = scanned(&file);
    assert_eq!((found.end, found.records), (end, 9));
    assert_eq!(found.damaged, [offsets[3]..offsets[5], offsets[7]..offsets[8]]);
}

#[test]
fn what_follows_a_lost_unacknowledged_write_is_cut_with_it() {
    let disk = SimDisk::new(1);
    // Each record knows of the acknowledgement of all but the two before it. Record 9 was lost, 10 and 11 are there.
    let (file, offsets, _) = file_of(&disk, 12, 2);
    let len = usize::try_from(offsets[10] - offsets[9]).unwrap();
    file.write_at(offsets[9], &vec![0; len]).unwrap();
    let found = scanned(&file);
    assert_eq!((found.end, found.records), (offsets[9], 9));
}

#[test]
fn an_older_record_left_in_the_file_is_not_taken_for_the_log() {
    let disk = SimDisk::new(1);
    let (file, _, end) = file_of(&disk, 3, 1);
    let old = UnplacedRecord::new(Kind::Catalog, vec![0; RECORD_HEADER_LEN + 10], 0);
    let placed = old.place(SEGMENT, Epoch(8), Sequence(99), end, end, &[], &mut AppendDigest::default());
    file.write_at(end, &placed).unwrap();
    assert_eq!(scanned(&file).end, end);
}

proptest! {
    #[test]
    fn a_scan_of_anything_ends_and_never_panics(
        flips in proptest::collection::vec((0u64..60_000, any::<u8>()), 0..40),
        lag in 0usize..6,
    ) {
        let disk = SimDisk::new(1);
        let (file, _, end) = file_of(&disk, 12, lag);
        for (at, byte) in flips {
            file.write_at(RECORDS_AT + at, &[byte]).unwrap();
        }
        let found = scanned(&file);
        prop_assert!(found.end >= RECORDS_AT && found.end <= end);
        prop_assert!(found.damaged.iter().all(|stretch| stretch.start < stretch.end && stretch.end < found.end));
    }

    #[test]
    fn blocks_and_footers_from_anywhere_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut block = header().encode();
        for (index, byte) in bytes.iter().enumerate() {
            block[8 + index] ^= byte;
        }
        let crc = crc32c::crc32c(&block[..4092]).to_le_bytes();
        block[4092..].copy_from_slice(&crc);
        let _ = SegmentHeader::decode(&block);
        let _ = SegmentHeader::decode(&bytes);
        let mut end = summary().encode();
        for (index, byte) in bytes.iter().take(116).enumerate() {
            end[8 + index] ^= byte;
        }
        let crc = crc32c::crc32c(&end[..124]).to_le_bytes();
        end[124..].copy_from_slice(&crc);
        let _ = Summary::decode(&end, SEGMENT, 8352);
        let _ = summary().decode_index(&bytes);
        let _ = Stub::decode(&bytes, SEGMENT);
        let mut stub = stub().encode();
        let at = stub.len() - 128;
        for (index, byte) in bytes.iter().take(116).enumerate() {
            stub[at + 8 + index] ^= byte;
        }
        let crc = crc32c::crc32c(&stub[at..at + 124]).to_le_bytes();
        stub[at + 124..].copy_from_slice(&crc);
        let _ = Stub::decode(&stub, SEGMENT);
    }
}
