//! The keeper on a real disk and in a time of the test's own: whatever is put there goes once, whenever it is killed.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::time::SystemTime;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::outbox::record::Fate;
use crate::send::FileFacts;

const BOB: &str = "bob@example.org";
const SETTLE: Settle = Settle { file: Duration::from_secs(2), folder: Duration::from_secs(10) };

/// What a sender makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The mail server has it.
    Taken,
    /// It is not there now.
    Away,
    /// It has it, and that was not heard.
    InDoubt,
    /// It will never take it.
    Refused,
    /// It has it, and the agent is killed before that is on record.
    KilledAfter,
    /// The agent is killed before it has it.
    KilledBefore,
}

/// An outbox, a mail server and their user.
struct World {
    folder: TempDir,
    start: Instant,
    /// Seconds that went by.
    clock: u64,
    keeper: Keeper,
    ledger: Arc<Ledger>,
    /// What came to the mail server: under which delivery, the content. The same delivery again is the same message.
    came: BTreeMap<(Vec<u8>, String), u32>,
    /// Names that were renamed into place since the last look.
    placed: HashSet<Key>,
}

fn key(name: &str) -> Key {
    Key { folder: BOB.into(), name: name.into() }
}

fn resolve() -> Resolve {
    Arc::new(|name| name.parse().map(|to| vec![to]).map_err(|error| format!("{error}.")))
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        DirBuilder::new().recursive(true).create(folder.path().join("outbox").join(BOB)).unwrap();
        let (keeper, ledger) = Self::open(&folder);
        Self {
            folder,
            start: Instant::now(),
            clock: 0,
            keeper,
            ledger,
            came: BTreeMap::new(),
            placed: HashSet::new(),
        }
    }

    fn open(folder: &TempDir) -> (Keeper, Arc<Ledger>) {
        let ledger = Arc::new(Ledger::open(&folder.path().join("records")).unwrap());
        let root = folder.path().join("outbox");
        (Keeper::new(root, ledger.clone(), SETTLE, resolve()), ledger)
    }

    fn kill(&mut self) {
        (self.keeper, self.ledger) = Self::open(&self.folder);
        self.placed.clear();
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("outbox")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(BOB).join(name)
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.clock)
    }

    /// Writes a file, with the world's time.
    fn write(&self, path: &Path, content: &str, append: bool) {
        let mut file =
            OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + self.clock)).unwrap();
    }

    fn look(&mut self, steps: usize) -> Plan {
        let placed = std::mem::take(&mut self.placed);
        let wall = UnixTime(1_795_219_200 + self.clock);
        self.keeper.look_for(steps, &placed, self.now(), wall)
    }

    /// Sends as the sender does; gives whether the agent was killed.
    fn send(&mut self, mut record: Record, outcome: Outcome) -> bool {
        let mut content = String::new();
        for (path, (_, facts)) in record.files(&self.root()).iter().zip(&record.content.files) {
            let seen = path.metadata().ok().map(|metadata| FileFacts::of(&metadata));
            if !seen.is_some_and(|seen| seen.is_same(facts)) {
                self.keeper.ended(record.id, Some("it was changed".to_owned()), self.now());
                return false;
            }
            content.push_str(&std::fs::read_to_string(path).unwrap());
        }
        let recipient = record.to[0].clone();
        if matches!(outcome, Outcome::Taken | Outcome::InDoubt | Outcome::KilledAfter) {
            let delivery = record.identity.delivery(&recipient).0.to_vec();
            *self.came.entry((delivery, content)).or_default() += 1;
        }
        let mut retry = None;
        match outcome {
            Outcome::Taken => {
                record.fates.insert(recipient, Fate::Whole { why: "test".to_owned() });
                self.ledger.put(&record).unwrap();
            }
            Outcome::Refused => {
                record.fates.insert(recipient, Fate::Refused { why: "550 nobody".to_owned() });
                self.ledger.put(&record).unwrap();
            }
            Outcome::Away | Outcome::InDoubt => retry = Some("away".to_owned()),
            Outcome::KilledAfter | Outcome::KilledBefore => {
                self.kill();
                return true;
            }
        }
        self.keeper.ended(record.id, retry, self.now());
        false
    }

    /// Goes on, with a mail server that takes everything, until nothing is to be done.
    fn settle(&mut self) {
        for _ in 0..9 {
            self.clock += 4_000;
            let plan = self.look(usize::MAX);
            for record in plan.send {
                self.send(record, Outcome::Taken);
            }
        }
    }

    /// Names in a folder, without notes.
    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".status.txt") && name != SENT)
            .collect();
        names.sort();
        names
    }

    fn note(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(&format!("{name}.status.txt"))).ok()
    }

    /// How often a content came, as different messages.
    fn times(&self, content: &str) -> usize {
        self.came.keys().filter(|(_, came)| came == content).count()
    }
}

#[test]
fn what_was_sent_stands_beside_its_note_and_the_same_file_again_is_sent_again() {
    let mut world = World::new();
    for round in 1..=2 {
        world.write(&world.path("a.txt"), "same", false);
        world.settle();
        assert_eq!((world.names(""), world.times("same")), (Vec::new(), round));
    }
    assert_eq!(world.names(SENT), ["2026-11-21 a (2).txt", "2026-11-21 a.txt"]);
    let note = world.note("sent/2026-11-21 a.txt").unwrap();
    assert!(note.starts_with("Lighter: sent. 2026-11-21\n\na.txt\nbob@example.org: "), "{note}");
    assert!(world.ledger.all().is_empty());
}

#[test]
fn a_folder_is_one_message_and_moves_as_one() {
    let mut world = World::new();
    std::fs::create_dir_all(world.path("Holiday/day one")).unwrap();
    world.write(&world.path("Holiday/day one/b"), "b", false);
    world.write(&world.path("Holiday/a"), "a", false);
    world.write(&world.path("Holiday/c.part"), "c", false);
    world.settle();
    assert!(world.came.is_empty(), "not while one of its files is not finished");
    std::fs::rename(world.path("Holiday/c.part"), world.path("Holiday/c")).unwrap();
    world.settle();
    assert_eq!((world.times("acb"), world.came.len()), (1, 1));
    assert_eq!(world.names("sent/2026-11-21 Holiday"), ["a", "c", "day one"]);
}

#[test]
fn what_nobody_takes_stays_with_a_note_and_is_sent_again_when_it_is_touched() {
    let mut world = World::new();
    world.write(&world.path("a"), "x", false);
    world.look(usize::MAX);
    world.clock += 3;
    let record = world.look(usize::MAX).send.remove(0);
    world.send(record, Outcome::Refused);
    let plan = world.look(usize::MAX);
    assert_eq!(
        (plan.status.items[0].state, plan.status.items[0].reason.as_deref()),
        (ItemState::Failed, Some("550 nobody"))
    );
    let note = world.note("a").unwrap();
    assert!(note.starts_with("Lighter: NOT SENT.") && note.contains("550 nobody"), "{note}");
    world.kill();
    world.settle();
    assert!(world.came.is_empty() && world.names("") == ["a"], "not by itself");
    world.write(&world.path("a"), "x", false);
    world.settle();
    assert_eq!((world.times("x"), world.names(""), world.note("a")), (1, Vec::new(), None));
}

#[test]
fn a_folder_that_is_no_mailbox_and_a_lost_file_are_told_and_the_notes_go_with_them() {
    let mut world = World::new();
    std::fs::create_dir(world.root().join("Bob")).unwrap();
    std::fs::write(world.root().join("Bob/a"), "x").unwrap();
    std::fs::write(world.root().join("lost"), "x").unwrap();
    world.settle();
    let status = world.look(usize::MAX).status;
    assert!(
        status.items.iter().any(|item| item.folder == "Bob" && item.state == ItemState::Failed),
        "{status:?}"
    );
    for name in ["Bob.status.txt", "lost.status.txt"] {
        assert!(world.root().join(name).exists(), "{name}");
    }
    std::fs::rename(world.root().join("Bob"), world.root().join("eve@example.org")).unwrap();
    std::fs::remove_file(world.root().join("lost")).unwrap();
    world.settle();
    assert_eq!(world.times("x"), 1);
    for name in ["Bob.status.txt", "lost.status.txt"] {
        assert!(!world.root().join(name).exists(), "{name}");
    }
}

#[test]
fn a_file_that_is_open_for_writing_waits_however_long_it_stays_as_it_is() {
    let mut world = World::new();
    world.write(&world.path("a"), "half", false);
    let mut writer = OpenOptions::new().append(true).open(world.path("a")).unwrap();
    world.settle();
    assert!(world.came.is_empty());
    writer.write_all(b" whole").unwrap();
    drop(writer);
    world.settle();
    assert_eq!((world.times("half"), world.times("half whole")), (0, 1));
}

#[test]
fn what_is_changed_while_it_is_sent_is_another_one_and_goes_as_well() {
    let mut world = World::new();
    world.write(&world.path("a"), "one", false);
    world.look(usize::MAX);
    world.clock += 3;
    let record = world.look(usize::MAX).send.remove(0);
    assert!(!world.send(record, Outcome::Taken));
    world.clock += 1;
    world.write(&world.path("a"), "two!", false);
    world.settle();
    assert_eq!((world.times("one"), world.times("two!")), (1, 1));
    assert!(world.note("sent/2026-11-21 a").unwrap().contains("is not kept here"));
    assert_eq!(world.names(SENT), ["2026-11-21 a (2)"]);
}

#[test]
fn a_drive_that_is_away_is_not_taken_for_files_that_were_removed() {
    let mut world = World::new();
    world.write(&world.path("a"), "x", false);
    world.look(usize::MAX);
    world.clock += 3;
    let record = world.look(usize::MAX).send.remove(0);
    world.send(record, Outcome::InDoubt);
    let (root, away) = (world.root(), world.folder.path().join("away"));
    std::fs::rename(&root, &away).unwrap();
    assert!(world.look(usize::MAX).status.problem.is_some());
    std::fs::create_dir(&root).unwrap();
    world.settle();
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();
    world.settle();
    assert_eq!((world.times("x"), world.came.values().next()), (1, Some(&2)), "the same message again");
}

/// What happens in a random run.
#[derive(Clone, Debug)]
enum Event {
    /// A new file is written under one of a few names, if none is there.
    Put(u8),
    /// It is written elsewhere and renamed into place, over whatever is there.
    Place(u8),
    /// A file that is there is written on.
    Append(u8),
    /// It is removed.
    Remove(u8),
    /// Time goes by.
    Pass(u64),
    /// The agent looks, for so many steps; then what is to be sent is sent, with these outcomes.
    Look(usize, Vec<Outcome>),
    /// The agent is killed.
    Kill,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Taken),
        2 => Just(Outcome::Away),
        2 => Just(Outcome::InDoubt),
        2 => Just(Outcome::KilledAfter),
        1 => Just(Outcome::KilledBefore),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..3_u8).prop_map(Event::Put),
        1 => (0..3_u8).prop_map(Event::Place),
        1 => (0..3_u8).prop_map(Event::Append),
        1 => (0..3_u8).prop_map(Event::Remove),
        3 => (1..30_u64).prop_map(Event::Pass),
        6 => (0..5_usize, prop::collection::vec(outcome(), 4)).prop_map(|(steps, outcomes)| Event::Look(steps, outcomes)),
        2 => Just(Event::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// The model: each name and what its user put there last. What is replaced, written on or removed before it went
    /// may have gone, once at most; everything else goes exactly once, and stands in `sent` as it was put.
    #[test]
    fn bad_input_32_38_each_file_goes_exactly_once_whatever_is_killed_when(
        events in prop::collection::vec(event(), 1..40)
    ) {
        let mut world = World::new();
        let mut number = 0;
        let mut here: BTreeMap<u8, String> = BTreeMap::new();
        let (mut must, mut may): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for event in events {
            number += 1;
            world.clock += 1;
            let content = format!("content {number};");
            // What the agent moved away meanwhile went, and is not the user's to change any more.
            here.retain(|name, content| {
                let is_here = world.path(&name.to_string()).exists();
                if !is_here {
                    must.push(content.clone());
                }
                is_here
            });
            match event {
                Event::Put(name) => {
                    if let std::collections::btree_map::Entry::Vacant(place) = here.entry(name) {
                        world.write(&world.path(&name.to_string()), &content, false);
                        place.insert(content);
                    }
                }
                Event::Place(name) => {
                    let temporary = world.path("new.part");
                    world.write(&temporary, &content, false);
                    std::fs::rename(&temporary, world.path(&name.to_string())).unwrap();
                    world.placed.insert(key(&name.to_string()));
                    may.extend(here.insert(name, content));
                }
                Event::Append(name) => {
                    if let Some(there) = here.get_mut(&name) {
                        world.write(&world.path(&name.to_string()), &content, true);
                        may.push(there.clone());
                        there.push_str(&content);
                    }
                }
                Event::Remove(name) => {
                    if let Some(there) = here.remove(&name) {
                        std::fs::remove_file(world.path(&name.to_string())).unwrap();
                        may.push(there);
                    }
                }
                Event::Pass(seconds) => world.clock += seconds,
                Event::Look(steps, outcomes) => {
                    let plan = world.look(steps);
                    for (record, outcome) in plan.send.into_iter().zip(outcomes) {
                        if world.send(record, outcome) {
                            break;
                        }
                    }
                }
                Event::Kill => world.kill(),
            }
        }
        must.extend(here.into_values());
        world.settle();
        for content in &must {
            prop_assert_eq!(world.times(content), 1, "{} of {:?}", content, world.came);
        }
        for content in &may {
            prop_assert!(world.times(content) <= 1, "{} of {:?}", content, world.came);
        }
        prop_assert_eq!(world.came.len(), must.len() + may.iter().filter(|content| world.times(content) == 1).count());
        prop_assert!(world.names("").is_empty() && world.ledger.all().is_empty());
        let mut kept: Vec<String> = world
            .names(SENT)
            .iter()
            .map(|name| std::fs::read_to_string(world.path(SENT).join(name)).unwrap())
            .collect();
        kept.sort();
        for content in &must {
            prop_assert!(kept.contains(content));
        }
    }
}
