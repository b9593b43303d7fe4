use std::sync::Arc;

use lighter_protocol::MessageId;

use super::*;
use crate::contract::{accepted, everything, handed_over, stub, whole};
use crate::{HandOver, MemoryCatalog};

/// A log in memory, with faults to order.
#[derive(Clone, Default)]
struct TestLog {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    records: Vec<(Sequence, Vec<u8>)>,
    next: u64,
    faults: Vec<Fault>,
    gate: Option<watch::Receiver<bool>>,
    /// Copies that are not there, by segment.
    lost: Vec<u8>,
    /// Blobs that came with changes.
    brought: Vec<StoredBlob>,
}

/// What goes wrong with the next append.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Unavailable,
    /// In doubt, and it is in the log.
    DoubtIn,
    /// In doubt, and it is not.
    DoubtOut,
}

impl TestLog {
    fn fail_next(&self, fault: Fault) {
        lock(&self.state).faults.push(fault);
    }

    /// The log as it stands, as another process would find it.
    fn copy(&self) -> Self {
        let state = lock(&self.state);
        let state = State { records: state.records.clone(), next: state.next, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl Log for TestLog {
    type Blob = StoredBlob;

    async fn append(
        &self,
        change: Vec<u8>,
        _class: Class,
        blobs: Vec<StoredBlob>,
    ) -> Result<Sequence, LogError> {
        let (sequence, fault, gate) = {
            let mut state = lock(&self.state);
            state.brought.extend(blobs);
            let fault = state.faults.pop();
            state.next += 3; // numbers have gaps: portions take some
            let sequence = Sequence(state.next);
            if !matches!(fault, Some(Fault::Unavailable | Fault::DoubtOut)) {
                state.records.push((sequence, change));
            }
            (sequence, fault, state.gate.take())
        };
        if let Some(mut gate) = gate {
            let _ = gate.wait_for(|open| *open).await;
        }
        match fault {
            None => Ok(sequence),
            Some(Fault::Unavailable) => Err(LogError::Unavailable("fault".into())),
            Some(Fault::DoubtIn | Fault::DoubtOut) => Err(LogError::InDoubt("fault".into())),
        }
    }

    fn stored(blob: &StoredBlob) -> &StoredBlob {
        blob
    }

    async fn make_durable(&self, blobs: &[StoredBlob]) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        match state.faults.pop() {
            None => {
                state.brought.extend(blobs.iter().cloned());
                Ok(())
            }
            Some(_) => Err(LogError::Unavailable("fault".into())),
        }
    }

    async fn is_kept(&self, blob: &StoredBlob) -> bool {
        let segment = blob.location.place(0).map(|place| place.segment.0[0]);
        !lock(&self.state).lost.iter().any(|lost| Some(*lost) == segment)
    }

    async fn is_readable(&self, blob: &StoredBlob) -> bool {
        self.is_kept(blob).await
    }

    async fn replay(
        &self,
        from: Sequence,
        visit: &mut (dyn FnMut(Sequence, &[u8]) -> ControlFlow<()> + Send),
    ) -> Result<ReplayAlarms, LogError> {
        for (sequence, bytes) in lock(&self.state).records.iter().filter(|(sequence, _)| *sequence >= from) {
            if visit(*sequence, bytes).is_break() {
                break;
            }
        }
        Ok(ReplayAlarms::default())
    }
}

fn quiet() -> Box<Observer> {
    Box::new(|_| {})
}

async fn embedded(log: &TestLog, folder: &Path) -> Ledger<TestLog> {
    Ledger::open_embedded(log.clone(), folder, quiet()).await.unwrap()
}

async fn in_memory(log: &TestLog) -> (Ledger<TestLog>, Arc<MemoryCatalog>) {
    let catalog = Arc::new(MemoryCatalog::new());
    (Ledger::open(log.clone(), Arc::clone(&catalog) as _, quiet()).await.unwrap(), catalog)
}

/// What a fresh view of the log says.
async fn truth(log: &TestLog) -> String {
    let (_ledger, catalog) = in_memory(&log.copy()).await;
    everything(&*catalog)
}

async fn commit_some(ledger: &Ledger<TestLog>, numbers: std::ops::Range<u8>) {
    for number in numbers {
        let change = accepted(number, vec![stub("alice", number), whole("carol")]);
        ledger.commit_applied(change, Class::Days30).await.unwrap();
        ledger.commit_applied(handed_over(number, &[HandOver::first(0)]), Class::Days30).await.unwrap();
    }
}

async fn said(ledger: &Ledger<TestLog>) -> String {
    ledger.read(|catalog| Ok(everything(catalog))).await.unwrap()
}

async fn until_closed(ledger: Ledger<TestLog>) {
    let Truth::Log(queue) = &ledger.shared.truth else { return };
    let queue = queue.clone();
    drop(ledger);
    // The applier ends, with a last checkpoint, when the last sender is gone.
    let weak = queue.downgrade();
    drop(queue);
    while weak.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

async fn reopen(log: &TestLog, folder: &Path) -> Ledger<TestLog> {
    loop {
        match Ledger::open_embedded(log.clone(), folder, quiet()).await {
            Err(OpenError::Catalog(CatalogError::InUse)) => tokio::task::yield_now().await,
            result => return result.unwrap(),
        }
    }
}

#[tokio::test]
async fn everything_is_back_after_a_restart() {
    let (log, folder) = (TestLog::default(), tempfile::tempdir().unwrap());
    let ledger = embedded(&log, folder.path()).await;
    commit_some(&ledger, 0..20).await;
    let before = said(&ledger).await;
    until_closed(ledger).await;
    assert_eq!(said(&reopen(&log, folder.path()).await).await, before);
    assert_eq!(truth(&log).await, before);
}

// SPEC: B13
#[tokio::test]
async fn with_the_view_deleted_everything_is_back() {
    let (log, folder) = (TestLog::default(), tempfile::tempdir().unwrap());
    let ledger = embedded(&log, folder.path()).await;
    commit_some(&ledger, 0..20).await;
    let before = said(&ledger).await;
    until_closed(ledger).await;
    drop(reopen(&log, folder.path()).await);
    let other = tempfile::tempdir().unwrap();
    assert_eq!(said(&embedded(&log, other.path()).await).await, before);
}

#[tokio::test]
async fn a_damaged_view_is_set_aside_and_made_again() {
    for damage in ["cut", "flip", "garbage"] {
        let (log, folder) = (TestLog::default(), tempfile::tempdir().unwrap());
        let ledger = embedded(&log, folder.path()).await;
        commit_some(&ledger, 0..20).await;
        let before = said(&ledger).await;
        until_closed(ledger).await;
        drop(reopen(&log, folder.path()).await);
        let path = folder.path().join("catalog-2.redb");
        drop(closed(folder.path()).await);
        let bytes = std::fs::read(&path).unwrap();
        let damaged: Vec<u8> = match damage {
            "cut" => bytes[..bytes.len() / 3].to_vec(),
            "flip" => bytes
                .iter()
                .enumerate()
                .map(|(at, byte)| if at % 1000 == 999 { !byte } else { *byte })
                .collect(),
            _ => b"not a database".repeat(100),
        };
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(said(&embedded(&log, folder.path()).await).await, before, "{damage}");
    }
}

#[tokio::test]
async fn a_view_ahead_of_its_log_is_made_again() {
    let (log, folder) = (TestLog::default(), tempfile::tempdir().unwrap());
    let ledger = embedded(&log, folder.path()).await;
    commit_some(&ledger, 0..20).await;
    until_closed(ledger).await;
    lock(&log.state).records.truncate(7);
    let ledger = reopen(&log, folder.path()).await;
    assert_eq!(said(&ledger).await, truth(&log).await);
}

/// Brought back from a backup, with all that has happened since.
#[tokio::test]
async fn a_view_older_than_its_log_is_brought_up_to_it() {
    let (log, folder) = (TestLog::default(), tempfile::tempdir().unwrap());
    let view = folder.path().join("catalog-2.redb");
    let ledger = embedded(&log, folder.path()).await;
    commit_some(&ledger, 0..10).await;
    until_closed(ledger).await;
    drop(closed(folder.path()).await);
    let old = std::fs::read(&view).unwrap();
    let ledger = reopen(&log, folder.path()).await;
    for number in [3, 4] {
        ledger.commit_applied(crate::contract::receipted(number, "alice"), Class::Days30).await.unwrap();
        let delivery = crate::contract::delivery(number);
        ledger.commit_applied(Change::Released { delivery }, Class::Days30).await.unwrap();
    }
    commit_some(&ledger, 10..20).await;
    let before = said(&ledger).await;
    until_closed(ledger).await;
    drop(closed(folder.path()).await);
    std::fs::write(&view, old).unwrap();
    let ledger = reopen(&log, folder.path()).await;
    assert_eq!(said(&ledger).await, before);
    assert_eq!(truth(&log).await, before);
}

/// The view, once its ledger's task has let go of it.
async fn closed(folder: &Path) -> EmbeddedCatalog {
    loop {
        tokio::task::yield_now().await;
        if let Ok(catalog) = EmbeddedCatalog::open(folder) {
            return catalog;
        }
    }
}

#[tokio::test]
async fn a_view_of_another_log_is_made_again() {
    let (log, other, folder) = (TestLog::default(), TestLog::default(), tempfile::tempdir().unwrap());
    let ledger = embedded(&log, folder.path()).await;
    commit_some(&ledger, 0..5).await;
    until_closed(ledger).await;
    let (ledger, _) = in_memory(&other).await;
    commit_some(&ledger, 30..50).await;
    assert_eq!(said(&reopen(&other, folder.path()).await).await, truth(&other).await);
}

#[tokio::test]
async fn the_checkpoint_stays_below_what_is_open() {
    let (log, _folder) = (TestLog::default(), tempfile::tempdir().unwrap());
    let (ledger, catalog) = in_memory(&log).await;
    let (open_gate, gate) = watch::channel(false);
    lock(&log.state).gate = Some(gate);
    let slow = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.commit(accepted(1, vec![whole("alice")]), Class::Days30).await }
    });
    while ledger.backlog().0 == 0 || lock(&log.state).records.is_empty() {
        tokio::task::yield_now().await;
    }
    commit_some(&ledger, 2..6).await;
    assert_eq!(lock(&ledger.shared.open).safe(), Checkpoint::BEGIN, "the slow one is before all of them");
    open_gate.send(true).unwrap();
    slow.await.unwrap().unwrap();
    ledger.commit_applied(Change::Voided(MessageId([99; 16])), Class::Days30).await.unwrap();
    assert!(lock(&ledger.shared.open).safe().covers(log.state.lock().unwrap().records.last().unwrap().0));
    assert_eq!(catalog.counts().unwrap().messages, 5);
}

#[tokio::test]
async fn what_cannot_be_written_may_be_tried_again() {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    log.fail_next(Fault::Unavailable);
    let change = accepted(1, vec![whole("alice")]);
    let result = ledger.commit_applied(change.clone(), Class::Days30).await;
    assert!(matches!(result, Err(CommitError::Unavailable(Some(_)))));
    assert_eq!(ledger.backlog(), (0, 0));
    ledger.commit_applied(change, Class::Days30).await.unwrap();
    assert_eq!(catalog.counts().unwrap().messages, 1);
}

/// DESIGN §3 rule 2.
#[tokio::test]
async fn a_message_in_doubt_is_voided_whether_it_is_in_the_log_or_not() {
    for doubt in [Fault::DoubtIn, Fault::DoubtOut] {
        let log = TestLog::default();
        let (ledger, catalog) = in_memory(&log).await;
        log.fail_next(Fault::Unavailable); // popped last: the first try to void it fails as well
        log.fail_next(doubt);
        let result = ledger.commit_applied(accepted(1, vec![stub("alice", 1)]), Class::Days30).await;
        assert!(matches!(result, Err(CommitError::InDoubt(_))));
        while ledger.backlog() != (0, 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(catalog.counts().unwrap().messages, 0);
        assert_eq!(truth(&log).await, everything(&*catalog));
    }
}

#[tokio::test]
async fn another_change_in_doubt_is_made_again_until_it_is_durable() {
    for doubt in [Fault::DoubtIn, Fault::DoubtOut] {
        let log = TestLog::default();
        let (ledger, catalog) = in_memory(&log).await;
        ledger.commit_applied(accepted(1, vec![whole("alice")]), Class::Days30).await.unwrap();
        log.fail_next(doubt);
        let result = ledger.commit_applied(handed_over(1, &[HandOver::first(0)]), Class::Days30).await;
        assert!(matches!(result, Err(CommitError::InDoubt(_))));
        while ledger.backlog() != (0, 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(catalog.counts().unwrap().messages, 0, "handed over, and so forgotten");
        assert_eq!(truth(&log).await, everything(&*catalog));
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_change_that_the_view_lacks() {
    let log = TestLog::default();
    let (ledger, catalog) = in_memory(&log).await;
    let (open_gate, gate) = watch::channel(false);
    lock(&log.state).gate = Some(gate);
    let caller = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.commit(accepted(1, vec![whole("alice")]), Class::Days30).await }
    });
    while lock(&log.state).records.is_empty() {
        tokio::task::yield_now().await;
    }
    caller.abort();
    open_gate.send(true).unwrap();
    while catalog.counts().unwrap().messages == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_log_with_a_change_of_a_later_version_is_not_opened() {
    let log = TestLog::default();
    lock(&log.state).records.push((Sequence(1), vec![200, 1, 2]));
    let opened = Ledger::open(log, Arc::new(MemoryCatalog::new()), quiet()).await;
    assert!(matches!(opened, Err(OpenError::Change(Sequence(1), ChangeError::Version(200)))));
}

#[tokio::test]
async fn the_observer_is_told_of_each_change_when_the_view_has_it() {
    let log = TestLog::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let observer: Box<Observer> = Box::new(move |change| lock(&sink).push(change.clone()));
    let ledger = Ledger::open(log, Arc::new(MemoryCatalog::new()), observer).await.unwrap();
    let change = accepted(1, vec![whole("alice")]);
    ledger.commit_applied(change.clone(), Class::Days30).await.unwrap();
    assert_eq!(*lock(&seen), [change]);
}

mod audit;
mod database;
mod one_copy;
