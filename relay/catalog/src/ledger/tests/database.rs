//! The ledger with its catalog in a real PostgreSQL (SPEC D10).

use std::collections::BTreeMap;

use lighter_protocol::DeliveryId;
use lighter_test_postgres::Postgres;

use super::*;
use crate::contract::references::{copy, with_parts};
use crate::contract::{a_relay, message};
use crate::{Form, PostgresConfig};

async fn open(log: &TestLog, config: &PostgresConfig) -> Ledger<TestLog> {
    let catalog = PostgresCatalog::open(config).await.unwrap();
    Ledger::open_database(log.clone(), Arc::new(catalog), quiet())
}

async fn relay(url: &str) -> (Ledger<TestLog>, TestLog) {
    let log = TestLog::default();
    (open(&log, &a_relay(url.to_owned())).await, log)
}

/// A message of its own number, for Alice, who has a store, and Carol, who has none.
fn numbered(number: u64) -> Message {
    let mut message = message(1, vec![stub("alice", 1), whole("carol")]);
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    message.id = MessageId(id);
    if let Form::Stub { delivery, ticket, .. } = &mut message.recipients[0].form {
        *delivery = DeliveryId(id);
        ticket.0[..8].copy_from_slice(&number.to_be_bytes());
    }
    message
}

async fn is_there(ledger: &Ledger<TestLog>, id: MessageId) -> bool {
    ledger.read(move |catalog| Ok(catalog.message(&id)?.is_some())).await.unwrap()
}

async fn counts(ledger: &Ledger<TestLog>) -> crate::Counts {
    ledger.read(|catalog| catalog.counts()).await.unwrap()
}

// SPEC: D10
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_in_the_database_and_the_log_has_its_bytes_only() {
    let (ledger, log) = relay(&lighter_test_postgres::database()).await;
    let plans = copy("plans", 1, 37);
    ledger.accept(with_parts(1, std::slice::from_ref(&plans)), vec![plans.clone()]).await.unwrap();
    ledger.commit(handed_over(1, &[HandOver::first(0)]), Class::Days30).await.unwrap();
    assert!(is_there(&ledger, MessageId([1; 16])).await);
    assert_eq!(lock(&log.state).brought, [plans]);
    assert!(lock(&log.state).records.is_empty(), "a change in the log");
    let totals = counts(&ledger).await;
    assert_eq!((totals.messages, totals.hand_overs, totals.waiting), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_blobs_are_not_durable_is_not_made() {
    let (ledger, log) = relay(&lighter_test_postgres::database()).await;
    log.fail_next(Fault::Unavailable);
    let result = ledger.accept(with_parts(1, &[copy("plans", 1, 37)]), vec![copy("plans", 1, 37)]).await;
    assert!(matches!(result, Err(CommitError::Unavailable(Some(_)))));
    assert_eq!(counts(&ledger).await, crate::Counts::default());
}

// SPEC: D8, D10
#[tokio::test(flavor = "multi_thread")]
async fn the_same_attachment_at_two_relays_at_once_is_one_copy() {
    let url = lighter_test_postgres::database();
    let (one, two) = (relay(&url).await, relay(&url).await);
    let mut tasks = Vec::new();
    for number in 1..=40_u8 {
        // Each relay wrote it into a segment of its own.
        let (ledger, segment) = if number % 2 == 0 { (&one.0, 1) } else { (&two.0, 2) };
        let ledger = ledger.clone();
        tasks.push(tokio::spawn(async move {
            let own = copy("plans", segment, 37);
            ledger.accept(with_parts(number, std::slice::from_ref(&own)), vec![own]).await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let totals = counts(&one.0).await;
    assert_eq!((totals.references, totals.copies), (40, 1));
    let copies = two.0.read(|catalog| catalog.copies(None, 10)).await.unwrap();
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].references, 40);
}

// SPEC: D8
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_another_relay_let_go_of_is_not_referred_to() {
    let url = lighter_test_postgres::database();
    let ((one, _), (two, _)) = (relay(&url).await, relay(&url).await);
    let (first, second) = (copy("plans", 1, 37), copy("plans", 2, 37));
    one.accept(with_parts(1, std::slice::from_ref(&first)), vec![first.clone()]).await.unwrap();
    let found = two.find_copy(first.id, lighter_protocol::Day(37)).await.unwrap();
    assert_eq!(found, first);
    one.commit(Change::Voided(MessageId([1; 16])), Class::Days30).await.unwrap();
    // The other relay brought nothing, for it had found a copy: it must not name it now.
    let result = two.accept(with_parts(2, &[found]), Vec::new()).await;
    assert!(matches!(result, Err(CommitError::Unavailable(None))), "{result:?}");
    two.accept(with_parts(2, std::slice::from_ref(&second)), vec![second.clone()]).await.unwrap();
    let named = two.read(|catalog| catalog.message(&MessageId([2; 16]))).await.unwrap().unwrap();
    assert_eq!(named.parts[0].blob, second);
}

/// What a caller was told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Made,
    NotMade,
    InDoubt,
}

/// Makes messages one after the other until `stop`, and notes what was said of each.
async fn work(ledger: Ledger<TestLog>, from: u64, stop: watch::Receiver<bool>) -> BTreeMap<MessageId, Told> {
    let mut told = BTreeMap::new();
    let mut number = from;
    while !*stop.borrow() {
        let message = numbered(number);
        number += 1;
        let id = message.id;
        let said = match ledger.accept(message, Vec::new()).await {
            Ok(()) => Told::Made,
            Err(CommitError::InDoubt(_)) => Told::InDoubt,
            Err(_) => Told::NotMade,
        };
        told.insert(id, said);
    }
    told
}

// SPEC: D10
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_and_restarted_under_load_loses_nothing_that_was_answered() {
    let mut postgres = Postgres::start(&[]);
    let url = postgres.create_database("mail");
    let (one, two) = (relay(&url).await.0, relay(&url).await.0);
    let (end, stop) = watch::channel(false);
    let workers: Vec<_> = [(&one, 1), (&one, 2), (&two, 3), (&two, 4)]
        .into_iter()
        .map(|(ledger, at)| tokio::spawn(work(ledger.clone(), at * 1_000_000, stop.clone())))
        .collect();
    let postgres = tokio::task::spawn_blocking(move || {
        let made = |postgres: &Postgres| -> u64 {
            postgres.sql("mail", "SELECT count(*) FROM lighter.messages").parse().unwrap()
        };
        for round in 0..4 {
            let before = made(&postgres);
            while made(&postgres) < before + 200 {
                std::thread::yield_now();
            }
            if round % 2 == 0 {
                postgres.kill();
            } else {
                postgres.stop_immediately();
            }
            postgres.run();
        }
        postgres
    });
    let postgres = postgres.await.unwrap();
    let before = counts(&one).await.messages;
    while counts(&one).await.messages < before + 200 {
        tokio::task::yield_now().await;
    }
    end.send(true).unwrap();
    let mut all = BTreeMap::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    while one.backlog() != (0, 0) || two.backlog() != (0, 0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut made = 0;
    for (id, told) in &all {
        assert_eq!(is_there(&one, *id).await, *told == Told::Made, "{id}: {told:?}");
        made += u64::from(*told == Told::Made);
    }
    let totals = counts(&two).await;
    assert_eq!((totals.messages, totals.hand_overs, totals.waiting), (made, 2 * made, made));
    drop(postgres);
}

/// No standby confirms: what was sent off to be committed may have been, and its answer does not come.
async fn in_doubt(postgres: &Postgres) -> (Ledger<TestLog>, impl Fn(&str)) {
    let url = postgres.create_database("mail");
    let (ledger, _) = relay(&url).await;
    ledger.accept(numbered(1), Vec::new()).await.unwrap();
    let set = |names: &str| {
        postgres.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        postgres.sql("postgres", "SELECT pg_reload_conf()");
        while postgres.sql("postgres", "SHOW synchronous_standby_names") != names {
            std::thread::yield_now();
        }
    };
    (ledger, set)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_found_out_and_made_once() {
    let postgres = Postgres::start(&[]);
    let (ledger, standby) = in_doubt(&postgres).await;
    standby("nobody");
    let accepting = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.accept(numbered(2), Vec::new()).await }
    });
    // Its connection was given up on, and the relay waits for the row that the transaction has.
    let asks = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'";
    while postgres.sql("mail", asks) != "t" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    standby("");
    accepting.await.unwrap().unwrap();
    let totals = counts(&ledger).await;
    assert_eq!((totals.messages, totals.hand_overs), (2, 4));
    // And it goes on from there.
    ledger.accept(numbered(3), Vec::new()).await.unwrap();
    assert_eq!(counts(&ledger).await.messages, 3);
}

/// DESIGN §3 rule 2.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_stays_in_doubt_is_voided_when_the_database_answers() {
    let postgres = Postgres::start(&[]);
    let (ledger, standby) = in_doubt(&postgres).await;
    standby("nobody");
    let result = ledger.accept(numbered(2), Vec::new()).await;
    assert!(matches!(result, Err(CommitError::InDoubt(_))), "{result:?}");
    standby("");
    ledger.accept(numbered(3), Vec::new()).await.unwrap();
    while counts(&ledger).await.messages != 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_there(&ledger, numbered(2).id).await);
    assert!(is_there(&ledger, numbered(3).id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_key_another_process_uses_stops() {
    let config = a_relay(lighter_test_postgres::database());
    let first = open(&TestLog::default(), &config).await;
    first.accept(numbered(1), Vec::new()).await.unwrap();
    let second = open(&TestLog::default(), &config).await;
    assert!(first.accept(numbered(2), Vec::new()).await.is_err());
    first.failed().await;
    second.accept(numbered(3), Vec::new()).await.unwrap();
    assert_eq!(counts(&second).await.messages, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_later_version_is_refused() {
    let server = Postgres::start(&[("fsync", "off")]);
    let config = a_relay(server.create_database("mail"));
    drop(PostgresCatalog::open(&config).await.unwrap());
    server.sql("mail", "INSERT INTO lighter.versions (version) VALUES (99)");
    let opened = PostgresCatalog::open(&config).await;
    assert!(matches!(opened, Err(crate::PostgresOpenError::TooNew { found: 99, .. })));
}
