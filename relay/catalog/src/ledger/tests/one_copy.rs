//! One copy of the same attachment, whoever brings it and whenever (SPEC D8).

use super::*;
use crate::contract::references::{copy, with_parts};
use crate::{CopyKey, Message};
use lighter_protocol::Day;

async fn bring(ledger: &Ledger<TestLog>, number: u8, own: &StoredBlob) -> Result<(), CommitError> {
    let message = with_parts(number, std::slice::from_ref(own));
    let manifest = message.manifest.clone();
    ledger.accept_applied(message, vec![own.clone(), manifest]).await
}

/// Where the first part of a message lies.
fn named(catalog: &MemoryCatalog, number: u8) -> Option<CopyKey> {
    let message: Option<Message> = catalog.message(&MessageId([number; 16])).unwrap();
    message.map(|message| CopyKey::of(&message.parts[0].blob))
}

fn brought(log: &TestLog, name: &str) -> usize {
    let id = lighter_protocol::BlobId::of(name.as_bytes());
    lock(&log.state).brought.iter().filter(|blob| blob.id == id).count()
}

// SPEC: D8
#[tokio::test]
async fn what_is_here_already_is_referred_to_and_not_kept_again() {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    let first = copy("plans", 1, 37);
    bring(&ledger, 1, &first).await.unwrap();
    bring(&ledger, 2, &copy("plans", 2, 37)).await.unwrap();
    bring(&ledger, 3, &copy("plans", 3, 20)).await.unwrap();
    for number in 1..=3 {
        assert_eq!(named(&catalog, number), Some(CopyKey::of(&first)));
    }
    assert_eq!(brought(&log, "plans"), 1, "an orphan need not become durable");
    let counts = catalog.counts().unwrap();
    assert_eq!((counts.references, counts.copies, counts.copies_bytes), (3, 1, 1_000));
    assert_eq!(truth(&log).await, everything(&*catalog), "the log alone tells it");
    assert_eq!(ledger.locks().len(), 0);
}

#[tokio::test]
async fn a_copy_that_goes_earlier_or_is_not_whole_is_not_referred_to() {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    bring(&ledger, 1, &copy("plans", 1, 37)).await.unwrap();
    let later = copy("plans", 2, 38);
    bring(&ledger, 2, &later).await.unwrap();
    assert_eq!(named(&catalog, 2), Some(CopyKey::of(&later)), "a reference never outlives its copy");
    lock(&log.state).lost = vec![2];
    let whole = copy("plans", 3, 38);
    bring(&ledger, 3, &whole).await.unwrap();
    assert_eq!(named(&catalog, 3), Some(CopyKey::of(&whole)), "never fewer copies than promised");
    bring(&ledger, 4, &copy("plans", 4, 38)).await.unwrap();
    assert_eq!(named(&catalog, 4), Some(CopyKey::of(&whole)), "the next ones find the one that is whole");
}

// SPEC: D8
#[tokio::test]
async fn bad_input_38_of_a_hundred_that_bring_it_at_once_one_is_kept() {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=100 {
        let ledger = ledger.clone();
        tasks.spawn(async move { bring(&ledger, number, &copy("plans", number, 37)).await });
    }
    tasks.join_all().await.into_iter().for_each(Result::unwrap);
    let counts = catalog.counts().unwrap();
    assert_eq!((counts.references, counts.copies), (100, 1));
    assert_eq!(brought(&log, "plans"), 1);
    assert_eq!(ledger.locks().len(), 0);
}

#[tokio::test]
async fn messages_that_bring_the_same_attachments_in_another_order_do_not_wait_for_each_other() {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=60_u8 {
        let mut parts = vec![copy("a", number, 37), copy("b", number, 37), copy("c", number, 37)];
        parts.rotate_left(usize::from(number) % 3);
        let (ledger, message) = (ledger.clone(), with_parts(number, &parts));
        tasks.spawn(async move { ledger.accept(message, parts).await });
    }
    tasks.join_all().await.into_iter().for_each(Result::unwrap);
    while catalog.counts().unwrap().references < 180 {
        tokio::task::yield_now().await;
    }
    assert_eq!(catalog.counts().unwrap().copies, 3);
}

/// What its own message did not make durable is never named by another.
#[tokio::test]
async fn a_copy_whose_message_failed_or_is_in_doubt_is_not_referred_to() {
    for fault in [Fault::Unavailable, Fault::DoubtIn, Fault::DoubtOut] {
        let log = TestLog::default();
        let (ledger, catalog) = in_memory(&log).await;
        let (open_gate, gate) = watch::channel(false);
        lock(&log.state).gate = Some(gate);
        log.fail_next(fault);
        let first = tokio::spawn({
            let ledger = ledger.clone();
            async move { bring(&ledger, 1, &copy("plans", 1, 37)).await }
        });
        while ledger.backlog().0 == 0 {
            tokio::task::yield_now().await;
        }
        let own = copy("plans", 2, 37);
        let second = tokio::spawn({
            let (ledger, own) = (ledger.clone(), own.clone());
            async move { bring(&ledger, 2, &own).await }
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished(), "it waits to hear what becomes of the first");
        open_gate.send(true).unwrap();
        assert!(first.await.unwrap().is_err());
        second.await.unwrap().unwrap();
        assert_eq!(named(&catalog, 2), Some(CopyKey::of(&own)));
        while ledger.backlog() != (0, 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(named(&catalog, 1), None);
        assert_eq!(truth(&log).await, everything(&*catalog));
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_holds_up_nobody() {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    let (open_gate, gate) = watch::channel(false);
    lock(&log.state).gate = Some(gate);
    let spawn = |number: u8| {
        let ledger = ledger.clone();
        tokio::spawn(async move { bring(&ledger, number, &copy("plans", number, 37)).await })
    };
    let first = spawn(1);
    while ledger.backlog().0 == 0 {
        tokio::task::yield_now().await;
    }
    let second = spawn(2);
    while ledger.locks().len() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    second.abort();
    let third = spawn(3);
    open_gate.send(true).unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(
        named(&catalog, 3),
        Some(CopyKey::of(&copy("plans", 1, 37))),
        "what was begun came to its end"
    );
    assert_eq!(ledger.locks().len(), 0);
}

#[tokio::test]
async fn a_copy_is_found_before_anything_is_written() {
    let log = TestLog::default();
    let (ledger, _catalog) = in_memory(&log).await;
    let plans = copy("plans", 1, 37);
    assert_eq!(ledger.find_copy(plans.id, Day(37)).await, None);
    bring(&ledger, 1, &plans).await.unwrap();
    assert_eq!(ledger.find_copy(plans.id, Day(37)).await, Some(plans.clone()));
    assert_eq!(ledger.find_copy(plans.id, Day(38)).await, None);
    lock(&log.state).lost = vec![1];
    assert_eq!(ledger.find_copy(plans.id, Day(37)).await, None);
}

/// The copy was found, and nothing written; then the last message that referred to it let go of it.
#[tokio::test]
async fn a_copy_that_was_found_and_is_dead_by_then_is_not_named_and_the_message_brings_its_own() {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    let plans = copy("plans", 1, 37);
    bring(&ledger, 1, &plans).await.unwrap();
    let found = ledger.find_copy(plans.id, Day(37)).await.unwrap();
    ledger.commit_applied(Change::Voided(MessageId([1; 16])), Class::Days30).await.unwrap();
    assert_eq!(catalog.counts().unwrap().copies, 0);
    let left_out = ledger.accept_applied(with_parts(2, std::slice::from_ref(&found)), Vec::new()).await;
    assert!(matches!(left_out, Err(CommitError::Unavailable(None))));
    assert_eq!(named(&catalog, 2), None);
    let own = copy("plans", 2, 37);
    bring(&ledger, 2, &own).await.unwrap();
    assert_eq!(named(&catalog, 2), Some(CopyKey::of(&own)));
}

/// What is alive, and how many copies and manifests that is.
async fn alive(ledger: &Ledger<TestLog>) -> Vec<CopyKey> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&found);
    ledger.alive(move |blob| lock(&into).push(CopyKey::of(blob))).await.unwrap();
    std::mem::take(&mut *lock(&found))
}

// SPEC: D8
#[tokio::test]
async fn what_is_alive_is_told_of_a_moment_at_which_nobody_claims_anything() {
    let log = TestLog::default();
    let (ledger, _) = in_memory(&log).await;
    assert_eq!(alive(&ledger).await, []);
    let first = copy("plans", 1, 37);
    bring(&ledger, 1, &first).await.unwrap();
    bring(&ledger, 2, &copy("plans", 2, 37)).await.unwrap();
    let found = alive(&ledger).await;
    assert_eq!(found.len(), 3, "two manifests, and the attachment once");
    assert!(found.contains(&CopyKey::of(&first)));

    // A message is on its way that has found the copy.
    let (open_gate, gate) = watch::channel(false);
    lock(&log.state).gate = Some(gate);
    let third = tokio::spawn({
        let ledger = ledger.clone();
        async move { bring(&ledger, 3, &copy("plans", 3, 37)).await }
    });
    while ledger.backlog().0 == 0 {
        tokio::task::yield_now().await;
    }
    let looking = tokio::spawn({
        let ledger = ledger.clone();
        async move { alive(&ledger).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!looking.is_finished(), "it may refer to what would be told to be dead");
    open_gate.send(true).unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(looking.await.unwrap().len(), 4);
    bring(&ledger, 4, &copy("plans", 4, 37)).await.unwrap();
}

#[tokio::test]
async fn a_part_that_was_left_out_and_whose_copy_is_dead_by_then_is_asked_for_again() {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    let first = copy("plans", 1, 37);
    bring(&ledger, 1, &first).await.unwrap();
    // Left out, since it is there: only the manifest was stored.
    let leaving_out = async |number: u8, part: &StoredBlob| {
        let message = with_parts(number, std::slice::from_ref(part));
        let manifest = message.manifest.clone();
        ledger.accept_applied(message, vec![manifest]).await
    };
    leaving_out(2, &first).await.unwrap();
    assert_eq!(named(&catalog, 2), Some(CopyKey::of(&first)));
    let nobody_has_it = copy("other plans", 1, 37);
    assert!(matches!(leaving_out(3, &nobody_has_it).await, Err(CommitError::Unavailable(None))));
    assert_eq!(named(&catalog, 3), None);
    assert_eq!(ledger.locks().len(), 0);
    bring(&ledger, 3, &nobody_has_it).await.unwrap();
}
