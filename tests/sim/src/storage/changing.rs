//! Servers come and go, by command and by accident, while the array is written and taken over: nothing that was
//! acknowledged is lost, and whoever takes over finds the table.

use lighter_protocol::PeerId;
use lighter_storage::sim::SimServers;
use lighter_storage::{
    Array, Change, Class, OpenError, ReadError, ReplayAlarms, Sequence, ServerEntry, StoredBlob,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::model::{bytes, read, replayed, store};

const SERVERS: u8 = 5;
const STEPS: usize = 40;

struct World {
    servers: SimServers,
    array: Option<Array>,
    chance: StdRng,
    acknowledged: Vec<(Sequence, StoredBlob, Vec<u8>)>,
    /// A server that an operator said will not come back: it does not, see [`World::open_whole`].
    given_up: Option<usize>,
    has_given_up: bool,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut servers = SimServers::new(seed, SERVERS);
        let array = Some(servers.open_from(&[0, 1]).await.expect("an array begins"));
        let chance = StdRng::seed_from_u64(seed);
        Self { servers, array, chance, acknowledged: Vec::new(), given_up: None, has_given_up: false }
    }

    fn peer(&self, index: usize) -> PeerId {
        self.servers.record(index).peer
    }

    fn any(&mut self) -> usize {
        self.chance.random_range(0..usize::from(SERVERS))
    }

    async fn step(&mut self) {
        match self.chance.random_range(0..12) {
            0..5 => self.store().await,
            5 => {
                let (index, power) = (self.any(), self.chance.random());
                tracing::info!(index, power, "stop");
                self.servers.stop(index, power).await;
            }
            6 | 7 => {
                let index = self.any();
                tracing::info!(index, "start");
                self.start(index);
            }
            8..11 => self.change().await,
            _ => self.take_over().await,
        }
    }

    fn start(&mut self, index: usize) {
        if self.given_up != Some(index) {
            assert!(self.servers.start(index), "its disk is well");
        }
    }

    async fn store(&mut self) {
        let Some(array) = &self.array else { return };
        let len = self.chance.random_range(1..100_000);
        let data = bytes(self.chance.random(), len);
        let stored = store(array, Class::Days30, &data).await;
        tracing::info!(stored = ?stored.as_ref().map(|(sequence, _)| sequence), "store");
        if let Ok((sequence, blob)) = stored {
            self.acknowledged.push((sequence, blob, data));
        }
    }

    async fn change(&mut self) {
        let (index, other) = (self.any(), self.any());
        let (peer, new) = (self.peer(index), ServerEntry::from(self.servers.record(other)));
        let may_give_up = if self.has_given_up { self.given_up == Some(index) } else { true };
        let change = match self.chance.random_range(0..8) {
            0..3 => Change::Add(new),
            3 => Change::Drain(peer),
            4 => Change::Remove(peer),
            5 if may_give_up => Change::Lose(peer),
            6 if may_give_up => Change::Replace { old: peer, new, is_lost: true },
            7 => Change::Replace { old: peer, new, is_lost: false },
            _ => Change::Allow(format!("zone:{index}").parse().expect("a name")),
        };
        if matches!(change, Change::Lose(_) | Change::Replace { is_lost: true, .. }) {
            // Also where the change fails: it may be found, and put in force, later.
            (self.given_up, self.has_given_up) = (Some(index), true);
            self.servers.stop(index, true).await;
        }
        if let Some(array) = &self.array {
            let changed = array.change_table(&change).await;
            tracing::info!(index, other, ?change, ok = changed.is_ok(), "change");
        }
    }

    /// The relay dies, and starts again on what its configuration names: some servers, of the table and others.
    async fn take_over(&mut self) {
        let table = self.array.take().map(|array| array.table());
        let of_table = |peer: PeerId| table.as_ref().is_none_or(|table| table.server(&peer).is_some());
        let members: Vec<_> = (0..usize::from(SERVERS)).filter(|index| of_table(self.peer(*index))).collect();
        let one = members[self.chance.random_range(0..members.len())];
        let mut named: Vec<_> = (0..usize::from(SERVERS)).filter(|_| self.chance.random()).collect();
        named.retain(|index| *index != one);
        named.push(one);
        tracing::info!(?named, "take over");
        if let Ok(array) = self.servers.open_from(&named).await {
            self.array = Some(array);
            return;
        }
        self.open_whole().await;
    }

    /// With all servers that may be there, and all named, the array opens; unless one that is gone was not given up in
    /// time, and another has a copy that is not whole: then too few tell what there is, and it needs the one that is gone.
    async fn open_whole(&mut self) {
        tracing::info!(given_up = ?self.given_up, "open whole");
        self.array = None;
        let all: Vec<_> = (0..usize::from(SERVERS)).collect();
        all.iter().for_each(|index| self.start(*index));
        let mut opened = self.servers.open_from(&all).await;
        if matches!(opened, Err(OpenError::TooFewServers { .. }))
            && let Some(gone) = self.given_up.take()
        {
            self.start(gone);
            opened = self.servers.open_from(&all).await;
        }
        self.array = Some(opened.expect("all servers are there"));
    }

    /// What can be read now is right, and nothing is said to be gone.
    async fn look(&self) {
        let Some(array) = &self.array else { return };
        let mut reads = JoinSet::new();
        for (index, (_, blob, _)) in self.acknowledged.iter().enumerate() {
            let (array, blob) = (array.clone(), blob.clone());
            reads.spawn(async move { (index, read(&array, &blob).await) });
        }
        for (index, read) in reads.join_all().await {
            let (sequence, _, data) = &self.acknowledged[index];
            match read {
                Ok(found) => assert!(found == *data, "{sequence:?}: something else was given out"),
                Err(ReadError::Unavailable) => {}
                Err(error) => panic!("{sequence:?}: acknowledged, and lost: {error}"),
            }
        }
    }

    async fn check(&mut self) {
        self.open_whole().await;
        let array = self.array.clone().expect("it is open");
        let table = array.table();
        for (sequence, blob, data) in &self.acknowledged {
            let read = read(&array, blob).await;
            assert!(read.as_ref() == Ok(data), "{sequence:?}: {:?}, {table:?}", read.map(|read| read.len()));
        }
        let (found, alarms) = replayed(&array).await.expect("all servers are there");
        assert_eq!(alarms, ReplayAlarms::default());
        for (sequence, ..) in &self.acknowledged {
            assert!(found.contains_key(sequence), "{sequence:?} is not in the log");
        }
        let stored = store(&array, Class::Days7, b"and goes on").await;
        let given_up = self.given_up.map(|index| self.peer(index));
        let takers = table.active().filter(|server| Some(server.peer) != given_up).count();
        assert_eq!(stored.is_ok(), takers >= 2, "{stored:?} {table:?}");
        array.close().await;
    }
}

pub(super) async fn run(seed: u64) {
    let mut world = World::new(seed).await;
    for _ in 0..STEPS {
        world.step().await;
        world.look().await;
    }
    world.check().await;
}

#[cfg(test)]
mod tests {
    // SPEC: B11, B14
    #[test]
    fn nothing_acknowledged_is_lost_while_servers_come_and_go() {
        crate::storage::few(super::run);
    }
}
