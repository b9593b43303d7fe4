use data_encoding::HEXLOWER;
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

const DELIVERY: DeliveryId = DeliveryId([3; 16]);

fn key() -> ContentKey {
    ContentKey::from_bytes(Zeroizing::new([5; 32]))
}

fn plain(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    let mut sealer = Sealer::new(&key(), &DELIVERY, 1, bytes.len() as u64, bytes).unwrap();
    sealer.read_to_end(&mut sealed).unwrap();
    sealed
}

fn open_as(sealed: &[u8], size: u64, delivery: DeliveryId, index: u32) -> io::Result<Vec<u8>> {
    let mut opened = Vec::new();
    Opener::new(&key(), &delivery, index, size, sealed).unwrap().read_to_end(&mut opened)?;
    Ok(opened)
}

fn open(sealed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    open_as(sealed, size as u64, DELIVERY, 1)
}

/// Sizes around the borders of frames.
fn sizes() -> Vec<usize> {
    let around = |len: usize| [len.saturating_sub(1), len, len + 1];
    let mut sizes: Vec<_> = (0..4).flat_map(|frames| around(frames * FRAME_LEN)).collect();
    sizes.dedup();
    sizes
}

#[test]
fn what_is_sealed_opens_whatever_its_size() {
    for size in sizes() {
        let bytes = plain(size);
        let sealed = seal(&bytes);
        assert_eq!(sealed.len() as u64, sealed_size(size as u64), "{size}");
        assert_eq!(open(&sealed, size).unwrap(), bytes, "{size}");
    }
}

#[test]
fn bad_input_34_a_sealed_blob_changed_in_any_byte_does_not_open() {
    let bytes = plain(FRAME_LEN + 100);
    let sealed = seal(&bytes);
    for at in (0..sealed.len()).step_by(97).chain(sealed.len() - 20..sealed.len()) {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(open(&changed, bytes.len()).is_err(), "byte {at}");
    }
}

#[test]
fn bad_input_34_a_sealed_blob_cut_off_or_extended_does_not_open() {
    for size in sizes() {
        let sealed = seal(&plain(size));
        for cut in [1, TAG_LEN, FRAME_LEN + TAG_LEN].into_iter().filter(|cut| *cut <= sealed.len()) {
            assert!(open(&sealed[..sealed.len() - cut], size).is_err(), "{size} without {cut}");
        }
        // Cut off at a frame's end, and said to be shorter: the last frame was not sealed as the last.
        if size > FRAME_LEN {
            let short = (size - 1) / FRAME_LEN * FRAME_LEN;
            let cut = usize::try_from(sealed_size(short as u64)).unwrap();
            assert!(open(&sealed[..cut], short).is_err(), "{size} as {short}");
        }
        let mut longer = sealed.clone();
        longer.push(0);
        assert!(open(&longer, size).is_err(), "{size} and a byte");
        longer.extend_from_slice(&sealed);
        assert!(open(&longer, size).is_err(), "{size} twice");
    }
}

#[test]
fn bad_input_34_frames_that_change_places_or_blobs_do_not_open() {
    let size = 3 * FRAME_LEN;
    let sealed = seal(&plain(size));
    let frames: Vec<_> = sealed.chunks(FRAME_LEN + TAG_LEN).collect();
    for order in [[1, 0, 2], [0, 2, 1], [0, 0, 2]] {
        let swapped = order.map(|at| frames[at]).concat();
        assert!(open(&swapped, size).is_err(), "{order:?}");
    }
    assert!(open_as(&sealed, size as u64, DELIVERY, 1).is_ok());
    assert!(open_as(&sealed, size as u64, DELIVERY, 2).is_err(), "as another blob");
    assert!(open_as(&sealed, size as u64, DeliveryId([4; 16]), 1).is_err(), "of another delivery");
}

#[test]
fn a_file_that_shrank_meanwhile_is_not_sealed() {
    let mut sealer = Sealer::new(&key(), &DELIVERY, 0, 10, &[1_u8; 9][..]).unwrap();
    assert_eq!(sealer.read(&mut [0; 100]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

/// Waiting at relays in this form.
#[test]
fn golden_sealed_blobs() {
    assert_eq!(HEXLOWER.encode(&seal(b"")), GOLDEN_EMPTY); // a tag alone
    assert_eq!(HEXLOWER.encode(&seal(b"lighter")), GOLDEN_SHORT); // seven bytes and a tag
    assert_eq!(blake3::hash(&seal(&plain(2 * FRAME_LEN + 5))).to_hex().as_str(), GOLDEN_LONG);
}

const GOLDEN_EMPTY: &str = "bf8075f1a09a4c375035d13ad29a6a2c";
const GOLDEN_SHORT: &str = "28b20b9d88e3f45c19871a77f5550bc979515d8b3e4cf7";
const GOLDEN_LONG: &str = "baae5bbe5366582e8b84efe74e2629a0f4826085eab290538d753fd41c33179f";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn opened_through_reads_of_any_length_it_is_the_same(size in 0_usize..200_000, piece in 1_usize..100_000) {
        let bytes = plain(size);
        let sealed = seal(&bytes);
        let mut opener = Opener::new(&key(), &DELIVERY, 1, size as u64, sealed.as_slice()).unwrap();
        let (mut opened, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match opener.read(&mut buffer).unwrap() {
                0 => break,
                len => opened.extend_from_slice(&buffer[..len]),
            }
        }
        prop_assert_eq!(opened, bytes);
    }
}
