//! Pushes between real endpoints: what comes through, what is refused, and what becomes of one that lies or stands still.

use lighter_protocol::blob::{GROUP_LEN, RangeSet};
use lighter_protocol::pull::StreamId;
use lighter_protocol::wire::{Answer, Get, OfferedBlob, PushPart};
use lighter_protocol::{DeliveryId, UnixTime};

use super::*;
use crate::error::Misbehaviour;
use crate::pull::tests::{Memory, OnDisk, Pair, bytes, encoded, pair, pair_with, short};

const DELIVERY: DeliveryId = DeliveryId([9; 16]);
const LONG: Duration = Duration::from_secs(60);

fn part(blob: &OnDisk, ranges: &RangeSet) -> PushPart {
    PushPart { blob: blob.id, ranges: ranges.to_wire() }
}

fn taken(blob: &OnDisk, ranges: &RangeSet) -> PushedStream {
    PushedStream { stream: StreamId(0), blob: blob.id, size: blob.size(), ranges: ranges.clone() }
}

fn whole(blob: &OnDisk) -> RangeSet {
    RangeSet::whole(blob.size())
}

/// The next push that comes to `store`.
async fn arrives(store: &Connection) -> (Push, Responder) {
    let incoming = timeout(LONG, store.accept_request()).await.unwrap().unwrap();
    let Request::Push(push) = incoming.request else { panic!("{:?}", incoming.request) };
    (push, incoming.responder)
}

/// Opens a stream with a push of all of `blob`, and gives it raw.
async fn raw(holder: &Connection, blob: &OnDisk) -> PushStream {
    let push = Push { delivery: DELIVERY, parts: vec![part(blob, &whole(blob))] };
    timeout(LONG, holder.push(&push)).await.unwrap().unwrap()
}

fn stream_of(blob: &OnDisk) -> Vec<u8> {
    let get = Get { delivery: DELIVERY, blob: blob.id, ranges: whole(blob).to_wire(), attestation: None };
    encoded(blob, &get)
}

// SPEC: A6, A19, D3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_parts_on_one_stream_arrive_verified_and_the_holder_hears_of_it() {
    let Pair { puller: store, source: holder, .. } = &pair().await;
    let blobs: Vec<_> =
        [1, 16_384, 40_000, 9 * 1_048_576 + 5].map(|len| Arc::new(OnDisk::new(bytes(len)))).into();
    // Of the last one a piece in the middle only.
    let mut ranges: Vec<_> = blobs.iter().map(|blob| whole(blob)).collect();
    ranges[3] = std::iter::once(3 * GROUP_LEN..100 * GROUP_LEN).collect();
    let parts: Vec<_> = blobs.iter().zip(&ranges).map(|(blob, ranges)| part(blob, ranges)).collect();
    let sending = {
        let (holder, blobs, parts) = (holder.clone(), blobs.clone(), parts.clone());
        tokio::spawn(async move {
            let mut out = holder.push(&Push { delivery: DELIVERY, parts: parts.clone() }).await.unwrap();
            for (blob, part) in blobs.iter().zip(&parts) {
                let (data, outboard) = blob.slices();
                out.send(&part.ranges, blob.size(), data, outboard, None).await.unwrap();
            }
            out.finish().await
        })
    };
    let (push, responder) = arrives(store).await;
    assert_eq!(push, Push { delivery: DELIVERY, parts });
    let mut stream = responder.into_push().unwrap();
    for (at, (blob, ranges)) in blobs.iter().zip(&ranges).enumerate() {
        let (sink, gauge) = (Arc::new(Memory::default()), Gauge::default());
        let pulled = stream.receive(&taken(blob, ranges), at == 3, Arc::clone(&sink), &gauge).await.unwrap();
        assert_eq!(pulled.verified, ranges.len());
        let state = sink.state.lock().unwrap();
        assert_eq!(state.have, *ranges);
        for range in ranges.iter() {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            assert!(state.bytes[range.clone()] == blob.bytes[range]);
        }
    }
    stream.done().await.unwrap();
    timeout(LONG, sending).await.unwrap().unwrap().unwrap();
}

// SPEC: A6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_declined_stops_and_the_connection_goes_on() {
    let Pair { puller: store, source: holder, .. } = &pair().await;
    let blob = Arc::new(OnDisk::new(bytes(20 * 1_048_576)));
    for answer in [Response::Refused, Response::Later(5)] {
        let sending = {
            let (holder, blob) = (holder.clone(), Arc::clone(&blob));
            tokio::spawn(async move {
                let mut out = raw(&holder, &blob).await;
                let (data, outboard) = blob.slices();
                out.send(&whole(&blob).to_wire(), blob.size(), data, outboard, None).await
            })
        };
        let (_, responder) = arrives(store).await;
        responder.respond(&answer).await.unwrap();
        let sent = timeout(LONG, sending).await.unwrap().unwrap();
        assert!(matches!(sent, Err(ServeError::Peer(PeerError::GaveUp(GiveUp::Cancelled)))), "{sent:?}");
    }
    holder.ping(LONG).await.unwrap();
    store.ping(LONG).await.unwrap();
}

// SPEC: A6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_35_wrong_bytes_too_few_too_many_and_silence_are_found_and_what_was_verified_stays() {
    let Pair { puller: store, source: holder, .. } = &pair_with(short(), Default::default()).await;
    let blob = OnDisk::new(bytes(3 * 1_048_576 + 17));
    let good = stream_of(&blob);
    let mut wrong = good.clone();
    wrong[2_500_000] ^= 1;
    let cases: [(&str, Vec<u8>, bool); 4] = [
        ("wrong", wrong, true),
        ("too few", good[..2_500_000].to_vec(), true),
        ("too many", [&good[..], &[0]].concat(), true),
        ("silent", good[..2_500_000].to_vec(), false),
    ];
    for (name, bytes, finishes) in cases {
        let mut out = raw(holder, &blob).await;
        let (_, responder) = arrives(store).await;
        let sending = tokio::spawn(async move {
            let _ = out.out.send.write_all(&bytes).await;
            if finishes {
                let _ = out.finish().await;
                None
            } else {
                Some(out) // kept open
            }
        });
        let mut stream = responder.into_push().unwrap();
        let (sink, gauge) = (Arc::new(Memory::default()), Gauge::default());
        let part = taken(&blob, &whole(&blob));
        let received = stream.receive(&part, true, Arc::clone(&sink), &gauge);
        let error = timeout(LONG, received).await.unwrap().unwrap_err();
        let PullError::Peer(error) = error else { panic!("{name}: {error}") };
        let is_expected = match name {
            "wrong" => matches!(error, PeerError::Misbehaved(Misbehaviour::WrongBytes { .. })),
            "too few" => error == PeerError::Misbehaved(Misbehaviour::TooFew),
            "too many" => error == PeerError::Misbehaved(Misbehaviour::TooMany),
            _ => matches!(error, PeerError::TimedOut | PeerError::Misbehaved(Misbehaviour::TooSlow)),
        };
        assert!(is_expected, "{name}: {error}");
        {
            let state = sink.state.lock().unwrap();
            assert!(state.have.len() >= 2 * 1_048_576, "{name}: {}", state.have.len());
            for range in state.have.iter() {
                let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                assert!(state.bytes[range.clone()] == blob.bytes[range], "{name}");
            }
        }
        drop(stream);
        let _ = timeout(LONG, sending).await.unwrap();
    }
}

// SPEC: A6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_leave_streams_for_requests_on_both_sides() {
    let Pair { puller: store, source: holder, .. } = &pair().await;
    let blob = OnDisk::new(bytes(100));
    let mut open = Vec::new();
    for _ in 0..PUSHES_PER_CONNECTION_MAX {
        open.push(raw(holder, &blob).await);
    }
    let mut taken = Vec::new();
    for _ in 0..PUSHES_PER_CONNECTION_MAX {
        taken.push(arrives(store).await.1.into_push().unwrap());
    }
    // One more has no place at the holder; requests do.
    let push = Push { delivery: DELIVERY, parts: vec![part(&blob, &whole(&blob))] };
    assert!(timeout(Duration::from_millis(200), holder.push(&push)).await.is_err());
    holder.ping(LONG).await.unwrap();
    // A holder that does not keep to it is not taken.
    let (mut send, _recv) = holder.quic().open_bi().await.unwrap();
    message::write(&mut send, &Request::Push(push)).await.unwrap();
    assert!(arrives(store).await.1.into_push().is_err());
    drop(taken);
}

// SPEC: A6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_before_is_offered_to_as_ever_and_asked_once() {
    let Pair { puller: store, source: holder, .. } = &pair().await;
    let blob = |id: u8| OfferedBlob {
        id: lighter_protocol::BlobId([id; 32]),
        size: 5,
        name: String::new(),
        media_type: String::new(),
    };
    let offer = Offer {
        delivery: DELIVERY,
        mailbox: "bob@b.example".parse().unwrap(),
        manifest: blob(1),
        blobs: vec![blob(2)],
        sources: Vec::new(),
        expires: UnixTime(u64::MAX),
        introduction: None,
    };
    let old = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut kinds = Vec::new();
            while let Some(incoming) = store.accept_request().await {
                match incoming.request {
                    Request::Offer(_) => {
                        kinds.push("offer");
                        incoming.responder.respond(&Response::Answer(vec![Answer::Pull])).await.unwrap();
                    }
                    // As it resets a stream with a kind that it does not know.
                    _ => {
                        kinds.push("other");
                        incoming.responder.into_parts().1.give_up(GiveUp::Malformed);
                    }
                }
            }
            kinds
        })
    };
    for _ in 0..2 {
        let answer = holder.offer(offer.clone(), true, LONG).await.unwrap();
        assert_eq!(answer, Response::Answer(vec![Answer::Pull]));
    }
    holder.close();
    assert_eq!(timeout(LONG, old).await.unwrap().unwrap(), ["other", "offer", "offer"]);
}
