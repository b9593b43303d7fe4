//! Between domains: only where sender, giver and taker all say so.

use lighter_agent::acceptance;
use lighter_agent::sharing::Share;
use lighter_protocol::Mailbox;
use lighter_protocol::pull::{Role, SourceView};
use lighter_transport::location::api::{AcceptanceChange, AcceptancePolicy};

use super::office::{MIB, change, come, holds, is_intact, is_receipted, limit, send, sender, stop, views};
use crate::support::mail_sink::MailSink;
use crate::support::recorder::{Manner, Recorder};
use crate::support::{World, bytes, eventually, file, start};

fn named(text: &str) -> Mailbox {
    text.parse().unwrap()
}

/// Sam and dave at a.example, carol at b.example; each may find the others.
async fn across(of_sam: Share, of_carol: Share, of_dave: Share) -> Vec<SourceView> {
    let sink = MailSink::start().await;
    let a = World::start().await;
    let url = a.location.url();
    let b = World::start_with(|config| {
        config.finding.domains.insert("a.example".to_owned(), url);
    })
    .await;
    let sam_paths = sender(&a, "sam@a.example", &sink, |config| config.send.share = of_sam).await;
    let dave_paths = a.set_up_as("dave", named("dave@a.example"), None).await;
    let carol_paths = b.set_up_as("carol", named("carol@b.example"), None).await;
    let (of_a, of_b) = (a.location.url(), b.location.url());
    for paths in [&sam_paths, &dave_paths] {
        change(paths, |config| _ = config.finding.domains.insert("b.example".to_owned(), of_b.clone()));
    }
    change(&carol_paths, |config| {
        config.finding.domains.insert("a.example".to_owned(), of_a);
        config.store.share = of_carol;
    });
    change(&dave_paths, |config| config.store.share = of_dave);
    start(&dave_paths).await.stop().await;
    let (sam, carol) = (start(&sam_paths).await, start(&carol_paths).await);
    let policy = Some(AcceptancePolicy::Open);
    acceptance::change(carol.shared(), AcceptanceChange { policy, ..AcceptanceChange::default() })
        .await
        .unwrap();
    let content = bytes(3, 24 * 1024 * 1024);
    let attached = file(a.folder.path(), "a.bin", &content);
    send(&sam_paths, &["carol@b.example", "dave@a.example"], &attached).await;
    assert!(holds(&carol, &content));
    limit(&sam, "6 MiB/s");
    let dave = come(&sam, &dave_paths).await;
    let mut last = Vec::new();
    eventually("dave's", async || {
        let views = views(&dave).await;
        if !views.is_empty() {
            last = views;
        }
        is_receipted(&dave)
    })
    .await;
    assert!(is_intact(&dave, &content));
    stop([sam, carol, dave]).await;
    last
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn between_domains_it_is_shared_where_all_three_say_so_and_not_otherwise() {
    let brought = |views: &[SourceView]| {
        views.iter().filter(|view| view.role == Role::Recipient).map(|view| view.bytes).sum::<u64>()
    };
    let views = across(Share::All, Share::All, Share::All).await;
    assert!(brought(&views) > 4 * MIB, "{views:?}");
    for (sam, carol, dave) in [
        (Share::default(), Share::All, Share::All),
        (Share::All, Share::default(), Share::All),
        (Share::All, Share::All, Share::default()),
    ] {
        let views = across(sam, carol, dave).await;
        assert_eq!(brought(&views), 0, "{views:?}");
    }
}

/// Sam sends to carol and dave at a.example, to eve at b.example, and to frank there, who has no store: all are shown. Carol
/// takes it first, then eve, then dave. Gives whom dave and eve were told of.
async fn told_across(share: Share) -> [Vec<Mailbox>; 2] {
    let sink = MailSink::start().await;
    let a = World::start().await;
    let url = a.location.url();
    let b = World::start_with(|config| {
        config.finding.domains.insert("a.example".to_owned(), url);
    })
    .await;
    let sam_paths = sender(&a, "sam@a.example", &sink, |config| {
        config.finding.domains.insert("b.example".to_owned(), b.location.url());
        config.send.share = share;
    })
    .await;
    let carol_paths = a.set_up_as("carol", named("carol@a.example"), None).await;
    let dave_paths = a.set_up_as("dave", named("dave@a.example"), None).await;
    let eve_paths = b.set_up_as("eve", named("eve@b.example"), None).await;
    let eve = start(&eve_paths).await;
    let policy = Some(AcceptancePolicy::Open);
    let chosen = AcceptanceChange { policy, ..AcceptanceChange::default() };
    acceptance::change(eve.shared(), chosen).await.unwrap();
    eve.stop().await;
    let carol = Recorder::start(&carol_paths, Manner::New).await;
    let dave = Recorder::start(&dave_paths, Manner::New).await;
    let eve = Recorder::start(&eve_paths, Manner::New).await;
    let sam = start(&sam_paths).await;
    let attached = file(a.folder.path(), "a.bin", &bytes(4, 12 * 1024 * 1024));
    let to = ["carol@a.example", "dave@a.example", "eve@b.example", "frank@b.example"];
    let sending = send(&sam_paths, &to, &attached);
    let taking = async {
        tokio::join!(dave.offered(), eve.offered());
        carol.take().await;
        // What is said of carol is said before anything is said of eve.
        if share.permits(&carol.mailbox, &dave.mailbox) {
            eventually("dave to hear of carol", async || dave.told().contains(&carol.mailbox)).await;
        }
        if share.permits(&carol.mailbox, &eve.mailbox) {
            eventually("eve to hear of carol", async || eve.told().contains(&carol.mailbox)).await;
        }
        eve.take().await;
        if share.permits(&eve.mailbox, &dave.mailbox) {
            eventually("dave to hear of eve", async || dave.told().contains(&eve.mailbox)).await;
        }
        dave.take().await;
    };
    tokio::join!(sending, taking);
    let shown = sam.shared().store.all_outgoing().unwrap();
    let shown = sam.shared().store.shown(shown[0].manifest.id).unwrap();
    assert_eq!(shown.len(), if share == Share::Off { 0 } else { 3 }, "each may share with somebody");
    sam.stop().await;
    assert_eq!(carol.told(), [], "she was the first");
    [dave.told(), eve.told()]
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_names_nobody_to_another_domain_unless_it_shares_with_all() {
    let (carol, eve) = (named("carol@a.example"), named("eve@b.example"));
    assert_eq!(told_across(Share::default()).await, [vec![carol.clone()], vec![]]);
    assert_eq!(told_across(Share::All).await, [vec![carol.clone(), eve], vec![carol]]);
    assert_eq!(told_across(Share::Off).await, [vec![], vec![]]);
}
