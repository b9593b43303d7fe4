//! The people of these tests: sam, who sends, and his colleagues.

use std::path::Path;

use lighter_agent::agent::Agent;
use lighter_agent::config::{Config, Paths};
use lighter_agent::guest::decide::GuestConfig;
use lighter_agent::send::unreachable::Unreachable;
use lighter_protocol::BlobId;
use lighter_protocol::pull::{Role, SourceView};
use lighter_store::{Incoming, IncomingState, Outgoing, OutgoingState};

use crate::support::mail_sink::MailSink;
use crate::support::programs::run_ok;
use crate::support::{World, bytes, eventually, file, mailbox, start};

pub(super) const MIB: u64 = 1024 * 1024;
pub(super) const SIZE: usize = 40 * 1024 * 1024;

/// Sam writes to carol, who is there, and to dave, who is not yet.
pub(super) struct Office {
    pub(super) world: World,
    pub(super) sink: MailSink,
    pub(super) sam_paths: Paths,
    pub(super) sam: Agent,
    pub(super) carol_paths: Paths,
    pub(super) carol: Agent,
    pub(super) dave_paths: Paths,
    pub(super) content: Vec<u8>,
}

impl Office {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// `of_sam` says what is other in his configuration.
    pub(super) async fn with(of_sam: impl FnOnce(&mut Config)) -> Self {
        let world = World::start().await;
        let sink = MailSink::start().await;
        let carol_paths = sender(&world, "carol@example.org", &sink, |_| {}).await;
        let dave_paths = away(&world, "dave").await;
        let sam_paths = sender(&world, "sam@example.org", &sink, of_sam).await;
        let (sam, carol) = (start(&sam_paths).await, start(&carol_paths).await);
        Self { world, sink, sam_paths, sam, carol_paths, carol, dave_paths, content: bytes(1, SIZE) }
    }

    /// Carol has it, and it waits for dave.
    pub(super) async fn send(&self) {
        let attached = file(self.world.folder.path(), "film.bin", &self.content);
        send(&self.sam_paths, &["carol", "dave"], &attached).await;
        assert!(holds(&self.carol, &self.content));
    }

    /// Dave's agent begins, and sam's hears of it at once.
    pub(super) async fn dave(&self) -> Agent {
        come(&self.sam, &self.dave_paths).await
    }

    /// Dave's agent pulls what waits for him from sam's and carol's, at these rates: 2 MiB have come from each.
    pub(super) async fn dave_pulls_from_both(&self, rates: [&str; 2]) -> Agent {
        limit(&self.sam, rates[0]);
        limit(&self.carol, rates[1]);
        let dave = self.dave().await;
        eventually("some from both", async || {
            brings(&dave, Role::Recipient, 2 * MIB).await && brings(&dave, Role::Holder, 2 * MIB).await
        })
        .await;
        dave
    }

    pub(super) fn outgoing(&self, to: &str) -> Outgoing {
        outgoing(&self.sam, to).unwrap()
    }

    /// All stop, and whoever else has come.
    pub(super) async fn close(self, others: impl IntoIterator<Item = Agent>) {
        stop([self.sam, self.carol].into_iter().chain(others)).await;
    }
}

/// What was set up is another one from here on.
pub(super) fn change(paths: &Paths, change: impl FnOnce(&mut Config)) {
    let mut config = Config::read(&paths.config).unwrap();
    change(&mut config);
    config.write(&paths.config).unwrap();
}

/// Sets up somebody who sends through `sink`: what cannot go now waits.
pub(super) async fn sender(
    world: &World,
    address: &str,
    sink: &MailSink,
    of_them: impl FnOnce(&mut Config),
) -> Paths {
    let (name, _) = address.split_once('@').unwrap();
    let smtp = Some(sink.address.to_string());
    let paths = world.set_up_as(name, address.parse().unwrap(), smtp).await;
    change(&paths, |config| {
        config.send.unreachable = Unreachable::Retry;
        of_them(config);
    });
    paths
}

/// Sets up somebody who was there, and is away.
pub(super) async fn away(world: &World, name: &str) -> Paths {
    let paths = world.set_up(name, None).await;
    start(&paths).await.stop().await;
    paths
}

/// Who was away comes, and `sam` hears of it at once.
pub(super) async fn come(sam: &Agent, paths: &Paths) -> Agent {
    let agent = start(paths).await;
    sam.shared().wakes.send_modify(|count| *count += 1);
    agent
}

/// `from`, whose agent runs, sends a file: to addresses, or to names at example.org.
pub(super) async fn send(from: &Paths, to: &[&str], attached: &Path) {
    let mut arguments = vec!["--json".to_owned(), "send".to_owned()];
    for to in to {
        let address = if to.contains('@') { (*to).to_owned() } else { mailbox(to).to_string() };
        arguments.extend(["--to".to_owned(), address]);
    }
    arguments.push(attached.to_str().unwrap().to_owned());
    run_ok(from, &arguments, b"").await;
}

pub(super) async fn stop(agents: impl IntoIterator<Item = Agent>) {
    for agent in agents {
        agent.stop().await;
    }
}

/// How fast an agent may give.
pub(super) fn limit(agent: &Agent, rate: &str) {
    let limits = if rate.is_empty() { String::new() } else { format!("upload = '{rate}'") };
    agent.shared().guest.configure(Ok(toml::from_str::<GuestConfig>(&limits).unwrap()));
}

/// Who brings what an agent pulls.
pub(super) async fn views(agent: &Agent) -> Vec<SourceView> {
    agent.shared().pulls.sources().await.into_values().flatten().collect()
}

/// Whether one of these has brought more than so many bytes.
pub(super) async fn brings(agent: &Agent, role: Role, bytes: u64) -> bool {
    views(agent).await.iter().any(|view| view.role == role && view.bytes > bytes)
}

/// Bytes of it that are here.
pub(super) fn verified(agent: &Agent, content: &[u8]) -> u64 {
    agent.shared().store.len_here(BlobId::of(content), content.len() as u64).unwrap()
}

pub(super) fn holds(agent: &Agent, content: &[u8]) -> bool {
    agent.shared().store.holds(BlobId::of(content)).unwrap()
}

pub(super) fn is_intact(agent: &Agent, content: &[u8]) -> bool {
    agent.shared().store.open_blob(BlobId::of(content)).unwrap().is_intact().unwrap()
}

pub(super) fn delivery_of(agent: &Agent) -> Incoming {
    agent.shared().store.all_incoming().unwrap().into_iter().next().unwrap()
}

pub(super) fn is_receipted(agent: &Agent) -> bool {
    let all = agent.shared().store.all_incoming().unwrap();
    all.iter().any(|incoming| matches!(incoming.state, IncomingState::Receipted(_)))
}

/// What `sam` has sent to one.
pub(super) fn outgoing(sam: &Agent, to: &str) -> Option<Outgoing> {
    let all = sam.shared().store.all_outgoing().unwrap();
    all.into_iter().find(|outgoing| outgoing.recipient == mailbox(to))
}

/// Whether `sam` has the receipts of all of these.
pub(super) fn are_released(sam: &Agent, names: &[&str]) -> bool {
    let is_released = |outgoing: Outgoing| matches!(outgoing.state, OutgoingState::Released(_));
    names.iter().all(|name| outgoing(sam, name).is_some_and(is_released))
}

/// The sender is back: he hears that dave has it, and next to nothing is pulled again.
pub(super) async fn the_sender_hears_of_it(sam_paths: &Paths) -> Agent {
    let sam = start(sam_paths).await;
    eventually("the receipt", async || are_released(&sam, &["carol", "dave"])).await;
    assert!(sam.shared().guest.up.granted() < MIB);
    sam
}
