//! Many small blobs by one request, between real endpoints: what comes, and what becomes of one that lies or stands still.

use std::sync::Mutex as StdMutex;

use lighter_protocol::limits::GET_BLOBS_MAX;
use tokio::task::JoinSet;

use super::*;
use crate::message;
use crate::pull::tests::{Pair, bytes, pair, pair_with, short};

const DELIVERY: DeliveryId = DeliveryId([9; 16]);
const LONG: Duration = Duration::from_secs(60);

fn blobs(count: usize) -> Vec<(BlobId, Bytes)> {
    let lens = [16_384, 1, 5_000, 16_383].into_iter().cycle();
    let of = |(number, len): (usize, usize)| {
        let bytes = Bytes::from(bytes(len + number)).slice(number..);
        (BlobId::of(&bytes), bytes)
    };
    (0..count).zip(lens).map(of).collect()
}

fn pull_of(blobs: &[(BlobId, Bytes)]) -> SmallPull {
    let gauge = Gauge::default();
    let small = |(blob, bytes): &(BlobId, Bytes)| SmallBlob {
        blob: *blob,
        size: bytes.len() as u64,
        gauge: gauge.beside(),
    };
    SmallPull { delivery: DELIVERY, blobs: blobs.iter().map(small).collect(), attestation: None, turns: None }
}

/// What was kept, in order.
#[derive(Default)]
struct Kept {
    blobs: StdMutex<Vec<(BlobId, Bytes)>>,
    fails: bool,
}

impl SmallSink for Kept {
    async fn keep(&self, blobs: Vec<(BlobId, Bytes)>) -> io::Result<()> {
        if self.fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.blobs.lock().unwrap().extend(blobs);
        Ok(())
    }
}

/// The next request that comes to `source`.
async fn asked(source: &Connection) -> (GetBlobs, Responder) {
    let incoming = timeout(LONG, source.accept_request()).await.unwrap().unwrap();
    let Request::GetBlobs(get) = incoming.request else { panic!("{:?}", incoming.request) };
    (get, incoming.responder)
}

/// Pulls, while the source does what it does.
async fn pull(
    pair: &Pair,
    pull: &SmallPull,
    source: impl Future<Output = ()>,
) -> (Vec<(BlobId, Bytes)>, usize, Result<(), PullError>) {
    let sink = Kept::default();
    let (pulled, ()) = tokio::join!(timeout(LONG, pair.puller.pull_small(pull, &sink)), source);
    let (kept, pulled) = pulled.unwrap();
    (sink.blobs.into_inner().unwrap(), kept, pulled)
}

// SPEC: A6, A19, D3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_as_may_be_arrive_whole_and_in_order() {
    let pair = pair().await;
    for count in [1, 2, 17, GET_BLOBS_MAX] {
        let blobs = blobs(count);
        let wanted = pull_of(&blobs);
        let (came, kept, pulled) = pull(&pair, &wanted, async {
            let (get, responder) = asked(&pair.source).await;
            assert!(get.blobs.iter().eq(blobs.iter().map(|(blob, _)| blob)));
            responder.serve_small(&blobs, None).await.unwrap();
        })
        .await;
        pulled.unwrap();
        assert!(came == blobs && kept == count, "{count} blobs");
        let received: u64 = wanted.blobs.iter().map(|small| small.gauge.received()).sum();
        assert_eq!(
            received,
            blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>(),
            "each byte is counted once"
        );
    }
    let none = SmallPull { blobs: Vec::new(), ..pull_of(&blobs(1)) };
    assert!(matches!(pair.puller.pull_small(&none, &Kept::default()).await, (0, Ok(()))));
    let many = pair.puller.pull_small(&pull_of(&blobs(GET_BLOBS_MAX + 1)), &Kept::default()).await;
    assert!(matches!(many, (0, Err(PullError::Invalid(_)))), "{many:?}");
}

/// Answers with bytes of the test's own.
async fn say(source: &Connection, size: u64, said: &[u8], ends: bool) {
    let (_connection, mut stream) = asked(source).await.1.into_parts();
    message::write(&mut stream.send, &Response::Data { size }).await.unwrap();
    // The other side stops where it has seen enough.
    let _ = stream.send.write_all(said).await;
    if ends {
        stream.send.finish().unwrap();
        stream.ended = true;
    }
    let _ = timeout(LONG, stream.send.stopped()).await;
}

// SPEC: A6, D3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_35_what_is_not_as_it_was_named_is_the_first_thing_that_is_not_kept() {
    let pair = pair_with(short(), crate::Patience::default()).await;
    let blobs = blobs(40);
    let right: Vec<u8> = blobs.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    let (size, wanted) = (right.len() as u64, pull_of(&blobs));
    let front = |count: usize| blobs[..count].iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let wrong_in = |at: usize| {
        let mut wrong = right.clone();
        wrong[front(at)] ^= 1;
        wrong
    };
    let is = |error: Result<(), PullError>, kind: Misbehaviour| match error {
        Err(PullError::Peer(PeerError::Misbehaved(other))) => assert_eq!(other, kind),
        other => panic!("{other:?}"),
    };
    for at in [0, 1, 33, 39] {
        let (came, kept, pulled) = pull(&pair, &wanted, say(&pair.source, size, &wrong_in(at), true)).await;
        is(pulled, Misbehaviour::WrongBytes { offset: 0 });
        assert!(kept == at && came == blobs[..at], "{at}");
    }
    let short_of = &right[..front(20) + 5];
    let (came, kept, pulled) = pull(&pair, &wanted, say(&pair.source, size, short_of, true)).await;
    is(pulled, Misbehaviour::TooFew);
    assert!(kept == 20 && came == blobs[..20]);
    let (came, _, pulled) =
        pull(&pair, &wanted, say(&pair.source, size, &[&right[..], b"x"].concat(), true)).await;
    is(pulled, Misbehaviour::TooMany);
    assert!(came == blobs, "each of them is proved all the same");
    let (came, _, pulled) = pull(&pair, &wanted, say(&pair.source, size + 1, &right, true)).await;
    is(pulled, Misbehaviour::Size { expected: size, claimed: size + 1 });
    assert!(came.is_empty());
    // It says nothing more: given up after the silence that this side waits for.
    let (came, kept, pulled) = pull(&pair, &wanted, say(&pair.source, size, short_of, false)).await;
    assert!(matches!(pulled, Err(PullError::Peer(PeerError::TimedOut))), "{pulled:?}");
    assert!(kept == 20 && came == blobs[..20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_else_it_answers_is_told_apart() {
    let pair = pair().await;
    let blobs = blobs(3);
    let wanted = pull_of(&blobs);
    let answer = async |response: Response| asked(&pair.source).await.1.respond(&response).await.unwrap();
    let (_, _, refused) = pull(&pair, &wanted, answer(Response::Refused)).await;
    assert!(matches!(refused, Err(PullError::Refused)), "{refused:?}");
    let (_, _, later) = pull(&pair, &wanted, answer(Response::Later(7))).await;
    assert!(matches!(later, Err(PullError::Later(wait)) if wait.as_secs() == 7), "{later:?}");
    let (_, _, other) = pull(&pair, &wanted, answer(Response::Pong)).await;
    assert!(matches!(other, Err(PullError::Peer(PeerError::Misbehaved(_)))), "{other:?}");
    // Damage at the other side's disk is not put down to its honesty; what is in front of it comes.
    let mut damaged = blobs.clone();
    damaged[1].1 = Bytes::from(vec![0; blobs[1].1.len()]);
    let (came, kept, pulled) = pull(&pair, &wanted, async {
        let (_, responder) = asked(&pair.source).await;
        let served = responder.serve_small(&damaged, None).await;
        assert!(matches!(served, Err(ServeError::Damaged { .. })), "{served:?}");
    })
    .await;
    assert!(matches!(pulled, Err(PullError::Peer(PeerError::GaveUp(GiveUp::Damaged)))), "{pulled:?}");
    assert!(came == blobs[..kept] && kept <= 1);
    // This side's disk.
    let sink = Kept { fails: true, ..Kept::default() };
    let serving = async { asked(&pair.source).await.1.serve_small(&blobs, None).await };
    let ((kept, pulled), _) = tokio::join!(pair.puller.pull_small(&wanted, &sink), serving);
    assert!(matches!(pulled, Err(PullError::Sink(_))) && kept == 0, "{pulled:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_know_the_message_is_asked_once() {
    let pair = pair().await;
    let wanted = pull_of(&blobs(3));
    let counting = {
        let source = pair.source.clone();
        tokio::spawn(async move {
            let mut count = 0;
            while let Some(incoming) = source.accept_request().await {
                count += 1;
                // As one that cannot read it does.
                incoming.responder.into_parts().1.give_up(GiveUp::Malformed);
            }
            count
        })
    };
    let mut pulls = JoinSet::new();
    for _ in 0..50 {
        let (puller, wanted) = (pair.puller.clone(), wanted.clone());
        pulls.spawn(async move { puller.pull_small(&wanted, &Kept::default()).await });
    }
    while let Some(pulled) = timeout(LONG, pulls.join_next()).await.unwrap() {
        let (kept, pulled) = pulled.unwrap();
        assert!(matches!(pulled, Err(PullError::Peer(PeerError::GaveUp(GiveUp::Malformed)))), "{pulled:?}");
        assert_eq!(kept, 0);
    }
    pair.puller.close();
    assert_eq!(counting.await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_stopped_keeps_what_has_come() {
    let pair = pair().await;
    let blobs = blobs(5);
    let wanted = pull_of(&blobs);
    let (came, kept, pulled) = pull(&pair, &wanted, async {
        let (_connection, mut stream) = asked(&pair.source).await.1.into_parts();
        let size = blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        message::write(&mut stream.send, &Response::Data { size }).await.unwrap();
        stream.send.write_all(&blobs[0].1).await.unwrap();
        while wanted.blobs.iter().map(|small| small.gauge.received()).sum::<u64>() < blobs[0].1.len() as u64 {
            tokio::task::yield_now().await;
        }
        // Any of them ends all.
        wanted.blobs[3].gauge.stop();
        assert!(timeout(LONG, stream.send.stopped()).await.is_ok());
        stream.ended = true;
    })
    .await;
    assert!(matches!(pulled, Err(PullError::Peer(PeerError::GaveUp(GiveUp::Cancelled)))), "{pulled:?}");
    assert!(kept == 1 && came == blobs[..1], "{kept}");
}
