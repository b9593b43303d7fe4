//! `lighter-transport`: verified streams, the location server's answers and its presence stream.

use std::fmt::Debug;

use bytes::{BufMut, BytesMut};
use lighter_protocol::blob::{BlobHasher, GROUP_LEN, PAIR_LEN};
use lighter_protocol::{BlobId, Keypair, Mailbox, RelayRecord, UnixTime};
use lighter_transport::limits::TUNNEL_DATAGRAM_LEN_MAX;
use lighter_transport::location::address::may_be_dialled;
use lighter_transport::location::api::{
    Acceptance, AcceptanceChange, DomainAnswer, EnrolAnswer, EnrolRequest, ErrorAnswer, ForeignRequest,
    IntroductionAnswer, IntroductionRequest, LookupAnswer, LookupAnswers, LookupRequest, PingAnswer,
    RegisterAnswer, RegisterRequest, RelayRequest, Revocations, SnapshotPage, StorePresence, StoreRecord,
    SuccessionRequest,
};
use lighter_transport::location::finding::well_known;
use lighter_transport::location::sse::{SseEvent, SseParser};
use lighter_transport::pull::verifier::{Next, Verifier};
use lighter_transport::tunnel::frames::{self, Deframer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Target;

/// This crate's targets.
pub const TARGETS: &[Target] = &[
    Target { name: "verified_stream", run: verified_stream, seeds: stream_seeds },
    Target { name: "location_api", run: location_api, seeds: api_seeds },
    Target { name: "well_known", run: well_known, seeds: well_known_seeds },
    Target { name: "presence_stream", run: presence_stream, seeds: presence_seeds },
    Target { name: "tunnel_frames", run: tunnel_frames, seeds: tunnel_seeds },
];

/// Bytes of the blob that every stream claims to be: a few groups, the last one short.
const BLOB_LEN: u64 = 5 * GROUP_LEN + 1_234;

/// A stream for a blob, its claimed size before it (`u32`, little endian): what is taken is the blob's, whatever the
/// size was said to be and whatever came.
pub fn verified_stream(data: &[u8]) {
    let Some((size, mut stream)) = data.split_first_chunk() else { return };
    let size = u64::from(u32::from_le_bytes(*size));
    let (blob, id, _) = blob();
    let mut verifier = Verifier::new(id, size, &[(0, GROUP_LEN), (2 * GROUP_LEN, size.max(2 * GROUP_LEN))]);
    while let Some(next) = verifier.poll_next() {
        match next {
            Next::Pair(_) => {
                let Some((pair, rest)) = stream.split_first_chunk::<PAIR_LEN>() else { return };
                stream = rest;
                if !verifier.take_pair(pair) {
                    assert!(verifier.poll_next().is_none(), "goes on after what was wrong");
                }
            }
            Next::Group { offset, len } => {
                assert!(len as u64 <= GROUP_LEN && offset + len as u64 <= size, "outside of its size");
                let Some((group, rest)) = stream.split_at_checked(len) else { return };
                stream = rest;
                if verifier.take_group(group) {
                    let start = usize::try_from(offset).expect("within memory");
                    assert!(blob.get(start..start + len) == Some(group), "bytes that are not the blob's");
                } else {
                    assert!(verifier.poll_next().is_none(), "goes on after what was wrong");
                }
            }
        }
    }
}

/// What the location server, or who asks it, might send: each body decodes to what encodes to the same.
pub fn location_api(data: &[u8]) {
    json::<DomainAnswer>(data);
    json::<EnrolRequest>(data);
    json::<EnrolAnswer>(data);
    json::<RegisterRequest>(data);
    json::<RegisterAnswer>(data);
    json::<PingAnswer>(data);
    json::<LookupRequest>(data);
    json::<LookupAnswers>(data);
    json::<LookupAnswer>(data);
    json::<IntroductionRequest>(data);
    json::<IntroductionAnswer>(data);
    json::<RelayRequest>(data);
    json::<StorePresence>(data);
    json::<SnapshotPage>(data);
    json::<Revocations>(data);
    json::<SuccessionRequest>(data);
    json::<ErrorAnswer>(data);
    json::<ForeignRequest>(data);
    json::<Acceptance>(data);
    json::<AcceptanceChange>(data);
}

/// What a stranger's web server says of its domain's location server: an address by HTTPS that a client takes, and that
/// reads as itself; never one that is not dialled.
pub fn well_known(data: &[u8]) {
    let Ok(url) = well_known::parse(data, &[]) else { return };
    assert!(url.starts_with("https://") && url.len() <= data.len(), "{url}");
    let again = serde_json::json!({ "location": url }).to_string();
    assert!(well_known::parse(again.as_bytes(), &[]).is_ok_and(|same| same == url), "not the same: {url}");
    let host = url.trim_start_matches("https://");
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        assert!(may_be_dialled(address, &[]), "{address} is dialled");
    }
}

fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(data) else { return };
    let text = serde_json::to_vec(&value).expect("what was decoded encodes");
    assert!(serde_json::from_slice::<T>(&text).ok().as_ref() == Some(&value), "not the same: {value:?}");
}

/// A presence stream: cut anywhere it brings the same events.
pub fn presence_stream(data: &[u8]) {
    let whole = events(data, data.len().max(1));
    for piece in [1, 7] {
        assert!(events(data, piece) == whole, "the pieces' size makes a difference");
    }
    let held: usize = whole.0.iter().map(|event| event.data.len()).sum();
    assert!(held <= data.len(), "more came out than went in");
}

/// The events, and whether the stream ended well.
fn events(data: &[u8], piece: usize) -> (Vec<SseEvent>, bool) {
    let mut parser = SseParser::default();
    let mut events = Vec::new();
    for piece in data.chunks(piece) {
        let fed = parser.feed(piece);
        events.extend(std::iter::from_fn(|| parser.next_event()));
        if fed.is_err() {
            return (events, false);
        }
    }
    (events, true)
}

// ---- seeds ----

fn well_known_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"location": "https://location.provider.example"}"#,
        r#"{"location": "https://8.8.8.8:8443", "version": 2}"#,
        r#"{"location": "https://127.0.0.1"}"#,
        r#"{"location": "https://[::1]:443"}"#,
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// The blob, its id, and the pairs of its tree in pre-order.
fn blob() -> (Vec<u8>, BlobId, Vec<u8>) {
    let blob: Vec<u8> = (0..=u8::MAX).cycle().take(usize::try_from(BLOB_LEN).expect("small")).collect();
    let mut hasher = BlobHasher::new();
    let pairs = hasher.push(&blob).expect("one portion").pairs.to_vec();
    (blob, hasher.finish().id(), pairs)
}

fn stream_seeds() -> Vec<Vec<u8>> {
    let (blob, _, pairs) = blob();
    let mut stream = u32::try_from(BLOB_LEN).expect("small").to_le_bytes().to_vec();
    let groups: Vec<&[u8]> = blob.chunks(usize::try_from(GROUP_LEN).expect("small")).collect();
    write_tree(&groups, &pairs, 0, &mut stream);
    let lie = [&[0xFF; 4], &stream[4..]].concat();
    vec![stream, lie]
}

/// Pre-order: the pair, what is left of it, what is right. The second group was not asked for.
fn write_tree(groups: &[&[u8]], pairs: &[u8], first: usize, out: &mut Vec<u8>) {
    if let [group] = groups {
        if first != 1 {
            out.extend_from_slice(group);
        }
        return;
    }
    let (pair, rest) = pairs.split_at(PAIR_LEN);
    out.extend_from_slice(pair);
    let left = groups.len().next_power_of_two() / 2;
    write_tree(&groups[..left], rest, first, out);
    write_tree(&groups[left..], &rest[(left - 1) * PAIR_LEN..], first + left, out);
}

fn api_seeds() -> Vec<Vec<u8>> {
    let peer = Keypair::ed25519_from_bytes([7; 32]).expect("a key").public().to_peer_id();
    let mailbox: Mailbox = "alice@example.org".parse().expect("a mailbox");
    let addresses: Vec<std::net::SocketAddr> = vec![([192, 0, 2, 1], 7443).into()];
    let relay =
        RelayRecord { peer, addresses: addresses.clone(), retrieval_url: "https://b.example".to_owned() };
    let store = StoreRecord {
        peer,
        addresses,
        presence: lighter_transport::location::Presence::Online,
        since: UnixTime(1_800_000_000),
        primary: true,
        relays: vec![relay.clone()],
        sealing_keys: Vec::new(),
        successions: Vec::new(),
    };
    [
        serde_json::to_vec(&LookupAnswers { answers: vec![LookupAnswer { store: Some(store) }] }),
        serde_json::to_vec(&LookupAnswer { store: None }),
        serde_json::to_vec(&LookupRequest { mailboxes: vec![mailbox], sender: None }),
        serde_json::to_vec(&relay),
    ]
    .into_iter()
    .map(|text| text.expect("encodes"))
    .collect()
}

fn presence_seeds() -> Vec<Vec<u8>> {
    [
        "event: snapshot\ndata: {\"stores\":[],\n\rdata: \"last\":true}\r\n\r\n: kept alive\n\nevent:change\ndata:x\n\n",
        "data\n\nid: 7\nretry: 10\nevent: \u{fc}\ndata:  two blanks\n\n\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A tunnel's byte stream: however it is cut, the same datagrams come out, within their limit, and framed again they are the
/// bytes that went in.
pub fn tunnel_frames(data: &[u8]) {
    let whole = deframed(data.chunks(data.len().max(1)));
    let cut = deframed(data.chunks(usize::from(data.first().copied().unwrap_or(0)) + 1));
    assert!(whole == cut, "cut in pieces it gives another");
    let mut again = BytesMut::new();
    for datagram in &whole {
        assert!((1..=usize::from(TUNNEL_DATAGRAM_LEN_MAX)).contains(&datagram.len()));
        frames::put(&mut again, datagram);
    }
    assert!(data.starts_with(&again), "framed again they are something else");
}

fn deframed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let (mut deframer, mut datagrams) = (Deframer::default(), Vec::new());
    for piece in pieces {
        deframer.room(piece.len()).put_slice(piece);
        loop {
            match deframer.next() {
                Ok(Some(datagram)) => datagrams.push(datagram.to_vec()),
                Ok(None) => break,
                Err(_) => return datagrams,
            }
        }
    }
    datagrams
}

fn tunnel_seeds() -> Vec<Vec<u8>> {
    let framed = |datagrams: &[&[u8]]| {
        let mut out = BytesMut::new();
        datagrams.iter().for_each(|datagram| frames::put(&mut out, datagram));
        out.to_vec()
    };
    vec![
        framed(&[b"one", b"another", &[0; 300]]),
        framed(&[&[7; TUNNEL_DATAGRAM_LEN_MAX as usize], b"x"]),
        vec![0, 3, b'a', b'b', b'c', 0, 0],
        vec![0x10, 0x01, 1],
    ]
}
