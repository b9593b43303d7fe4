//! Pulls between real endpoints: what comes through, what is refused, what is left when one is cut.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bao_tree::io::outboard::PreOrderOutboard;
use bao_tree::io::sync::CreateOutboard;
use lighter_protocol::blob::{
    BlobHasher, GROUP, GROUP_LEN, HashedPortion, PAIR_LEN, PORTION_LEN, Portion, PortionBlob, PortionSource,
};

use super::*;
use crate::connection::{AnswerStream, Patience};
use crate::endpoint::{Endpoint, EndpointConfig};
use crate::identity::Identity;
use crate::limits::PIECE_LEN;
use crate::progress::Pace;
use crate::serve::{FileSlices, ServeError};

const DELIVERY: DeliveryId = DeliveryId([9; 16]);
/// Long enough for anything that is to happen on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// A blob on disk, as an agent has it.
pub(crate) struct OnDisk {
    pub(crate) bytes: Vec<u8>,
    outboard: Vec<u8>,
    pub(crate) id: BlobId,
    data_file: Arc<File>,
    outboard_file: Arc<File>,
}

impl OnDisk {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let outboard = PreOrderOutboard::<Vec<u8>>::create(io::Cursor::new(&bytes), GROUP).unwrap();
        let id = BlobId::from(outboard.root);
        let (data_file, outboard_file) = (file_of(&bytes), file_of(&outboard.data));
        Self { bytes, outboard: outboard.data, id, data_file, outboard_file }
    }

    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The same, with other bytes in the file than there should be.
    pub(crate) fn damaged_at(mut self, at: usize) -> Self {
        let mut bytes = self.bytes.clone();
        bytes[at] ^= 1;
        self.data_file = file_of(&bytes);
        self
    }

    /// As it is sent.
    pub(crate) fn slices(&self) -> (FileSlices, PreOrderOutboard<FileSlices>) {
        let data = FileSlices::of_blob(Arc::clone(&self.data_file), self.size());
        let outboard = PreOrderOutboard {
            root: self.id.hash(),
            tree: blob::tree(self.size()),
            data: FileSlices::of_outboard(Arc::clone(&self.outboard_file), self.size()),
        };
        (data, outboard)
    }

    async fn answer(&self, responder: crate::Responder, get: &Get) -> Result<u64, ServeError> {
        let (data, outboard) = self.slices();
        responder.serve(get, self.size(), data, outboard).await
    }
}

fn file_of(bytes: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Arc::new(file)
}

pub(crate) fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).to_le_bytes()[0]).collect()
}

/// A store in memory that refuses to be given anything twice.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) state: Mutex<MemoryState>,
    fail_at: Option<u64>,
}

#[derive(Default)]
pub(crate) struct MemoryState {
    pub(crate) bytes: Vec<u8>,
    pub(crate) have: RangeSet,
    parents: Vec<Parent>,
    longest: usize,
}

impl Memory {
    pub(crate) fn missing(&self, size: u64) -> RangeSet {
        self.state.lock().unwrap().have.missing(size)
    }
}

impl VerifiedSink for Memory {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let range = piece.offset..piece.offset + piece.bytes.len() as u64;
        if self.fail_at.is_some_and(|at| range.contains(&at)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let overlaps = |known: Range<u64>| known.start < range.end && range.start < known.end;
        assert!(!state.have.iter().any(overlaps), "given twice: {range:?}");
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        if state.bytes.len() < end {
            state.bytes.resize(end, 0);
        }
        state.bytes[start..end].copy_from_slice(&piece.bytes);
        state.parents.extend(piece.parents);
        state.longest = state.longest.max(piece.bytes.len());
        assert!(state.have.insert(range));
        Ok(())
    }
}

/// Two endpoints and their connection: the puller's side and the source's.
pub(crate) struct Pair {
    _endpoints: (Endpoint, Endpoint),
    pub(crate) puller: Connection,
    pub(crate) source: Connection,
}

pub(crate) async fn pair_with(puller: Patience, source: Patience) -> Pair {
    let endpoint = |patience| {
        let config = EndpointConfig { patience, ..EndpointConfig::default() };
        Endpoint::bind(&Identity::generate(), ([127, 0, 0, 1], 0).into(), config).unwrap()
    };
    let (client, server) = (endpoint(puller), endpoint(source));
    let address: SocketAddr = server.local_addr().unwrap();
    let addresses = [address];
    let (ours, theirs) = tokio::join!(client.connect(server.peer(), &addresses, LONG), server.accept());
    Pair { puller: ours.unwrap(), source: theirs.unwrap(), _endpoints: (client, server) }
}

pub(crate) async fn pair() -> Pair {
    pair_with(Patience::default(), Patience::default()).await
}

/// A patience that a test can wait for.
pub(crate) fn short() -> Patience {
    let pace =
        Pace { silence: Duration::from_secs(2), window: Duration::from_secs(1), window_len_min: 1_000 };
    Patience { pace, ..Patience::default() }
}

/// Answers all `Get`s on `connection` with `blob`, until it is closed.
fn serving(connection: &Connection, blob: &Arc<OnDisk>) -> tokio::task::JoinHandle<Vec<Get>> {
    let (connection, blob) = (connection.clone(), Arc::clone(blob));
    tokio::spawn(async move {
        let (mut answers, mut gets) = (JoinSet::new(), Vec::new());
        while let Some(incoming) = connection.accept_request().await {
            let Request::Get(get) = incoming.request else { panic!("only Gets are asked here") };
            gets.push(get.clone());
            let blob = Arc::clone(&blob);
            answers.spawn(async move { blob.answer(incoming.responder, &get).await });
        }
        gets
    })
}

// SPEC: A6, A19, D3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_of_any_size_arrives_with_its_outboard() {
    let pair = pair().await;
    for len in [1, 1_023, 16_384, 16_385, 40_000, 1_048_576, 1_048_577, 20 * 1_048_576 + 3] {
        let blob = Arc::new(OnDisk::new(bytes(len)));
        let server = serving(&pair.source, &blob);
        let sink = Arc::new(Memory::default());
        let pull = Pull::of(DELIVERY, blob.id, blob.size());
        let pulled = pair.puller.pull(&pull, &sink).await.unwrap();
        server.abort();
        assert_eq!(pulled.verified, blob.size());

        let state = sink.state.lock().unwrap();
        assert!(state.bytes == blob.bytes, "{len} bytes");
        assert!(state.have.is_whole(blob.size()));
        assert!(state.longest <= PIECE_LEN);
        let tree = blob::tree(blob.size());
        let mut outboard = vec![0; blob.outboard.len()];
        for Parent { node, pair } in &state.parents {
            let at = usize::try_from(tree.pre_order_offset(*node).unwrap()).unwrap() * PAIR_LEN;
            outboard[at..at + 32].copy_from_slice(pair.0.as_bytes());
            outboard[at + 32..at + 64].copy_from_slice(pair.1.as_bytes());
        }
        assert!(outboard == blob.outboard, "{len} bytes");
    }
}

#[tokio::test]
async fn the_empty_blob_needs_no_stream_and_no_other_blob_is_empty() {
    let pair = pair().await;
    let sink = Arc::new(Memory::default());
    let empty = Pull::of(DELIVERY, BlobId::of(b""), 0);
    assert_eq!(pair.puller.pull(&empty, &sink).await.unwrap(), Pulled::default());
    let lie = Pull::of(DELIVERY, BlobId::of(b"x"), 0);
    let error = pair.puller.pull(&lie, &sink).await.unwrap_err();
    assert!(matches!(error, PullError::Peer(PeerError::Misbehaved(Misbehaviour::WrongBytes { offset: 0 }))));
}

#[tokio::test]
async fn only_what_is_missing_is_asked_for_however_many_gaps_there_are() {
    let pair = pair().await;
    let groups = 1_100;
    let blob = Arc::new(OnDisk::new(bytes(groups * 16_384 - 100)));
    let server = serving(&pair.source, &blob);
    let sink = Arc::new(Memory::default());
    // Every second group is there already.
    for group in (0..groups as u64).step_by(2) {
        let start = usize::try_from(group * GROUP_LEN).unwrap();
        let piece = Piece {
            offset: group * GROUP_LEN,
            bytes: Bytes::copy_from_slice(&blob.bytes[start..start + 16_384]),
            parents: Vec::new(),
        };
        sink.write(piece).await.unwrap();
    }
    let missing = sink.missing(blob.size());
    assert!(missing.iter().len() > GET_RANGES_MAX);
    let pull = Pull::of(DELIVERY, blob.id, blob.size()).missing(missing.clone());
    let pulled = pair.puller.pull(&pull, &sink).await.unwrap();
    assert_eq!(pulled.verified, missing.len());
    assert!(sink.state.lock().unwrap().bytes == blob.bytes);
    pair.puller.close();
    let gets = server.await.unwrap();
    assert!(gets.len() > 1 && gets.iter().all(|get| get.ranges.len() <= GET_RANGES_MAX));
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_was_cut_goes_on_where_it_stopped_from_any_source() {
    let blob = Arc::new(OnDisk::new(bytes(12 * 1_048_576 + 77)));
    let sink = Arc::new(Memory::default());
    let (mut verified, mut received, mut cuts) = (0, 0, 0_usize);
    while !sink.missing(blob.size()).is_empty() {
        // A new source each time, which goes away after some bytes.
        let pair = pair().await;
        let connection = pair.source.clone();
        let (served, allowed) = (Arc::clone(&blob), 700_000 + 450_000 * cuts as u64);
        let source = tokio::spawn(async move {
            let (mut answers, left) = (JoinSet::new(), Arc::new(AtomicU64::new(allowed)));
            while let Some(incoming) = connection.accept_request().await {
                let Request::Get(get) = incoming.request else { panic!("only Gets are asked here") };
                let (blob, left, connection) = (Arc::clone(&served), Arc::clone(&left), connection.clone());
                answers.spawn(async move {
                    cut_answer(&blob, &get, incoming.responder, &left, &connection).await;
                });
            }
        });
        let pull = Pull::of(DELIVERY, blob.id, blob.size()).missing(sink.missing(blob.size()));
        let before = blob.size() - pull.missing.len();
        match pair.puller.pull(&pull, &sink).await {
            Ok(pulled) => {
                verified += pulled.verified;
                received += pulled.received;
            }
            Err(error) => {
                assert!(matches!(error, PullError::Peer(PeerError::Gone)), "{error}");
                let now = blob.size() - sink.missing(blob.size()).len();
                verified += now - before;
                cuts += 1;
            }
        }
        source.abort();
    }
    assert!(cuts >= 3, "{cuts} cuts");
    // `Memory` fails the test where a byte is given twice; all of it together is the blob, once.
    assert_eq!(verified, blob.size());
    assert!(received < blob.size());
    assert!(sink.state.lock().unwrap().bytes == blob.bytes);
}

/// Sends a verified stream, in pieces, and closes the connection when so many bytes were sent on all streams.
async fn cut_answer(
    blob: &OnDisk,
    get: &Get,
    responder: crate::Responder,
    left: &AtomicU64,
    connection: &Connection,
) {
    let (_connection, mut stream) = begin(responder, blob.size()).await;
    for piece in encoded(blob, get).chunks(10_000) {
        if stream.send.write_all(piece).await.is_err() {
            return;
        }
        if left.fetch_sub(piece.len() as u64, Ordering::SeqCst) < 2 * piece.len() as u64 {
            // What was written goes out before the connection is closed, or it would not be a cut in the middle.
            let _ = timeout(Duration::from_millis(50), stream.send.stopped()).await;
            connection.close();
            return;
        }
    }
    stream.send.finish().unwrap();
    stream.ended = true;
}

/// The verified stream as it should be.
pub(crate) fn encoded(blob: &OnDisk, get: &Get) -> Vec<u8> {
    let outboard =
        PreOrderOutboard { root: blob.id.hash(), tree: blob::tree(blob.size()), data: &blob.outboard[..] };
    let mut encoded = Vec::new();
    let ranges = blob::chunk_ranges(&get.ranges, blob.size());
    bao_tree::io::sync::encode_ranges_validated(&blob.bytes[..], &outboard, &ranges, &mut encoded).unwrap();
    encoded
}

/// Answers `Data`, and gives the raw stream behind it.
async fn begin(responder: crate::Responder, size: u64) -> (Connection, AnswerStream) {
    let (connection, mut stream) = responder.into_parts();
    message::write(&mut stream.send, &Response::Data { size }).await.unwrap();
    (connection, stream)
}

/// What a dishonest source does with a `Get`.
#[derive(Clone, Copy, Debug)]
enum Evil {
    WrongByte(usize),
    TooFew(usize),
    OneTooMany,
    Endless,
    OneByteATime,
    Silent,
    Size(u64),
    NothingAtAll,
    AnotherAnswer,
}

async fn do_evil(evil: Evil, blob: &OnDisk, get: &Get, responder: crate::Responder) {
    let mut right = encoded(blob, get);
    if let Evil::AnotherAnswer = evil {
        return responder.respond(&Response::Have(true)).await.unwrap();
    }
    let size = if let Evil::Size(size) = evil { size } else { blob.size() };
    let (_connection, mut stream) = begin(responder, size).await;
    // The other side stops reading as soon as it sees through it: errors are expected.
    match evil {
        Evil::WrongByte(at) => right[at] ^= 1,
        Evil::TooFew(len) => right.truncate(len),
        Evil::OneTooMany => right.push(0),
        Evil::NothingAtAll => right.clear(),
        Evil::Endless => {
            let _ = stream.send.write_all(&right).await;
            while stream.send.write_all(&right).await.is_ok() {}
            return;
        }
        Evil::OneByteATime => {
            for byte in right {
                if stream.send.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            return;
        }
        Evil::Silent => {
            let _ = stream.send.write_all(&right[..100]).await;
            let _ = stream.send.stopped().await;
            return;
        }
        Evil::Size(_) | Evil::AnotherAnswer => {}
    }
    let _ = stream.send.write_all(&right).await;
    let _ = stream.send.finish();
    stream.ended = true;
}

#[tokio::test]
async fn bad_input_35_a_dishonest_source_is_found_out_and_nothing_unverified_is_kept() {
    let blob = Arc::new(OnDisk::new(bytes(3 * 1_048_576 + 5)));
    let (size, len) = (blob.size(), encoded(&blob, &whole(&blob)).len());
    let wrong_at = |offset| Misbehaviour::WrongBytes { offset };
    let cases = [
        (Evil::WrongByte(0), wrong_at(2 * 1_048_576)), // the root's pair: named by its middle
        (Evil::WrongByte(len - 1), wrong_at(3 * 1_048_576)),
        (Evil::TooFew(0), Misbehaviour::TooFew),
        (Evil::TooFew(len / 2), Misbehaviour::TooFew),
        (Evil::TooFew(len - 1), Misbehaviour::TooFew),
        (Evil::NothingAtAll, Misbehaviour::TooFew),
        (Evil::OneTooMany, Misbehaviour::TooMany),
        (Evil::Endless, Misbehaviour::TooMany),
        (Evil::OneByteATime, Misbehaviour::TooSlow),
        (Evil::Size(size + 1), Misbehaviour::Size { expected: size, claimed: size + 1 }),
        (Evil::Size(0), Misbehaviour::Size { expected: size, claimed: 0 }),
        (Evil::AnotherAnswer, Misbehaviour::Answer),
    ];
    let pair = pair_with(short(), Patience::default()).await;
    for (evil, kind) in cases {
        let (error, sink) = pull_from(&pair, evil, &blob).await;
        assert!(
            matches!(&error, PullError::Peer(PeerError::Misbehaved(found)) if *found == kind),
            "{evil:?}: {error}"
        );
        check_kept(&sink, &blob);
    }
    let (error, sink) = pull_from(&pair, Evil::Silent, &blob).await;
    assert!(matches!(error, PullError::Peer(PeerError::TimedOut)), "{error}");
    check_kept(&sink, &blob);
    // The connection serves an honest pull afterwards.
    let server = serving(&pair.source, &blob);
    let sink = Arc::new(Memory::default());
    pair.puller.pull(&Pull::of(DELIVERY, blob.id, size), &sink).await.unwrap();
    server.abort();
}

fn whole(blob: &OnDisk) -> Get {
    Get { delivery: DELIVERY, blob: blob.id, ranges: vec![(0, blob.size())], attestation: None }
}

async fn pull_from(pair: &Pair, evil: Evil, blob: &Arc<OnDisk>) -> (PullError, Arc<Memory>) {
    let (connection, served) = (pair.source.clone(), Arc::clone(blob));
    let source = tokio::spawn(async move {
        let incoming = connection.accept_request().await.unwrap();
        let Request::Get(get) = &incoming.request else { panic!("only Gets are asked here") };
        do_evil(evil, &served, get, incoming.responder).await;
    });
    let sink = Arc::new(Memory::default());
    let pull = Pull { streams: 1, ..Pull::of(DELIVERY, blob.id, blob.size()) };
    let error = pair.puller.pull(&pull, &sink).await.unwrap_err();
    source.await.unwrap();
    (error, sink)
}

/// Everything in the sink is the blob's.
fn check_kept(sink: &Memory, blob: &OnDisk) {
    let state = sink.state.lock().unwrap();
    for range in state.have.iter() {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert!(state.bytes[range.clone()] == blob.bytes[range]);
    }
}

#[tokio::test]
async fn a_cut_after_some_groups_keeps_those_groups() {
    let blob = Arc::new(OnDisk::new(bytes(2 * 1_048_576)));
    let pair = pair().await;
    let len = encoded(&blob, &whole(&blob)).len();
    let (_, sink) = pull_from(&pair, Evil::TooFew(len - 1), &blob).await;
    assert_eq!(sink.missing(blob.size()).len(), GROUP_LEN);
}

#[tokio::test]
async fn refusals_and_delays_are_told_apart_from_faults() {
    let pair = pair().await;
    let connection = pair.source.clone();
    let source = tokio::spawn(async move {
        for response in [Response::Refused, Response::Later(7)] {
            connection.accept_request().await.unwrap().responder.respond(&response).await.unwrap();
        }
    });
    let (pull, sink) = (Pull::of(DELIVERY, BlobId([1; 32]), 100), Arc::new(Memory::default()));
    assert!(matches!(pair.puller.pull(&pull, &sink).await, Err(PullError::Refused)));
    let later = pair.puller.pull(&pull, &sink).await;
    assert!(matches!(later, Err(PullError::Later(wait)) if wait == Duration::from_secs(7)));
    source.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_31_a_sink_that_fails_ends_the_pull_and_keeps_what_it_has() {
    let blob = Arc::new(OnDisk::new(bytes(20 * 1_048_576)));
    let pair = pair().await;
    let server = serving(&pair.source, &blob);
    let sink = Arc::new(Memory { fail_at: Some(11 * 1_048_576), ..Memory::default() });
    let error = pair.puller.pull(&Pull::of(DELIVERY, blob.id, blob.size()), &sink).await.unwrap_err();
    assert!(matches!(error, PullError::Sink(_)), "{error}");
    check_kept(&sink, &blob);
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_that_fails_stops_the_others_at_once() {
    let blob = Arc::new(OnDisk::new(bytes(16 * 1_048_576)));
    let pair = pair().await;
    let (connection, served) = (pair.source.clone(), Arc::clone(&blob));
    let source = tokio::spawn(async move {
        // All of them are answered before the one that fails ends the others.
        let (mut silent, mut failing) = (JoinSet::new(), None);
        for number in 0..4 {
            let incoming = connection.accept_request().await.unwrap();
            let Request::Get(get) = incoming.request else { panic!("only Gets are asked here") };
            if number == 2 {
                failing = Some((get, incoming.responder));
                continue;
            }
            let begun = begin(incoming.responder, served.size()).await;
            silent.spawn(async move {
                let (_connection, stream) = begun;
                let _ = stream.send.stopped().await;
            });
        }
        let (get, responder) = failing.unwrap();
        do_evil(Evil::WrongByte(0), &served, &get, responder).await;
        silent.join_all().await;
    });
    let (pull, sink) = (Pull::of(DELIVERY, blob.id, blob.size()), Arc::new(Memory::default()));
    // Much less than the silence that would be waited for.
    let error = timeout(LONG, pair.puller.pull(&pull, &sink)).await.unwrap().unwrap_err();
    assert!(
        matches!(error, PullError::Peer(PeerError::Misbehaved(Misbehaviour::WrongBytes { .. }))),
        "{error}"
    );
    timeout(LONG, source).await.unwrap().unwrap();
}

#[tokio::test]
async fn damage_on_the_source_is_found_there_and_told_as_such() {
    let at = 1_048_576 + 70_000;
    let blob = Arc::new(OnDisk::new(bytes(2 * 1_048_576)).damaged_at(at));
    let pair = pair().await;
    let (connection, served) = (pair.source.clone(), Arc::clone(&blob));
    let source = tokio::spawn(async move {
        let incoming = connection.accept_request().await.unwrap();
        let Request::Get(get) = &incoming.request else { panic!("only Gets are asked here") };
        served.answer(incoming.responder, get).await
    });
    let sink = Arc::new(Memory::default());
    let error = pair.puller.pull(&Pull::of(DELIVERY, blob.id, blob.size()), &sink).await.unwrap_err();
    assert!(matches!(error, PullError::Peer(PeerError::GaveUp(GiveUp::Damaged))), "{error}");
    let group = at as u64 / GROUP_LEN * GROUP_LEN;
    assert!(matches!(source.await.unwrap(), Err(ServeError::Damaged { offset }) if offset == group));
    check_kept(&sink, &blob);
}

#[tokio::test]
async fn a_file_that_is_too_short_is_damage() {
    let mut blob = OnDisk::new(bytes(100_000));
    blob.data_file = file_of(&blob.bytes[..50_000]);
    let blob = Arc::new(blob);
    let pair = pair().await;
    let server = serving(&pair.source, &blob);
    let sink = Arc::new(Memory::default());
    let error = pair.puller.pull(&Pull::of(DELIVERY, blob.id, blob.size()), &sink).await.unwrap_err();
    assert!(matches!(error, PullError::Peer(PeerError::GaveUp(GiveUp::Damaged))), "{error}");
    server.abort();
}

#[tokio::test]
async fn bad_input_11_a_puller_that_does_not_read_is_given_up() {
    let blob = Arc::new(OnDisk::new(bytes(4 * 1_048_576)));
    let pair = pair_with(Patience::default(), short()).await;
    let request = Request::Get(whole(&blob));
    let (mut send, recv) = pair.puller.quic().open_bi().await.unwrap();
    message::write_last(&mut send, &request).await.unwrap();
    let incoming = pair.source.accept_request().await.unwrap();
    let served = blob.answer(incoming.responder, &whole(&blob)).await;
    assert!(matches!(served, Err(ServeError::Peer(PeerError::TimedOut))), "{served:?}");
    drop(recv);
}

#[tokio::test]
async fn a_pull_that_is_dropped_stops_the_source() {
    let blob = Arc::new(OnDisk::new(bytes(8 * 1_048_576)));
    let pair = pair().await;
    let (pull, sink) = (Pull::of(DELIVERY, blob.id, blob.size()), Arc::new(Memory::default()));
    let puller = pair.puller.clone();
    let pulling = tokio::spawn(async move { puller.pull(&pull, &sink).await.map(drop) });
    let incoming = pair.source.accept_request().await.unwrap();
    pulling.abort();
    let served = blob.answer(incoming.responder, &whole(&blob)).await;
    assert!(matches!(served, Err(ServeError::Peer(PeerError::GaveUp(_)))), "{served:?}");
}

/// A blob that nobody holds in memory: each portion is made when it is asked for.
struct Made {
    size: u64,
}

impl Made {
    fn bytes(&self, index: u64) -> Vec<u8> {
        let len = usize::try_from(blob::portion_len(self.size, index)).unwrap();
        vec![(index * 37 + 11).to_le_bytes()[0]; len]
    }
}

impl PortionSource for Made {
    async fn portion(&self, index: u64) -> io::Result<Portion> {
        let bytes = self.bytes(index);
        let pairs = HashedPortion::of(index, &bytes).map_err(io::Error::other)?.pairs;
        Ok(Portion { bytes: bytes.into(), pairs: pairs.into() })
    }
}

/// Counts what it is given and what it is holding.
#[derive(Default)]
struct Counting {
    given: AtomicU64,
    holding: AtomicU64,
    held_max: AtomicU64,
}

impl VerifiedSink for Counting {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let len = piece.bytes.len() as u64 + (piece.parents.len() * size_of::<Parent>()) as u64;
        let holding = self.holding.fetch_add(len, Ordering::SeqCst) + len;
        self.held_max.fetch_max(holding, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.given.fetch_add(piece.bytes.len() as u64, Ordering::SeqCst);
        self.holding.fetch_sub(len, Ordering::SeqCst);
        Ok(())
    }
}

// The relay's form of serving, and flat memory on the way: nothing here holds more than a few portions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_flows_from_portions_through_flat_memory() {
    let source = Arc::new(Made { size: 256 * PORTION_LEN + 1 });
    let mut hasher = BlobHasher::new();
    for index in 0..blob::portion_count(source.size) {
        hasher.push(&source.bytes(index)).unwrap();
    }
    let tree = Arc::new(hasher.finish());
    let pair = pair().await;
    let (connection, served, upper) = (pair.source.clone(), Arc::clone(&source), Arc::clone(&tree));
    let server = tokio::spawn(async move {
        let mut answers = JoinSet::new();
        while let Some(incoming) = connection.accept_request().await {
            let Request::Get(get) = incoming.request else { panic!("only Gets are asked here") };
            let blob = PortionBlob::new(Arc::clone(&upper), Arc::clone(&served));
            let size = served.size;
            answers.spawn(async move { incoming.responder.serve(&get, size, blob.clone(), blob).await });
        }
    });
    let sink = Arc::new(Counting::default());
    let pulled = pair.puller.pull(&Pull::of(DELIVERY, tree.id(), source.size), &sink).await.unwrap();
    server.abort();
    assert_eq!((pulled.verified, sink.given.load(Ordering::SeqCst)), (source.size, source.size));
    let held_max = sink.held_max.load(Ordering::SeqCst);
    assert!(held_max <= crate::limits::PULL_MEMORY_MAX / 2, "{held_max}");
}
