//! Recipients whose store cannot be reached: wait and try again, or whole by mail, as the user says; in time, and until told
//! otherwise.

use std::path::{Path, PathBuf};

use lighter_agent::agent::Agent;
use lighter_agent::config::{Config, Paths};
use lighter_protocol::{BlobId, UnixTime};
use lighter_store::{Outgoing, OutgoingState};
use serde_json::Value;

use crate::support::mail_sink::MailSink;
use crate::support::programs::{error_text, run, run_ok};
use crate::support::{World, bytes, eventually, file, mailbox, start};

/// Sam sends to carol, whose agent is off.
struct Away {
    world: World,
    sink: MailSink,
    sam: Agent,
    sam_paths: Paths,
    carol_paths: Paths,
    attached: PathBuf,
    content: Vec<u8>,
}

impl Away {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let world = World::start().await;
        let sink = MailSink::start().await;
        let carol_paths = world.set_up("carol", None).await;
        start(&carol_paths).await.stop().await;
        let sam_paths = world.set_up("sam", Some(sink.address.to_string())).await;
        let mut config = Config::read(&sam_paths.config).unwrap();
        change(&mut config);
        std::fs::write(&sam_paths.config, toml::to_string(&config).unwrap()).unwrap();
        let sam = start(&sam_paths).await;
        let content = bytes(5, 700_000);
        let attached = file(world.folder.path(), "plan.pdf", &content);
        Self { world, sink, sam, sam_paths, carol_paths, attached, content }
    }

    /// What `send` to carol says.
    async fn send(&self, arguments: &[&str]) -> Vec<Value> {
        let mut all = vec!["--json", "send", "--to", "carol@example.org", "--subject", "Plan"];
        all.extend(arguments);
        all.push(self.attached.to_str().unwrap());
        let output = run(&self.sam_paths, &all, b"").await;
        assert!(output.status.success(), "{}", error_text(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn outgoing(&self) -> Option<Outgoing> {
        self.sam.shared().store.all_outgoing().unwrap().pop()
    }

    async fn becomes(&self, what: &str, is_it: impl Fn(&OutgoingState) -> bool) {
        eventually(what, async || {
            // As after a change of network: nobody sits out the pause between two tries.
            self.sam.shared().wakes.send_modify(|count| *count += 1);
            is_it(&self.outgoing().unwrap().state)
        })
        .await;
    }

    /// Sam's agent starts anew, and what waits has come to its end meanwhile.
    async fn after_its_time(mut self) -> Self {
        let delivery = self.outgoing().unwrap().delivery;
        let store = &self.sam.shared().store;
        store.change_outgoing(delivery, |outgoing| outgoing.expires = UnixTime::now()).unwrap();
        self.sam.stop().await;
        self.sam = start(&self.sam_paths).await;
        self
    }

    fn keeps_it(&self) -> bool {
        self.sam.shared().store.holds(BlobId::of(&self.content)).unwrap()
    }
}

fn events(told: &[Value]) -> Vec<&str> {
    told.iter().map(|event| event["event"].as_str().unwrap()).filter(|event| *event != "reading").collect()
}

/// The message with another Message-ID, and nothing else.
fn without_id(message: &[u8]) -> (String, String) {
    let text = String::from_utf8(message.to_vec()).unwrap();
    let lines: Vec<&str> = text.split_inclusive("\r\n").collect();
    let at = lines.iter().position(|line| line.starts_with("Message-ID:")).unwrap();
    let rest: String =
        lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, line)| *line).collect();
    (lines[at].to_owned(), rest)
}

fn is_stub(message: &[u8]) -> bool {
    String::from_utf8_lossy(message).contains("Lighter-Message:")
}

// SPEC: A7
#[tokio::test(flavor = "multi_thread")]
async fn the_message_goes_at_once_and_the_attachments_when_the_store_is_back() {
    let away = Away::start().await;
    let told = away.send(&["--unreachable", "retry", "--retry-hours", "5"]).await;
    assert_eq!(events(&told), ["kept", "mailed", "waiting"], "{told:?}");
    let mails = away.sink.mails();
    assert!(mails.len() == 1 && is_stub(&mails[0].content));
    let outgoing = away.outgoing().unwrap();
    assert_eq!(outgoing.state, OutgoingState::Waiting);
    let hours = outgoing.expires.since(outgoing.created).as_secs() / 3_600;
    assert!((4..=5).contains(&hours), "{hours}");
    let status: Value =
        serde_json::from_slice(&run_ok(&away.sam_paths, &["--json", "status"], b"").await).unwrap();
    let waiting = &status["outgoing"][0];
    assert_eq!((&waiting["state"], &waiting["expires"]), (&"waiting".into(), &outgoing.expires.0.into()));
    assert!(waiting["reason"].as_str().unwrap().contains("offline"), "{waiting}");

    let carol = start(&away.carol_paths).await;
    away.becomes("the receipt", |state| matches!(state, OutgoingState::Released(_))).await;
    assert!(!away.keeps_it());
    let restored = run_ok(&away.carol_paths, &["restore"], &mails[0].content).await;
    assert!(restored.len() > away.content.len() && !is_stub(&restored));
    assert_eq!(away.sink.mails().len(), 1, "nothing else was mailed");
    carol.stop().await;
    away.sam.stop().await;
}

// SPEC: A7, A8
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_taken_in_its_time_goes_whole_by_mail_under_an_id_of_its_own() {
    let away = Away::start().await;
    away.send(&["--unreachable", "retry"]).await;
    let away = away.after_its_time().await;
    away.becomes("the whole message", |state| matches!(state, OutgoingState::MailedWhole(_))).await;
    assert!(!away.keeps_it(), "nothing waits for it any more");
    let mails = away.sink.mails();
    assert_eq!(mails.len(), 2);
    assert!(is_stub(&mails[0].content) && !is_stub(&mails[1].content));
    assert_eq!((&mails[1].from, &mails[1].to), (&mails[0].from, &mails[0].to));
    // What went at once, where that is what the user wants, differs by nothing else.
    away.send(&["--unreachable", "whole"]).await;
    let (first_id, _) = without_id(&mails[0].content);
    let (id, whole) = without_id(&mails[1].content);
    let (_, at_once) = without_id(&away.sink.mails()[2].content);
    assert_ne!(id, first_id);
    assert_eq!(whole.len(), at_once.len());
    away.sam.stop().await;
}

// SPEC: A7 — rule 5
#[tokio::test(flavor = "multi_thread")]
async fn with_the_mail_server_down_at_its_end_it_waits_for_that_and_is_not_given_up() {
    let away = Away::start().await;
    away.send(&["--unreachable", "retry"]).await;
    away.sink.hold.send_replace(crate::support::mail_sink::Hold::Refuse);
    let away = away.after_its_time().await;
    let delivery = away.outgoing().unwrap().delivery;
    eventually("the failed try", async || {
        let why = away.sam.shared().offers.waits_for(&delivery);
        why.is_some_and(|why| why.contains("could not be mailed whole"))
    })
    .await;
    assert_eq!(away.outgoing().unwrap().state, OutgoingState::Waiting);
    assert!(away.keeps_it());
    away.sink.hold.send_replace(crate::support::mail_sink::Hold::Nowhere);
    away.becomes("the whole message", |state| matches!(state, OutgoingState::MailedWhole(_))).await;
    assert_eq!(away.sink.mails().len(), 2);
    away.sam.stop().await;
}

// SPEC: A7
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_cancelled_with_or_without_the_message_going_whole() {
    let away = Away::start().await;
    let cancel = async |delivery: &str, whole: bool| {
        let arguments = ["--json", "cancel", delivery, "--whole"];
        run(&away.sam_paths, &arguments[..if whole { 4 } else { 3 }], b"").await
    };
    for (round, whole) in [(1, false), (2, true)] {
        away.send(&["--unreachable", "retry"]).await;
        let number = away.outgoing().unwrap().delivery.to_string();
        let output = cancel(&number, whole).await;
        assert!(output.status.success(), "{}", error_text(&output));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&said["delivery"], &said["mailed_whole"]), (&number.as_str().into(), &whole.into()));
        assert!(!away.keeps_it());
        assert_eq!(away.sink.mails().len(), if whole { round + 1 } else { round });
        // A second time there is nothing to cancel.
        let output = cancel(&number, whole).await;
        assert_eq!(output.status.code(), Some(1));
        let text = error_text(&output);
        assert!(
            text.contains(if whole { "went whole by mail already" } else { "nothing that was sent" }),
            "{text}"
        );
    }
    assert!(!is_stub(&away.sink.mails()[2].content));
    let output = cancel("12", false).await;
    assert_eq!(output.status.code(), Some(2), "not a number of a delivery");
    away.sam.stop().await;
}

// SPEC: A7, A8, A10
#[tokio::test(flavor = "multi_thread")]
async fn the_message_decides_before_the_recipient_and_that_before_the_configuration_and_limits_hold() {
    use lighter_agent::send::unreachable::Unreachable;

    let away = Away::with(|config| {
        config.send.unreachable = Unreachable::Retry;
        config.send.retry_bytes_max = Some(800_000);
        config.send.to.insert(mailbox("carol"), Unreachable::Whole);
    })
    .await;
    assert_eq!(events(&away.send(&[]).await), ["whole", "mailed"], "the recipient's");
    assert_eq!(events(&away.send(&["--unreachable", "retry"]).await)[0], "kept", "the message's");
    let dave = away.world.set_up("dave", None).await;
    start(&dave).await.stop().await;
    assert_eq!(events(&away.send(&["--to", "dave@example.org"]).await)[0], "whole", "carol's");
    let kept = away.sam.shared().store.all_outgoing().unwrap();
    assert_eq!(
        kept.iter().filter(|outgoing| outgoing.recipient == mailbox("dave")).count(),
        1,
        "the configuration's"
    );
    let large = file(away.world.folder.path(), "large.pdf", &bytes(6, 900_000));
    let told = away.send(&["--unreachable", "retry", large.to_str().unwrap()]).await;
    assert_eq!(events(&told), ["whole", "mailed"], "{told:?}");
    assert!(
        told.iter()
            .any(|event| event["why"].as_str().is_some_and(|why| why.contains("larger than may wait")))
    );
    for wrong in [["--unreachable", "never"], ["--retry-hours", "0"], ["--retry-hours", "721"]] {
        let arguments = ["send", "--to", "carol@example.org", wrong[0], wrong[1]];
        assert_eq!(run(&away.sam_paths, &arguments, b"").await.status.code(), Some(2), "{wrong:?}");
    }
    assert!(Path::new(&away.attached).exists());
    away.sam.stop().await;
}
