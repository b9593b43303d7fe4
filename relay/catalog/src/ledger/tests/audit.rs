//! Holding the view against the log: what agrees is said to agree, whatever goes on meanwhile, and nothing that differs is
//! passed over.

use super::*;
use crate::compare::{Difference, Disagreement, Subject, compare};
use crate::contract::{NOW, delivery, mailbox, receipted, ticket};
use crate::tables::{Engine, Table, TablesMut};
use crate::{Counts, DeliveryState};
use lighter_protocol::{Day, UnixTime};
use std::sync::atomic::AtomicU64;

async fn audit(ledger: &Ledger<TestLog>) -> Audit {
    let folder = tempfile::tempdir().unwrap();
    ledger.audit(folder.path(), NOW.day(), &AtomicU64::new(0)).await.unwrap()
}

/// A view with something of everything: waiting, handed over, put off, receipted, released, renewed and revoked.
async fn busy() -> (TestLog, Ledger<TestLog>, Arc<MemoryCatalog>) {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    commit_some(&ledger, 0..12).await;
    let mut changes = vec![
        Change::Released { delivery: delivery(3) },
        Change::Released { delivery: delivery(4) },
        Change::TicketRenewed { delivery: delivery(5), generation: 1, ticket: ticket(5, 1) },
        Change::TicketRevoked { delivery: delivery(6), generation: 0 },
        Change::Expired { delivery: delivery(7), at: NOW },
        Change::Voided(MessageId([8; 16])),
    ];
    changes.splice(0..0, (3..5).map(|number| receipted(number, "alice")));
    for change in changes {
        ledger.commit_applied(change, Class::Days30).await.unwrap();
    }
    catalog.postpone(&MessageId([1; 16]), &[HandOver::first(1)], 4, UnixTime(NOW.0 + 900)).unwrap();
    (log, ledger, catalog)
}

#[tokio::test]
async fn view_and_log_agree_whatever_only_the_view_knows() {
    let (_log, ledger, catalog) = busy().await;
    let found = audit(&ledger).await;
    assert_eq!((found.disagreements, found.first), (0, vec![]));
    assert_eq!(found.changes, 12 * 2 + 8);
    assert!(catalog.counts().unwrap().waiting > 0);
}

#[tokio::test]
async fn they_agree_while_changes_are_made() {
    let (_log, ledger, _catalog) = busy().await;
    let writing = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            for number in 20..60 {
                commit_some(&ledger, number..number + 1).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let mut tries = 0;
    while !writing.is_finished() {
        assert_eq!(audit(&ledger).await.first, vec![]);
        tries += 1;
    }
    assert!(tries > 0);
    writing.await.unwrap();
    assert_eq!(audit(&ledger).await.changes, 12 * 2 + 8 + 80);
}

#[tokio::test]
async fn a_change_under_way_is_waited_for_and_others_go_on_after_the_look() {
    let (log, ledger, _catalog) = busy().await;
    let (open_gate, gate) = watch::channel(false);
    lock(&log.state).gate = Some(gate);
    let slow = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.commit(accepted(200, vec![whole("alice")]), Class::Days30).await }
    });
    while ledger.backlog().0 == 0 {
        tokio::task::yield_now().await;
    }
    let auditing = tokio::spawn({
        let ledger = ledger.clone();
        async move { audit(&ledger).await }
    });
    // The audit holds nobody up for long: this one is taken while the slow one is still under way.
    ledger.commit_applied(accepted(201, vec![whole("alice")]), Class::Days30).await.unwrap();
    open_gate.send(true).unwrap();
    slow.await.unwrap().unwrap();
    assert_eq!(auditing.await.unwrap().first, vec![]);
}

fn about(subject: Subject, how: Difference) -> impl Fn(&Disagreement) -> bool {
    move |found| found.about == subject && found.how == how
}

#[tokio::test]
async fn each_kind_of_disagreement_is_named() {
    let (_log, ledger, catalog) = busy().await;
    let later = Sequence(u64::MAX - 1);
    let spoil = |change: Change| catalog.apply(&[(later, change)], None).unwrap();
    let elsewhere = |number: u8| {
        let mut message = crate::contract::message(number, vec![stub("alice", number), whole("carol")]);
        message.parts[0].blob = crate::contract::references::copy("part", 9, 37);
        Change::Accepted(Box::new(message))
    };
    spoil(Change::Released { delivery: delivery(9) }); // of a delivery without a receipt: changes nothing
    assert_eq!(audit(&ledger).await.disagreements, 0);

    spoil(receipted(9, "alice"));
    spoil(Change::TicketRevoked { delivery: delivery(10), generation: 0 });
    spoil(handed_over(10, &[HandOver::first(1)]));
    spoil(accepted(100, vec![whole("carol")]));
    spoil(Change::Voided(MessageId([2; 16])));
    spoil(Change::Voided(MessageId([11; 16])));
    spoil(elsewhere(11));
    let found = audit(&ledger).await;
    for (subject, how) in [
        (Subject::Receipt, Difference::Unlike),
        (Subject::Ticket, Difference::Unlike),
        (Subject::HandOver, Difference::Unlike),
        (Subject::Message, Difference::OnlyInView),
        (Subject::Message, Difference::OnlyInLog),
        (Subject::Delivery, Difference::OnlyInLog),
        (Subject::Reference, Difference::OnlyInLog),
        (Subject::Reference, Difference::OnlyInView),
        (Subject::Placement, Difference::Unlike),
        (Subject::Count, Difference::Unlike),
    ] {
        assert!(found.first.iter().any(about(subject, how)), "{subject:?} {how:?}: {:#?}", found.first);
    }
    assert!(found.first.iter().any(|found| found.id == delivery(9).to_string()));
}

/// Every row of the view, whichever it is: lost, or with another byte in it.
#[tokio::test]
async fn no_row_that_is_lost_or_changed_is_passed_over() {
    let (log, _ledger, catalog) = busy().await;
    let folder = tempfile::tempdir().unwrap();
    rebuild(&log, folder.path(), &|_| ()).await.unwrap();
    let truth = EmbeddedCatalog::open(folder.path()).unwrap();
    let compared = || {
        let mut found = Vec::new();
        let today = NOW.day();
        let compared = catalog.engine().read(|ours| {
            truth.engine().read(|theirs| compare(ours, theirs, today, &mut |one| found.push(one)))
        });
        compared.unwrap();
        found
    };
    let put = |table, key: &[u8], row: Option<&[u8]>| {
        let change = |tables: &mut dyn TablesMut| match row {
            Some(row) => tables.put(table, key, row),
            None => tables.remove(table, key),
        };
        catalog.engine().write(false, change).unwrap();
    };
    assert_eq!(compared(), vec![]);
    let mut rows = 0;
    for table in Table::ALL {
        let mut all = Vec::new();
        let visit = &mut |key: &[u8], row: &[u8]| {
            all.push((key.to_vec(), row.to_vec()));
            Ok(ControlFlow::Continue(()))
        };
        catalog.engine().read(|tables| tables.scan(table, &[], visit)).unwrap();
        for (key, row) in all {
            if table == Table::Meta && key == b"checkpoint" {
                continue;
            }
            rows += 1;
            put(table, &key, None);
            assert_ne!(compared(), vec![], "{table:?}: a row was lost");
            // When a hand-over is tried next is the view's own; of an index only the keys count.
            if !matches!(table, Table::HandOvers | Table::Due) {
                let mut other = row.clone();
                other.push(7);
                put(table, &key, Some(&other));
                assert_ne!(compared(), vec![], "{table:?}: a row was changed");
            }
            put(table, &key, Some(&row));
            let mut beside = key.clone();
            if let Some(last) = beside.last_mut() {
                *last ^= 1;
            }
            if table != Table::Meta
                && catalog.engine().read(|tables| tables.get(table, &beside)).unwrap().is_none()
            {
                put(table, &beside, Some(&row));
                assert_ne!(compared(), vec![], "{table:?}: a row was added");
                put(table, &beside, None);
            }
        }
    }
    assert!(rows > 100, "{rows}");
    assert_eq!(compared(), vec![]);
}

#[tokio::test]
async fn what_is_out_of_time_need_not_be_told_alike() {
    let (_log, ledger, catalog) = busy().await;
    let over = NOW.day().plus(40);
    let folder = tempfile::tempdir().unwrap();
    let found = ledger.audit(folder.path(), over, &AtomicU64::new(0)).await.unwrap();
    assert_eq!(found.first, vec![], "the log's view has forgotten it, this one not yet");
    catalog.purge(over, 1_000).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let found = ledger.audit(folder.path(), over, &AtomicU64::new(0)).await.unwrap();
    assert_eq!(found.first, vec![]);
    assert_ne!(audit(&ledger).await.disagreements, 0, "forgotten before its time");
}

/// Nothing delivered twice: what was receipted, released, handed over or voided is so in a view that is made anew.
#[tokio::test]
async fn a_rebuilt_view_makes_nothing_due_again() {
    let (log, _ledger, catalog) = busy().await;
    let folder = tempfile::tempdir().unwrap();
    let seen = AtomicU64::new(0);
    let count = |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    };
    let (counts, alarms) = rebuild(&log, folder.path(), &count).await.unwrap();
    assert_eq!((counts, alarms), (catalog.counts().unwrap(), ReplayAlarms::default()));
    assert_eq!(seen.into_inner(), 12 * 2 + 8);
    assert_ne!(counts, Counts::default());
    let rebuilt = EmbeddedCatalog::open(folder.path()).unwrap();
    let waiting = rebuilt.waiting(&mailbox("alice"), None, 100).unwrap();
    assert!(waiting.iter().all(|row| ![3, 4, 8].contains(&row.id.0[0])));
    let state = rebuilt.delivery(&delivery(3)).unwrap().unwrap().state;
    assert!(matches!(state, DeliveryState::Released { .. }));
    let due = |catalog: &dyn Catalog| {
        let due = catalog.due(UnixTime(u64::MAX), 1_000, &std::collections::BTreeSet::new()).unwrap();
        due.into_iter().map(|due| (due.message, due.hand_over)).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(due(&rebuilt), due(&*catalog), "what was handed over is not due again");
    assert!(rebuilt.by_ticket(&ticket(6, 0)).unwrap().is_none(), "what was revoked opens nothing");
    assert!(rebuilt.purge(Day(0), 10).unwrap().open.is_empty());
}
