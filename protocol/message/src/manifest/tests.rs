use super::*;
use crate::limits::LITERAL_LEN_MAX;

fn entry() -> PartEntry {
    PartEntry {
        blob: BlobId([0xaa; 32]),
        size: 300,
        recipe: "b64:76:crlf:crlf".parse().unwrap(),
        name: "a.pdf".to_owned(),
        media_type: "application/pdf".to_owned(),
        header: b"X: y\r\n\r\n".to_vec(),
    }
}

/// Literal, part, end, as a writer gives them.
fn manifest() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ManifestWriter::new();
    writer.literal(b"--b\r\n", |frame| bytes.extend_from_slice(&frame));
    writer.part(&entry(), |frame| bytes.extend_from_slice(&frame));
    // 5 literal, 8 of header, 400 characters in 6 lines with their 5 breaks, and the tail.
    let totals =
        Totals { length: 5 + 8 + 400 + 10 + 2, hash: [0xbb; 32], parts: 1, line_ends: LineEnds::CrLf };
    assert_eq!(writer.line_ends(), LineEnds::CrLf);
    writer.end(&totals, |frame| bytes.extend_from_slice(&frame));
    bytes
}

/// Reads `bytes` cut in pieces of `len`.
fn read(bytes: &[u8], len: usize) -> Result<Vec<Entry>, ManifestError> {
    let mut reader = ManifestReader::new();
    let mut entries = Vec::new();
    for piece in bytes.chunks(len) {
        reader.push(piece);
        while let Some(entry) = reader.next_entry()? {
            entries.push(entry);
        }
    }
    reader.finish().map(|()| entries)
}

#[test]
fn golden_bytes() {
    let bytes = manifest();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let mut expected = String::new();
    expected += "4c4748544d414e01"; // magic "LGHTMAN", version 1
    expected += "0105000000"; // literal of 5 bytes
    expected += "2d2d620d0a"; // "--b" CR LF
    expected += "0249000000"; // part, 73 bytes
    expected += &"aa".repeat(32); // its blob
    expected += "ac02"; // size 300, as a varint
    expected += "01014c0000"; // base64; broken into lines; of 76 (varint); with CR LF; nothing cut
    expected += "020d0a"; // tail of 2 bytes: CR LF
    expected += "05612e706466"; // name, 5 bytes: "a.pdf"
    expected += "0f6170706c69636174696f6e2f706466"; // type, 15 bytes: "application/pdf"
    expected += "08583a20790d0a0d0a"; // header block, 8 bytes
    expected += "0324000000"; // end, 36 bytes
    expected += "a903"; // length 425, as a varint
    expected += &"bb".repeat(32); // hash
    expected += "01"; // one part
    expected += "01"; // all lines end with CR LF
    assert_eq!(hex(&bytes), expected);
}

#[test]
fn a_manifest_is_read_however_it_is_cut() {
    let bytes = manifest();
    let whole = read(&bytes, bytes.len()).unwrap();
    assert_eq!(whole.len(), 3);
    assert_eq!(whole[1], Entry::Part(Box::new(entry())));
    for len in 1..40 {
        assert_eq!(read(&bytes, len).unwrap(), whole);
    }
}

#[test]
fn a_manifest_that_is_cut_off_anywhere_is_refused() {
    let bytes = manifest();
    for len in 0..bytes.len() {
        assert_eq!(read(&bytes[..len], 7), Err(ManifestError::CutOff), "{len} bytes");
    }
}

#[test]
fn a_manifest_with_any_byte_changed_is_refused_or_says_something_else() {
    let bytes = manifest();
    let whole = read(&bytes, 1_000).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x41;
        if let Ok(entries) = read(&changed, 1_000) {
            assert_ne!(entries, whole, "byte {at}");
        }
    }
}

#[test]
fn what_is_no_manifest_is_refused_at_once() {
    let refused = |bytes: &[u8], error| assert_eq!(read(bytes, 1_000), Err(error), "{bytes:?}");
    let with = |tail: &[u8]| [MAGIC.as_slice(), tail].concat();
    refused(b"LGHTMAN\x02", ManifestError::Magic);
    refused(b"Subject: x", ManifestError::Magic);
    refused(&with(&[0, 0, 0, 0, 0]), ManifestError::Frame(8));
    refused(&with(&[TAG_LITERAL, 0, 0, 0, 0]), ManifestError::Frame(8));
    // A length is refused before its bytes are waited for.
    refused(&with(&[TAG_LITERAL, 1, 0, 1, 0]), ManifestError::Frame(8));
    refused(&with(&[TAG_LITERAL, 0xff, 0xff, 0xff, 0xff]), ManifestError::Frame(8));
    refused(&with(&[TAG_PART, 0, 0, 1, 0]), ManifestError::Frame(8));
    refused(&with(&[TAG_PART, 1, 0, 0, 0, 7]), ManifestError::Entry(13));
    refused(&[manifest(), vec![0]].concat(), ManifestError::BehindEnd(manifest().len() as u64));
}

#[test]
fn totals_that_do_not_add_up_are_refused() {
    for (length, parts) in [(4, 0), (6, 0), (5, 1)] {
        let mut bytes = Vec::new();
        let mut writer = ManifestWriter::new();
        writer.literal(b"--b\r\n", |frame| bytes.extend_from_slice(&frame));
        let totals = Totals { length, hash: [0; 32], parts, line_ends: LineEnds::CrLf };
        writer.end(&totals, |frame| bytes.extend_from_slice(&frame));
        assert_eq!(read(&bytes, 1_000), Err(ManifestError::Totals));
    }
}

#[test]
fn a_part_whose_recipe_cannot_hold_is_refused() {
    for recipe in ["b64:76:crlf:cut=2:crlf", "b64:76:crlf:cut=1:crlf"] {
        let mut bytes = Vec::new();
        let mut writer = ManifestWriter::new();
        let part = PartEntry { recipe: recipe.parse().unwrap(), ..entry() };
        writer.part(&part, |frame| bytes.extend_from_slice(&frame));
        assert_eq!(read(&bytes, 1_000), Err(ManifestError::Entry(13)), "{recipe}");
    }
}

#[test]
fn literal_frames_are_bounded() {
    let mut frames = Vec::new();
    let mut writer = ManifestWriter::new();
    writer.literal(&vec![b'x'; 3 * LITERAL_LEN_MAX + 1], |frame| frames.push(frame));
    assert!(frames.iter().all(|frame| frame.len() <= LITERAL_LEN_MAX + FRAME_HEAD_LEN + MAGIC.len()));
    assert_eq!(frames.len(), 3);
}
