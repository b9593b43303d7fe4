use proptest::prelude::*;

use super::*;

const SEGMENT: SegmentId = SegmentId([0xA5; 16]);

fn placed(payload: &[u8], offset: u64) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_HEADER_LEN];
    bytes.extend_from_slice(payload);
    let open_len = payload.len().min(3);
    let unplaced = UnplacedRecord::new(Kind::Catalog, bytes, open_len);
    let digest = &mut AppendDigest::default();
    unplaced.place(SEGMENT, Epoch(3), Sequence(77), offset, 4096, &payload[..open_len], digest)
}

#[test]
fn the_format_is_these_bytes() {
    let mut expected = Vec::new();
    expected.extend_from_slice(b"LRC1"); // magic
    expected.extend_from_slice(&[2, 0, 0, 0]); // kind: catalog; zero
    expected.extend_from_slice(&[0xA5; 16]); // segment
    expected.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]); // epoch
    expected.extend_from_slice(&[77, 0, 0, 0, 0, 0, 0, 0]); // sequence
    expected.extend_from_slice(&[0x10, 0x20, 0, 0, 0, 0, 0, 0]); // offset 0x2010
    expected.extend_from_slice(&[0x00, 0x10, 0, 0, 0, 0, 0, 0]); // acked_through 0x1000
    expected.extend_from_slice(&[5, 0, 0, 0]); // payload length
    expected.extend_from_slice(&[0x1E, 0xFC, 0x61, 0x94]); // CRC32C of the header
    expected.extend_from_slice(b"hello"); // payload
    expected.extend_from_slice(&[0x4C, 0xBB, 0x71, 0x9A]); // CRC32C of the payload
    expected.extend_from_slice(&[0; 7]); // padding to 16
    let bytes = placed(b"hello", 0x2010);
    assert_eq!(hex(&bytes), hex(&expected));
    assert_eq!(bytes.len(), record_len(5));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_placed_record_checks_and_both_sides_make_the_same_digest() {
    for len in [0, 1, 3, 4, 12, 13, 4096, 100_000] {
        let payload: Vec<u8> = (0..len).map(|index: u32| (index % 251) as u8).collect();
        let bytes = placed(&payload, 8192);
        let record = UncheckedRecord::new(&bytes).check(SEGMENT, 8192).unwrap();
        assert_eq!(record.payload, payload);
        assert_eq!(record.header.sequence, Sequence(77));
        assert_eq!(record.header.end(), 8192 + bytes.len() as u64);

        let mut with_room = vec![0; RECORD_HEADER_LEN];
        with_room.extend_from_slice(&payload);
        let unplaced = UnplacedRecord::new(Kind::Catalog, with_room, 0);
        let (mut writers, mut servers) = (AppendDigest::default(), AppendDigest::default());
        let again = unplaced.place(SEGMENT, Epoch(3), Sequence(77), 8192, 4096, &[], &mut writers);
        assert_eq!(again, bytes);
        servers.add(&record);
        assert_eq!(writers, servers);
    }
}

#[test]
fn a_record_of_another_place_is_not_taken() {
    let bytes = placed(b"hello", 8192);
    let unchecked = UncheckedRecord::new(&bytes);
    assert_eq!(unchecked.check(SEGMENT, 8208).unwrap_err(), RecordError::Misplaced);
    assert_eq!(unchecked.check(SegmentId([1; 16]), 8192).unwrap_err(), RecordError::Misplaced);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let bytes = placed(b"some payload of a few bytes", 8192);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(UncheckedRecord::new(&bad).check(SEGMENT, 8192).is_err(), "byte {at} bit {bit}");
        }
        assert!(UncheckedRecord::new(&bytes[..at]).check(SEGMENT, 8192).is_err(), "cut at {at}");
    }
}

#[test]
fn a_length_that_is_a_lie_under_a_right_checksum_is_refused() {
    let mut header = RecordHeader::decode(&placed(b"x", 8192)).unwrap();
    header.payload_len = u32::MAX;
    assert_eq!(RecordHeader::decode(&header.encode()), Err(RecordError::Field { at: 56 }));
    header.payload_len = 1;
    header.acked_through = 8208;
    assert_eq!(RecordHeader::decode(&header.encode()), Err(RecordError::Field { at: 48 }));
}

proptest! {
    #[test]
    fn bytes_from_anywhere_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), magic: bool) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 64 {
            bytes[..4].copy_from_slice(b"LRC1");
            let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
            bytes[60..64].copy_from_slice(&crc);
        }
        let _ = RecordHeader::decode(&bytes);
        let _ = UncheckedRecord::new(&bytes).check(SEGMENT, 0);
    }
}
