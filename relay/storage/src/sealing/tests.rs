use lighter_protocol::Day;
use lighter_protocol::blob::BlobHasher;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::ids::{Epoch, SegmentId};
use crate::record::{AppendDigest, UncheckedRecord};

struct Fixture {
    chance: StdRng,
    day: DayKey,
}

fn fixture() -> Fixture {
    let mut chance = StdRng::seed_from_u64(3);
    let day = DayKey::draw(Day(9), &mut chance);
    Fixture { chance, day }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..253u8).map(|byte| byte.wrapping_mul(7)).cycle().take(len).collect()
}

const SEGMENT: SegmentId = SegmentId([1; 16]);

/// The payload as a server keeps it.
fn payload_of(unplaced: UnplacedRecord, open: &[u8]) -> Vec<u8> {
    let mut digest = AppendDigest::default();
    let record = unplaced.place(SEGMENT, Epoch(1), Sequence(5), 4096, 4096, open, &mut digest);
    UncheckedRecord::new(&record).check(SEGMENT, 4096).unwrap().payload.to_vec()
}

fn sealed_blob(fixture: &mut Fixture, data: &[u8]) -> (PortionTree, Vec<Vec<u8>>) {
    let key = BlobKey::draw(&mut fixture.chance);
    let wrapped = fixture.day.wrap_blob_key(&key, &mut fixture.chance);
    let portions: Vec<&[u8]> = data.chunks(1024 * 1024).collect();
    let mut hasher = BlobHasher::new();
    let hashed: Vec<_> = portions.iter().map(|portion| hasher.push(portion).unwrap()).collect();
    let tree = hasher.finish();
    let mut payloads = Vec::new();
    for (index, (portion, hashed)) in (0u32..).zip(portions.iter().zip(&hashed)) {
        let end = (index as usize + 1 == portions.len()).then_some(&tree);
        let record = seal_portion(&key, index, portion, &hashed.pairs, end);
        payloads.push(payload_of(record, &wrapped));
    }
    if data.is_empty() {
        payloads.push(payload_of(seal_portion(&key, 0, &[], &[], Some(&tree)), &wrapped));
    }
    (tree, payloads)
}

#[test]
fn a_sealed_blob_opens_to_the_same_bytes() {
    let fixture = &mut fixture();
    for len in [0, 1, 16_384, 16_385, 65_536, 65_537, 1_048_576, 1_048_577, 2_500_000] {
        let data = bytes(len);
        let (tree, payloads) = sealed_blob(fixture, &data);
        let mut opened_bytes = Vec::new();
        let last = payloads.len() - 1;
        for (index, payload) in payloads.iter().enumerate() {
            let opened = open_portion(payload, &fixture.day).unwrap();
            assert_eq!(opened.index, index as u64);
            assert!(len == 0 || opened.is_proved_by(&tree), "{len} bytes, portion {index}");
            assert_eq!(opened.end.is_some(), index == last);
            if let Some(end) = &opened.end {
                assert_eq!((end.id, end.size), (BlobId::of(&data), len as u64));
                assert_eq!(end.portions, tree.portions());
            }
            opened_bytes.extend_from_slice(&opened.data);
        }
        assert!(opened_bytes == data);
    }
}

// SPEC: D7
#[test]
fn nothing_of_the_plaintext_stands_in_a_payload() {
    let fixture = &mut fixture();
    let data = vec![0x41; 200_000];
    let (tree, payloads) = sealed_blob(fixture, &data);
    for payload in &payloads {
        assert!(!payload.windows(16).any(|window| window == &data[..16]));
        assert!(!payload.windows(32).any(|window| window == tree.id().as_bytes()));
    }
    let (again_tree, again) = sealed_blob(fixture, &data);
    assert_eq!(again_tree, tree);
    assert_ne!(again, payloads, "the same blob written again shares no ciphertext");
}

#[test]
fn every_changed_byte_of_a_payload_is_found() {
    let fixture = &mut fixture();
    let (_, payloads) = sealed_blob(fixture, &bytes(100_000));
    let payload = &payloads[0];
    let mut places: Vec<usize> = (0..200).collect();
    places.extend((200..payload.len()).step_by(997));
    places.extend(payload.len() - 200..payload.len());
    for at in places {
        let mut bad = payload.clone();
        bad[at] ^= 1;
        assert!(open_portion(&bad, &fixture.day).is_err(), "byte {at}");
    }
    for len in [0, 59, 60, 79, 80, 1000, payload.len() - 1] {
        assert!(open_portion(&payload[..len], &fixture.day).is_err(), "cut at {len}");
    }
}

#[test]
fn another_portion_of_the_same_blob_is_not_taken_for_this_one() {
    let fixture = &mut fixture();
    let (tree, payloads) = sealed_blob(fixture, &bytes(2_500_000));
    let mut moved = payloads[1].clone();
    moved[60..64].copy_from_slice(&0u32.to_le_bytes());
    assert_eq!(open_portion(&moved, &fixture.day).unwrap_err(), OpenError::Cipher);
    let (other, _) = sealed_blob(fixture, &bytes(2_500_001)[1..]);
    assert!(!open_portion(&payloads[1], &fixture.day).unwrap().is_proved_by(&other));
    assert!(open_portion(&payloads[1], &fixture.day).unwrap().is_proved_by(&tree));
}

#[test]
fn a_catalog_record_opens_at_its_own_place_only() {
    let fixture = &mut fixture();
    let link = Link { sequence: Sequence(4), tag: [8; 16], deletion_day: 44 };
    for len in [0, 1, 300, 70_000, CATALOG_RECORD_LEN_MAX] {
        let record = bytes(len);
        let key = BlobKey::draw(&mut fixture.chance);
        let wrapped = fixture.day.wrap_blob_key(&key, &mut fixture.chance);
        let (unplaced, tag) = seal_catalog(&key, &wrapped, Sequence(5), &link, &record);
        let payload = payload_of(unplaced, &[]);
        assert_eq!(payload_tag(&payload), tag);
        assert_eq!(open_catalog(&payload, Sequence(5), &fixture.day), Ok((link, record)));
        assert_eq!(open_catalog(&payload, Sequence(6), &fixture.day), Err(OpenError::Cipher));
        for at in [0, 59, 60, 63, 64, 70, payload.len() - 1] {
            let mut bad = payload.clone();
            bad[at] ^= 1;
            assert!(open_catalog(&bad, Sequence(5), &fixture.day).is_err(), "byte {at}");
        }
    }
}
