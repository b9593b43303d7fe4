//! What is said to whom, as it comes over the wire: who is in Bcc hears of nobody, and nobody of them.

use lighter_agent::sharing::Share;
use lighter_protocol::wire::Request;

use super::message;
use super::office::{are_released, sender};
use crate::submissions::Client;
use crate::support::mail_sink::MailSink;
use crate::support::recorder::{Manner, Recorder};
use crate::support::{World, bytes, eventually};

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn on_the_wire_nothing_shows_a_recipient_in_bcc_to_others_or_others_to_them() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let mut stores = Vec::new();
    // Carol is in To, dave in Cc; gus and hal are in Bcc.
    for name in ["carol", "dave", "gus", "hal"] {
        stores.push(Recorder::start(&world.set_up(name, None).await, Manner::New).await);
    }
    let [carol, dave, gus, hal] = &stores[..] else { unreachable!("four") };
    let sam_paths = sender(&world, "sam@example.org", &sink, |config| {
        config.submission.listen = Some("127.0.0.1:0".parse().unwrap());
        config.send.share = Share::All;
    })
    .await;
    let (sam, address) = crate::submissions::start(&sam_paths).await;
    let mut client = Client::connect(address).await;
    let content = message(&bytes(5, 12 * 1024 * 1024));
    let sending = async {
        let said = client.send("sam", &["carol", "dave", "gus", "hal"], &content).await;
        assert!(said.starts_with("250 "), "{said}");
    };
    let taking = async {
        for store in &stores {
            store.offered().await;
        }
        // Gus has it first, and dave pulls; then carol has it, and dave is told.
        gus.take().await;
        carol.take().await;
        eventually("dave to hear of carol", async || !dave.told().is_empty()).await;
        dave.take().await;
        eventually("three receipts", async || are_released(&sam, &["gus", "carol", "dave"])).await;
        // Hal pulls when all others have it.
        hal.take().await;
    };
    tokio::join!(sending, taking);
    eventually("hal's receipt", async || are_released(&sam, &["hal"])).await;
    sam.stop().await;

    let hears = |one: &Recorder, other: &Recorder| one.has_heard_of(&other.mailbox, &other.identity.peer());
    assert!(hears(dave, carol), "what is said is seen");
    for store in &stores {
        assert!(hears(store, store), "and what is said to each of their own mailbox");
    }
    for (one, other) in
        [(gus, carol), (gus, dave), (gus, hal), (hal, carol), (hal, dave), (dave, hal), (carol, hal)]
    {
        assert!(!hears(one, other), "{} of {}", one.mailbox, other.mailbox);
        assert!(!hears(other, one), "{} of {}", other.mailbox, one.mailbox);
    }
    for in_bcc in [gus, hal] {
        assert_eq!(in_bcc.count(|request| matches!(request, Request::Sources(_) | Request::GetShared(_))), 0);
    }
}
