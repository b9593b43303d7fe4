//! `lighter-storage`: records, segments' headers, footers and whole files, frames, locations, array keys.

use std::io;

use lighter_protocol::{BlobId, Day, Keypair, PeerId, UnixTime};
use lighter_storage::disk::DiskFile;
use lighter_storage::limits::{
    DATA_LEN_MAX, MESSAGE_LEN_MAX, PAYLOAD_LEN_MAX, RECORD_ALIGN, SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX,
};
use lighter_storage::record::{
    AppendDigest, Kind, RECORD_HEADER_LEN, RecordHeader, UncheckedRecord, UnplacedRecord,
};
use lighter_storage::segment::RECORDS_AT;
use lighter_storage::segment::footer::{Hole, IndexEntry, SUMMARY_LEN, Summary, encode_holes, encode_index};
use lighter_storage::segment::header::{Member, SegmentHeader};
use lighter_storage::segment::scan::scan;
use lighter_storage::segment::verify::{Verified, Verifier};
use lighter_storage::unit::{CheckedAppend, SealReport};
use lighter_storage::wire::{
    Frame, Hop, ObjectsHealth, OutFrame, Refusal, Request, Response, ScrubProgress, Target as Copy,
    UnitHealth, UnitInfo, VERSION,
};
use lighter_storage::{ArrayKey, ArrayKeys, Class, DataKey, Epoch, SegmentId, Sequence, StoredBlob, UnitId};

use crate::Target;

/// This crate's targets.
pub const TARGETS: &[Target] = &[
    Target { name: "storage_record", run: storage_record, seeds: record_seeds },
    Target { name: "segment_header", run: segment_header, seeds: header_seeds },
    Target { name: "segment_footer", run: segment_footer, seeds: footer_seeds },
    Target { name: "segment_scan", run: segment_scan, seeds: scan_seeds },
    Target { name: "segment_verify", run: segment_verify, seeds: verify_seeds },
    Target { name: "storage_request", run: storage_request, seeds: storage_request_seeds },
    Target { name: "storage_response", run: storage_response, seeds: storage_response_seeds },
    Target { name: "stored_blob", run: stored_blob, seeds: stored_blob_seeds },
    Target { name: "array_key", run: array_key, seeds: array_key_seeds },
];

/// A record, as a read finds it; and records, as an append brings them.
pub fn storage_record(data: &[u8]) {
    if let Ok(header) = RecordHeader::decode(data) {
        assert!(header.encode() == data[..RECORD_HEADER_LEN], "one header, two encodings");
        assert!(header.payload_len as usize <= PAYLOAD_LEN_MAX && header.acked_through <= header.offset);
    }
    if let Ok(record) = UncheckedRecord::new(data).check(SEGMENT, RECORDS_AT) {
        let len = record.header.record_len();
        assert!(len <= data.len() && len.is_multiple_of(RECORD_ALIGN));
        assert!(record.payload.len() == record.header.payload_len as usize);
        assert!(UncheckedRecord::new(&data[..len]).check(SEGMENT, RECORDS_AT).is_ok(), "not by itself");
        let elsewhere = UncheckedRecord::new(data).check(SEGMENT, RECORDS_AT + RECORD_ALIGN as u64);
        assert!(elsewhere.is_err(), "sound in two places");
    }
    let bytes = data.to_vec().into();
    if let Ok(append) = CheckedAppend::check(SEGMENT, RECORDS_AT, bytes, peer(1), Epoch(3)) {
        assert!(append.len() == data.len() && !append.is_empty(), "bytes that were not checked");
    }
}

/// A segment's header block.
pub fn segment_header(data: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(data) {
        assert!(header.encode() == data, "one header, two encodings");
        assert!(header.deletion_day >= header.storage_day && !header.members.is_empty());
    }
}

/// What stands behind the records: index and summary.
pub fn segment_footer(data: &[u8]) {
    let Some(index_len) = data.len().checked_sub(SUMMARY_LEN) else { return };
    let (index, summary) = data.split_at(index_len);
    for length in [RECORDS_AT, RECORDS_AT + 4096, RECORDS_AT + (1 << 20)] {
        let Ok(summary) = Summary::decode(summary, SEGMENT, length + data.len() as u64) else { continue };
        assert!(summary.encode() == data[index_len..], "one summary, two encodings");
        assert!(summary.length == length && summary.index_len() == index.len() as u64);
        let Ok(entries) = summary.decode_index(index) else { continue };
        let holes = summary.decode_holes(index);
        if let Ok(holes) = &holes {
            assert!(holes.iter().all(|hole| hole.end() <= length), "a hole beyond the records");
            assert!(
                [encode_index(&entries), encode_holes(holes)].concat() == index,
                "one index, two encodings"
            );
        }
        assert!(holes.is_ok() || summary.holes > 0);
        let mut end = RECORDS_AT;
        for entry in entries {
            assert!(u64::from(entry.offset) >= end, "entries that overlap");
            end = u64::from(entry.offset) + u64::from(entry.length);
            assert!(end <= summary.length, "an entry beyond the records");
        }
    }
}

/// An open segment's file, as a start after a crash finds it: `data` stands behind the header block.
pub fn segment_scan(data: &[u8]) {
    let file = Memory([&[0; 4096], data].concat());
    let mut seen = Vec::new();
    let found = scan(&file, SEGMENT, Epoch(3), SEGMENT_LEN_MAX, |record| seen.push(record.header))
        .expect("memory can be read");
    assert!((RECORDS_AT..=file.0.len() as u64).contains(&found.end), "an end that is none");
    assert!(seen.len() as u64 == found.records);
    assert!(
        seen.windows(2).all(|pair| pair[0].sequence < pair[1].sequence && pair[0].end() <= pair[1].offset)
    );
    assert!(seen.last().map_or(RECORDS_AT, RecordHeader::end) == found.end, "the end is the last record's");
    for damaged in &found.damaged {
        assert!(damaged.start < damaged.end && damaged.end < found.end, "damage beyond the log");
        assert!(seen.iter().all(|header| header.end() <= damaged.start || header.offset >= damaged.end));
    }
    // Cut at its end, it is found again, and nothing is torn.
    let cut = Memory(file.0[..usize::try_from(found.end).unwrap_or(usize::MAX)].to_vec());
    let again = scan(&cut, SEGMENT, Epoch(3), SEGMENT_LEN_MAX, |_| {}).expect("memory can be read");
    assert!(again.end == found.end && again.records == found.records && again.damaged == found.damaged);
}

/// A sealed segment's whole file, as it is adopted and scrubbed: in small pieces as in large ones.
pub fn segment_verify(data: &[u8]) {
    let Some(summary_at) = data.len().checked_sub(SUMMARY_LEN) else { return };
    let Some(header) = data.get(..SEGMENT_HEADER_LEN).and_then(|block| SegmentHeader::decode(block).ok())
    else {
        return;
    };
    let Ok(summary) = Summary::decode(&data[summary_at..], header.segment, data.len() as u64) else { return };
    let file = Memory(data.to_vec());
    let judge = |piece_len: usize| {
        let mut verifier = Verifier::new(header.clone(), summary);
        loop {
            match verifier.step(&file, piece_len).expect("memory can be read") {
                Verified::Piece(len) => assert!(len > 0 && len <= piece_len as u64),
                Verified::Whole { damaged } => break damaged,
            }
        }
    };
    let damaged = judge(256);
    assert!((damaged == 0) == (judge(1 << 20) == 0), "the pieces decide what is sound");
    if damaged > 0 {
        return;
    }
    let length = usize::try_from(summary.length).unwrap_or(usize::MAX);
    assert!(*blake3::hash(&data[SEGMENT_HEADER_LEN..length]).as_bytes() == summary.root);
    let found =
        scan(&file, header.segment, header.epoch, summary.length, |_| {}).expect("memory can be read");
    assert!(found.end == summary.length && found.records == summary.records && found.damaged.is_empty());
    assert!(summary.decode_index(&data[length..summary_at]).is_ok());
}

/// A stream of frames that a server reads.
pub fn storage_request(data: &[u8]) {
    frames::<Request>(data);
}

/// A stream of frames that a writer reads.
pub fn storage_response(data: &[u8]) {
    frames::<Response>(data);
}

fn frames<M: serde::Serialize + for<'a> serde::Deserialize<'a> + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let mut rest = data;
    while let Some(Ok(frame)) = at_once(Frame::read(&mut rest)) {
        assert!(frame.data.len() <= DATA_LEN_MAX);
        let Ok(message) = frame.decode::<M>() else { continue };
        let again = OutFrame::new(frame.id, &message, vec![frame.data.clone()])
            .expect("what was decoded can be sent");
        let mut bytes = Vec::new();
        let written = at_once(again.write(&mut bytes)).and_then(Result::ok);
        assert!(written.is_some(), "memory takes everything");
        assert!(bytes.len() <= 16 + MESSAGE_LEN_MAX + DATA_LEN_MAX);
        let same = at_once(Frame::read(&mut bytes.as_slice()));
        let same = same.and_then(Result::ok).expect("what was written can be read");
        assert!(same.id == frame.id && same.data == frame.data && same.decode::<M>().ok() == Some(message));
    }
}

/// Where a blob lies, as a catalog record says.
pub fn stored_blob(data: &[u8]) {
    let Ok((blob, _)) = postcard::take_from_bytes::<StoredBlob>(data) else { return };
    let location = &blob.location;
    if location.is_sound() {
        for index in [0, location.len() / 2, location.len() - 1] {
            let place = location.place(index).expect("as many places as it says");
            assert!(place.offset + u64::from(place.length) <= SEGMENT_LEN_MAX);
        }
        assert!(location.place(location.len()).is_none());
        assert!(location.deletion_day().is_some());
    }
    // Also one that is not sound is looked at without harm.
    let _ = location.place(u64::MAX);
}

/// An array key's text, alone and with what may stand behind it.
pub fn array_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(keys) = ArrayKeys::import(text) {
        let exported = keys.export();
        let again = ArrayKeys::import(&exported).expect("what was exported can be imported");
        assert!(*again.export() == *exported && again.fingerprint() == keys.fingerprint());
        let settled = ArrayKeys::import(&keys.settled().export()).expect("without the former one as well");
        assert!(!settled.is_rotating() && settled.ticket_secret() == keys.ticket_secret());
    }
    if let Ok(key) = ArrayKey::import(text) {
        let exported = key.export();
        let again = ArrayKey::import(&exported).expect("what was exported can be imported");
        assert!(*again.export() == *exported, "one key, two texts");
    }
}

/// A file in memory.
struct Memory(Vec<u8>);

impl DiskFile for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(self.0.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What a future that never waits gives: memory is always ready.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

// ---- seeds ----

const SEGMENT: SegmentId = SegmentId([7; 16]);

fn peer(seed: u8) -> PeerId {
    let key = Keypair::ed25519_from_bytes([seed; 32]).expect("any 32 bytes are an Ed25519 key");
    key.public().to_peer_id()
}

fn record(kind: Kind, sequence: u64, offset: u64, acked_through: u64, payload_len: usize) -> Vec<u8> {
    let mut bytes = vec![0xAB; RECORD_HEADER_LEN + payload_len];
    bytes[..RECORD_HEADER_LEN].fill(0);
    let unplaced = UnplacedRecord::new(kind, bytes, 0);
    let digest = &mut AppendDigest::default();
    unplaced.place(SEGMENT, Epoch(3), Sequence(sequence), offset, acked_through, &[], digest)
}

/// `count` records, one behind the other.
fn records(count: u64) -> Vec<u8> {
    let mut all = Vec::new();
    for sequence in 1..=count {
        let offset = RECORDS_AT + all.len() as u64;
        let kind = if sequence % 3 == 0 { Kind::Catalog } else { Kind::Portion };
        let payload_len = 20 * usize::try_from(sequence).unwrap_or(1);
        all.extend(record(kind, sequence, offset, offset.min(RECORDS_AT + 300), payload_len));
    }
    all
}

fn record_seeds() -> Vec<Vec<u8>> {
    vec![record(Kind::Catalog, 1, RECORDS_AT, RECORDS_AT, 0), records(1), records(4)]
}

pub(crate) fn header_seeds() -> Vec<Vec<u8>> {
    let header = |members: u8, day_key| SegmentHeader {
        segment: SEGMENT,
        class: Class::Days30,
        storage_day: Day(20_000),
        deletion_day: Class::Days30.deletion_day(Day(20_000)),
        epoch: Epoch(3),
        writer: peer(1),
        members: (0..members).map(|at| Member { peer: peer(2 + at), unit: UnitId([at; 16]) }).collect(),
        // Of the second, records count before all members have them.
        acknowledged_after: usize::from(members.div_ceil(2)),
        day_key,
        closed: Vec::new(),
    };
    vec![header(2, Some([9; 60])).encode().to_vec(), header(8, None).encode().to_vec()]
}

pub(crate) fn footer_seeds() -> Vec<Vec<u8>> {
    let footer = |count: u32, length: u64| {
        let entry = |at: u32| IndexEntry {
            sequence: Sequence(u64::from(at) + 1),
            offset: 4096 + at * 112,
            length: 112,
        };
        let index = encode_index(&(0..count).map(entry).collect::<Vec<_>>());
        let summary = Summary {
            segment: SEGMENT,
            length,
            records: u64::from(count),
            first: Sequence(u64::from(count.min(1))),
            last: Sequence(u64::from(count)),
            root: [5; 32],
            catalog_records: count,
            index_crc: crc32c::crc32c(&index),
            holes: 0,
            hole_bytes: 0,
        };
        [&index[..], &summary.encode()].concat()
    };
    vec![footer(0, RECORDS_AT), footer(3, RECORDS_AT + 4096), footer(36, RECORDS_AT + 4096), thinned_footer()]
}

/// That of a segment of which two stretches were given back.
fn thinned_footer() -> Vec<u8> {
    let holes = [Hole { offset: 4208, length: 1 << 16 }, Hole { offset: 1 << 18, length: 1 << 17 }];
    let entry = IndexEntry { sequence: Sequence(1), offset: 4096, length: 112 };
    let index = [encode_index(&[entry]), encode_holes(&holes)].concat();
    let summary = Summary {
        length: RECORDS_AT + (1 << 20),
        records: 1,
        catalog_records: 1,
        index_crc: crc32c::crc32c(&index),
        holes: 2,
        hole_bytes: (1 << 16) + (1 << 17),
        ..summary()
    };
    [&index[..], &summary.encode()].concat()
}

fn scan_seeds() -> Vec<Vec<u8>> {
    let filled = [&records(6)[..], &[0; 3000]].concat();
    let mut damaged = records(9);
    damaged[100] ^= 1;
    let torn = [&records(4)[..], &records(9)[600..900]].concat();
    vec![Vec::new(), records(5), filled, damaged, torn]
}

fn verify_seeds() -> Vec<Vec<u8>> {
    let header = header_seeds().swap_remove(0);
    let file = |count: u64| {
        let records = records(count);
        let mut entries = Vec::new();
        let file = Memory([&header[..], &records].concat());
        let found = scan(&file, SEGMENT, Epoch(3), SEGMENT_LEN_MAX, |record| {
            if record.header.kind == Kind::Catalog {
                let offset = u32::try_from(record.header.offset).expect("a seed is short");
                let length = u32::try_from(record.header.record_len()).expect("a seed is short");
                entries.push(IndexEntry { sequence: record.header.sequence, offset, length });
            }
        });
        let found = found.expect("memory can be read");
        let index = encode_index(&entries);
        let summary = Summary {
            segment: SEGMENT,
            length: found.end,
            records: found.records,
            first: found.first,
            last: found.last,
            root: *blake3::hash(&records).as_bytes(),
            catalog_records: u32::try_from(entries.len()).expect("a seed is short"),
            index_crc: crc32c::crc32c(&index),
            holes: 0,
            hole_bytes: 0,
        };
        [&file.0[..], &index, &summary.encode()].concat()
    };
    let mut damaged = file(4);
    damaged[4200] ^= 1;
    vec![file(1), file(6), damaged]
}

fn frame<M: serde::Serialize>(message: &M, data: &'static [u8]) -> Vec<u8> {
    let frame = OutFrame::new(9, message, vec![data.into()]).expect("a seed is within its limits");
    let mut bytes = Vec::new();
    at_once(frame.write(&mut bytes));
    bytes
}

fn storage_request_seeds() -> Vec<Vec<u8>> {
    let unit = UnitId([1; 16]);
    let target = Copy { unit, segment: SEGMENT, writer: peer(1), epoch: Epoch(3) };
    let hop = Hop { peer: peer(2), address: ([192, 0, 2, 1], 4433).into(), unit };
    let requests = [
        Request::Hello { version: VERSION, now: UnixTime(1_800_000_000) },
        Request::Ping,
        Request::Fence { epoch: Epoch(4) },
        Request::List { unit, after: Some(SEGMENT) },
        Request::Stat { unit, segment: SEGMENT },
        Request::Open { unit, epoch: Epoch(3), is_anew: true },
        Request::Append { target, offset: RECORDS_AT, forward: Some(hop) },
        Request::Read { key: data_key() },
        Request::ReadRange { unit, segment: SEGMENT, offset: RECORDS_AT, length: 4096 },
        Request::Index { unit, segment: SEGMENT, from: 300 },
        Request::Seal { target, length: 1 << 20 },
        Request::Truncate { target, length: 1 << 20 },
        Request::Discard { target },
        Request::SetAside { target },
        Request::GetTable,
        Request::PutTable { epoch: Epoch(3) },
        Request::Allow { segment: SEGMENT, peer: peer(2) },
        Request::ReadSealed { unit, segment: SEGMENT, offset: 0, length: 1 << 20 },
        Request::Receive {
            unit,
            epoch: Epoch(3),
            segment: SEGMENT,
            source: hop,
            offset: 1 << 26,
            length: 1 << 26,
        },
        Request::Adopt { unit, epoch: Epoch(3), segment: SEGMENT, summary: summary() },
        Request::Drop { target },
        Request::Health { unit },
    ];
    let mut seeds: Vec<_> = requests.iter().map(|request| frame(request, b"records")).collect();
    seeds.push(seeds.concat());
    seeds
}

fn summary() -> Summary {
    Summary {
        segment: SEGMENT,
        length: RECORDS_AT + 4096,
        records: 3,
        first: Sequence(1),
        last: Sequence(3),
        root: [5; 32],
        catalog_records: 3,
        index_crc: 77,
        holes: 0,
        hole_bytes: 0,
    }
}

fn data_key() -> DataKey {
    DataKey {
        server: peer(2),
        unit: UnitId([1; 16]),
        segment: SEGMENT,
        offset: RECORDS_AT,
        length: 112,
        deletion_day: Day(20_037),
    }
}

fn storage_response_seeds() -> Vec<Vec<u8>> {
    let unit = UnitInfo {
        unit: UnitId([1; 16]),
        epoch: Epoch(3),
        total: 1 << 40,
        free: 1 << 39,
        set_aside: 0,
        incomplete: 0,
    };
    let entry = IndexEntry { sequence: Sequence(5), offset: 4096, length: 112 };
    let responses = [
        Response::Hello { now: UnixTime(1_800_000_000), epoch: Epoch(3), units: vec![unit; 3] },
        Response::Done,
        Response::Segments(Vec::new()),
        Response::Appended { keys: vec![data_key(); 2], digest: 77 },
        Response::Index { entries: vec![entry; 3], total: 3, length: 9_056 },
        Response::Refused(Refusal::Fenced { present: Epoch(9) }),
        Response::Refused(Refusal::Offset { next: 8192 }),
        Response::Sealed(SealReport { summary: summary(), damaged: 0 }),
        Response::Received { next: 1 << 26 },
        Response::Health(UnitHealth {
            total: 1 << 40,
            free: 1 << 39,
            free_for_copies: 1 << 38,
            queue: 3,
            sync_p99_us: 8000,
            segments: 300,
            set_aside: 1,
            incomplete: 1,
            damaged_segments: 2,
            damaged: vec![(SEGMENT, 1)],
            scrub: ScrubProgress {
                begun: UnixTime(1_800_000_000),
                done: 1 << 30,
                total: 1 << 38,
                last_ended: UnixTime(0),
            },
            objects: ObjectsHealth {
                has_store: true,
                is_well: true,
                segments: 1,
                bytes: 2,
                local_bytes: 3,
                strays: 4,
            },
        }),
    ];
    let mut seeds: Vec<_> = responses.iter().map(|response| frame(response, b"")).collect();
    seeds.push(seeds.concat());
    seeds
}

/// As the array's own encoding gives it: segments with their days, runs of records.
fn stored_blob_seeds() -> Vec<Vec<u8>> {
    let runs = [(0_u16, 4096_u64, 1_052_880_u32, 3_u32), (1, 4096, 512, 1)];
    let segments = [(SEGMENT, Day(20_037)), (SegmentId([8; 16]), Day(20_037))];
    let blob = (BlobId([4; 32]), 3_145_900_u64, (segments.to_vec(), runs.to_vec()));
    vec![postcard::to_stdvec(&blob).expect("plain values encode")]
}

fn array_key_seeds() -> Vec<Vec<u8>> {
    let text = ArrayKey::import(&exported(ARRAY_KEY_CHECK)).expect("a seed is a key").export();
    let both = format!("{} former {} tickets {}", *text, *text, exported(TICKETS_CHECK));
    let keys = ArrayKeys::import(&both).expect("a seed is keys");
    let upper = text.to_uppercase().replace('-', " ");
    [text.to_string(), upper, keys.export().to_string(), keys.settled().export().to_string()]
        .map(String::into_bytes)
        .to_vec()
}

const ARRAY_KEY_CHECK: &str = "lighter array key check 1";
const TICKETS_CHECK: &str = "lighter ticket secret check 1";

/// The key of 32 zero bytes, with its check sum for a purpose.
fn exported(purpose: &str) -> String {
    let check = blake3::derive_key(purpose, &[0; 32]);
    let digits: String = check[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}{digits}", "0".repeat(64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_decode() {
        let last = |data: &[u8]| data.len() - SUMMARY_LEN;
        assert!(
            record_seeds().iter().all(|seed| UncheckedRecord::new(seed).check(SEGMENT, RECORDS_AT).is_ok())
        );
        assert!(header_seeds().iter().all(|seed| SegmentHeader::decode(seed).is_ok()));
        for (seed, length) in footer_seeds().iter().zip([0, 4096, 4096]) {
            let file_len = RECORDS_AT + length + seed.len() as u64;
            let summary = Summary::decode(&seed[last(seed)..], SEGMENT, file_len).unwrap();
            assert!(summary.decode_index(&seed[..last(seed)]).is_ok());
        }
        for seed in stored_blob_seeds() {
            let (blob, rest) = postcard::take_from_bytes::<StoredBlob>(&seed).unwrap();
            assert!(rest.is_empty() && blob.location.is_sound());
        }
    }
}
