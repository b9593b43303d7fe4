//! Many small attachments, given together to who may read them.

use std::io;
use std::sync::Mutex;

use bytes::Bytes;
use lighter_protocol::wire::GetBlobs;
use lighter_transport::pull::Gauge;
use lighter_transport::{SmallBlob, SmallPull, SmallSink};

use super::*;

const COUNT: u8 = 40;

/// One message with that many attachments of a few thousand bytes each, and one that is not small.
fn with_many() -> Vec<u8> {
    let end = b"--x--\r\n";
    let mut content = Vec::new();
    for seed in 0..=COUNT {
        let size = if seed == COUNT { 20_000 } else { 2_000 + 100 * usize::from(seed) };
        let one = message(seed, size);
        let part = one.windows(17).position(|bytes| bytes == b"--x\r\nContent-Type").unwrap();
        let from = if seed == 0 { 0 } else { part };
        content.extend_from_slice(&one[from..one.len() - end.len()]);
    }
    content.extend_from_slice(end);
    content
}

/// What was given.
#[derive(Default)]
struct Given(Mutex<Vec<(BlobId, Bytes)>>);

impl SmallSink for Given {
    async fn keep(&self, blobs: Vec<(BlobId, Bytes)>) -> io::Result<()> {
        self.0.lock().unwrap().extend(blobs);
        Ok(())
    }
}

// SPEC: A6, A19, D9
#[tokio::test]
async fn small_attachments_are_given_together_to_their_mailbox_only() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, mallory) = (world.store("alice"), world.store("mallory"));
    let original = with_many();
    relay.take(&["alice"], &original).await;
    let (session, _) = alice.come(&world, &relay).await;
    let offer = alice.offer(&session).await;
    let (small, large): (Vec<_>, Vec<_>) = offer.blobs.iter().partition(|blob| blob.size <= 16_384);
    assert_eq!((small.len(), large.len()), (usize::from(COUNT), 1));

    let wanted = |blob: &&OfferedBlob| SmallBlob { blob: blob.id, size: blob.size, gauge: Gauge::default() };
    let blobs = small.iter().rev().map(wanted).collect();
    let pull = SmallPull { delivery: offer.delivery, blobs, attestation: None, turns: None };
    let given = Given::default();
    let (kept, pulled) = within(session.pull_small(&pull, &given)).await;
    pulled.unwrap();
    assert_eq!(kept, small.len());
    let given = given.0.into_inner().unwrap();
    assert!(
        given.iter().map(|(blob, _)| blob).eq(small.iter().rev().map(|blob| &blob.id)),
        "in the order asked for"
    );

    let together = |delivery, blobs| Request::GetBlobs(GetBlobs { delivery, blobs, attestation: None });
    let nobody = mallory.connect(&relay).await;
    let (other, _) = mallory.come(&world, &relay).await;
    for stranger in [&nobody, &other] {
        refused(stranger, together(offer.delivery, vec![small[0].id])).await;
    }
    refused(&session, together(DeliveryId([9; 16]), vec![small[0].id])).await;
    refused(&session, together(offer.delivery, vec![small[0].id, BlobId([3; 32])])).await;
    refused(&session, together(offer.delivery, vec![small[0].id, large[0].id])).await;
    // And all of it is the message.
    assert_eq!(alice.fetch(&session, &offer).await, original);
}
