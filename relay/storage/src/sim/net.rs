//! The net between a relay and simulated servers: who runs, who reaches whom, how late and how truthfully.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use lighter_protocol::PeerId;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::lies::{Lie, tell_lies};
use super::lock;
use super::run::count_step;
use super::stream::{SimStream, Wire};
use crate::array::ServerRecord;
use crate::disk::sim::SimDisk;
use crate::link::{Dial, Dialing, PeerStream};
use crate::server::{Shared, welcome};

/// What lies between the parties. All of it can be changed while they speak.
#[derive(Default)]
pub struct SimNet {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    running: BTreeMap<PeerId, Running>,
    lies: BTreeMap<PeerId, Lie>,
    /// Nothing passes from the one to the other.
    blocked: BTreeSet<(PeerId, PeerId)>,
    /// How late what the one sends is with the other.
    delays: BTreeMap<(PeerId, PeerId), Duration>,
    /// How late everything is that this party sends.
    slow: BTreeMap<PeerId, Duration>,
    wires: Vec<Weak<Wire>>,
}

/// A server's process.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) shared: Arc<Shared<SimDisk>>,
    /// Its connections, and what it does by itself.
    pub(super) tasks: Arc<Mutex<JoinSet<()>>>,
}

impl SimNet {
    /// From now on nothing passes from `from` to `to`. What is on its way waits until it passes again.
    pub fn block(&self, from: PeerId, to: PeerId) {
        lock(&self.state).blocked.insert((from, to));
    }

    /// From now on, what `from` sends to `to` is late by `delay`. A very long one is a path on which everything hangs.
    pub fn slow_path(&self, from: PeerId, to: PeerId, delay: Duration) {
        lock(&self.state).delays.insert((from, to), delay);
        self.has_changed();
    }

    /// From now on, everything that `party` sends is late by `delay`.
    pub fn slow(&self, party: PeerId, delay: Duration) {
        lock(&self.state).slow.insert(party, delay);
        self.has_changed();
    }

    /// All connections of `party` break.
    pub fn cut(&self, party: PeerId) {
        for wire in self.wires().into_iter().filter(|wire| wire.has(&party)) {
            wire.cut();
        }
    }

    /// From now on, on new connections, what `server` acknowledges arrives otherwise than it was said. Those that were
    /// there break.
    pub fn lie(&self, server: PeerId, lie: Lie) {
        lock(&self.state).lies.insert(server, lie);
        self.cut(server);
    }

    /// Everybody reaches everybody again, at once. What was on its way arrives, if anybody still waits for it.
    pub fn open_paths(&self) {
        {
            let mut state = lock(&self.state);
            state.blocked.clear();
            state.delays.clear();
            state.slow.clear();
        }
        self.has_changed();
    }

    /// Nobody lies any more; connections of who did break.
    pub fn end_lies(&self) {
        let lies = std::mem::take(&mut lock(&self.state).lies);
        lies.into_keys().for_each(|liar| self.cut(liar));
    }

    pub(super) fn passes(&self, from: PeerId, to: PeerId) -> bool {
        !lock(&self.state).blocked.contains(&(from, to))
    }

    pub(super) fn delay(&self, from: PeerId, to: PeerId) -> Duration {
        let state = lock(&self.state);
        let path = state.delays.get(&(from, to)).copied().unwrap_or_default();
        path + state.slow.get(&from).copied().unwrap_or_default()
    }

    pub(super) fn running(&self, server: &PeerId) -> Option<Running> {
        lock(&self.state).running.get(server).cloned()
    }

    pub(super) fn has_started(&self, server: PeerId, running: Running) {
        lock(&self.state).running.insert(server, running);
    }

    pub(super) fn has_stopped(&self, server: &PeerId) -> Option<Running> {
        lock(&self.state).running.remove(server)
    }

    fn has_changed(&self) {
        self.changed.notify_waiters();
        self.wires().iter().for_each(|wire| wire.look_again());
    }

    fn wires(&self) -> Vec<Arc<Wire>> {
        lock(&self.state).wires.iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns when bytes pass both ways.
    async fn until_open(&self, from: PeerId, to: PeerId) {
        loop {
            let changed = self.changed.notified();
            if self.passes(from, to) && self.passes(to, from) {
                return;
            }
            changed.await;
        }
    }

    fn connect(self: &Arc<Self>, from: PeerId, to: PeerId) -> io::Result<SimStream> {
        let (running, lie) = {
            let state = lock(&self.state);
            (state.running.get(&to).cloned(), state.lies.get(&to).copied())
        };
        let Running { shared, tasks } = running.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (wire, near, far) = Wire::new(self, from, to);
        {
            let mut state = lock(&self.state);
            state.wires.retain(|wire| wire.strong_count() > 0);
            state.wires.push(Arc::downgrade(&wire));
        }
        let mut tasks = lock(&tasks);
        // Those that ended are forgotten here: a server that is dialled for ever keeps nothing of it.
        while tasks.try_join_next().is_some() {}
        let far: Box<dyn PeerStream> = match lie {
            None => Box::new(far),
            Some(lie) => {
                let (ours, theirs) = tokio::io::duplex(256 * 1024);
                tasks.spawn(tell_lies(far, ours, lie));
                Box::new(theirs)
            }
        };
        tasks.spawn(async move {
            if let Some(connection) = welcome(far, from, &shared).await {
                connection.serve().await;
            }
        });
        Ok(near)
    }
}

/// How one party dials. It does not keep the net: what the net has, has it.
pub(super) struct SimDial {
    pub(super) net: Weak<SimNet>,
    pub(super) from: PeerId,
}

impl Dial for SimDial {
    fn dial<'a>(&'a self, server: &'a ServerRecord) -> Dialing<'a> {
        let (from, to) = (self.from, server.peer);
        Box::pin(async move {
            count_step();
            let net = self.net.upgrade().ok_or(io::ErrorKind::NetworkUnreachable)?;
            net.until_open(from, to).await;
            let delay = net.delay(from, to) + net.delay(to, from);
            if !delay.is_zero() {
                sleep(delay).await;
            }
            Ok(Box::new(net.connect(from, to)?) as Box<dyn PeerStream>)
        })
    }
}
