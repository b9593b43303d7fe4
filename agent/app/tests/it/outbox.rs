//! The watched outbox of the real program: what is put into a recipient's folder goes once, whenever it is killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lighter_agent::agent::Agent;
use lighter_agent::config::{Config, Paths};
use lighter_protocol::BlobId;
use tokio::process::Child;

use crate::support::mail_sink::{Hold, Mail, MailSink};
use crate::support::programs::{json, run_ok, start};
use crate::support::{World, bytes, eventually};

/// An agent's user, who has folders for some recipients.
struct User {
    paths: Paths,
    outbox: PathBuf,
}

impl User {
    async fn new(world: &World, sink: &MailSink, recipients: &[&str]) -> Self {
        let paths = world.set_up("sam", Some(sink.address.to_string())).await;
        let mut config = Config::read(&paths.config).unwrap();
        (config.outbox.settle_s, config.outbox.settle_folder_s) = (1, 1);
        config.write(&paths.config).unwrap();
        let outbox = paths.data.join("outbox");
        let user = Self { paths, outbox };
        for recipient in recipients {
            std::fs::create_dir_all(user.folder(recipient)).unwrap();
        }
        user
    }

    fn folder(&self, recipient: &str) -> PathBuf {
        self.outbox.join(format!("{recipient}@example.org"))
    }

    /// What stands in `sent`, without notes.
    fn sent(&self, recipient: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.folder(recipient).join("sent")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.to_str().unwrap().ends_with(".status.txt")).collect()
    }

    async fn is_sent(&self, recipient: &str, count: usize) {
        let what = format!("{count} in {recipient}'s folder to be sent");
        eventually(&what, async || self.sent(recipient).len() == count).await;
    }

    /// The note beside a path, once it says something.
    async fn note(path: &Path, says: &str) -> String {
        let note = PathBuf::from(format!("{}.status.txt", path.display()));
        let mut text = String::new();
        eventually(says, async || {
            text = std::fs::read_to_string(&note).unwrap_or_default();
            text.contains(says)
        })
        .await;
        text
    }
}

async fn kill(mut child: Child) {
    child.kill().await.unwrap();
}

fn contains(mail: &Mail, part: &str) -> bool {
    mail.content.windows(part.len()).any(|window| window == part.as_bytes())
}

/// What makes messages the same ones.
fn message_id(mail: &Mail) -> String {
    let text = String::from_utf8_lossy(&mail.content).into_owned();
    text.lines().find(|line| line.starts_with("Message-ID:")).unwrap().to_owned()
}

/// Whether the store has it, and has said so: a pull whose sender is killed is taken up again only when it is noticed.
fn holds_once(alice: &Agent, content: &[u8]) -> bool {
    let store = &alice.shared().store;
    let deliveries = store.all_incoming().unwrap();
    assert!(deliveries.len() <= 1, "{} deliveries of one file", deliveries.len());
    deliveries.iter().any(|delivery| delivery.receipt().is_some())
        && store.open_blob(BlobId::of(content)).is_ok_and(|blob| blob.is_intact().unwrap())
}

// SPEC: A5, A6, A9
#[tokio::test(flavor = "multi_thread")]
async fn what_is_completely_written_goes_once_by_the_way_of_send() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let user = User::new(&world, &sink, &["alice", "bob"]).await;
    let agent = start(&user.paths).await;

    // Slowly, with pauses that are longer than a file settles.
    let content = bytes(1, 900_000);
    let path = user.folder("alice").join("größe.pdf");
    let mut file = std::fs::File::create(&path).unwrap();
    for piece in content.chunks(300_000) {
        file.write_all(piece).unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(sink.mails().is_empty());
    }
    let waiting = json(&user.paths, &["status"]).await["outbox"]["items"][0].clone();
    assert_eq!((waiting["name"].as_str(), waiting["state"].as_str()), (Some("größe.pdf"), Some("waiting")));
    drop(file);
    user.is_sent("alice", 1).await;
    assert!(holds_once(&alice, &content));
    let sent = user.sent("alice").remove(0);
    assert!(sent.to_str().unwrap().ends_with(" größe.pdf") && std::fs::read(&sent).unwrap() == content);
    User::note(&sent, "the attachments are in their store").await;
    let mails = sink.mails();
    assert!(mails.len() == 1 && contains(&mails[0], "Lighter-Message:"));
    assert!(!path.exists());

    // Renamed into place; a folder that appears is taken, and is one message.
    let temporary = user.folder("bob").join("report.pdf.part");
    std::fs::write(&temporary, &content).unwrap();
    std::fs::rename(&temporary, user.folder("bob").join("report.pdf")).unwrap();
    user.is_sent("bob", 1).await;
    let photos = user.folder("carol").join("Holiday photos");
    std::fs::create_dir_all(&photos).unwrap();
    std::fs::write(user.outbox.join("message.txt"), "Subject: From Sam\n\nHello!\n").unwrap();
    for name in ["a.txt", "b.txt"] {
        std::fs::write(photos.join(name), name).unwrap();
    }
    user.is_sent("carol", 1).await;
    let mails = sink.mails();
    assert_eq!(mails.len(), 3);
    assert!(mails[1].to == ["bob@example.org"] && contains(&mails[1], "Subject: report.pdf"));
    let carols = &mails[2];
    for part in ["Subject: From Sam", "Hello!", "filename=\"a.txt\"", "filename=\"b.txt\""] {
        assert!(contains(carols, part), "{part}");
    }
    // The same file again is a new one.
    std::fs::copy(user.sent("bob").remove(0), user.folder("bob").join("report.pdf")).unwrap();
    user.is_sent("bob", 2).await;
    assert_eq!(sink.mails().len(), 4);
    kill(agent).await;
    alice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_32_killed_with_the_mail_servers_answer_on_its_way_it_is_the_same_message_again() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let user = User::new(&world, &sink, &["alice"]).await;
    let content = bytes(1, 700_000);
    std::fs::write(user.folder("alice").join("a.bin"), &content).unwrap();
    sink.hold.send_replace(Hold::Answer);
    let agent = start(&user.paths).await;
    eventually("the mail server to have it", async || sink.mails().len() == 1).await;
    eventually("the store to have it", async || holds_once(&alice, &content)).await;
    kill(agent).await;
    sink.hold.send_replace(Hold::Nowhere);
    let agent = start(&user.paths).await;
    user.is_sent("alice", 1).await;
    let mails = sink.mails();
    assert_eq!(mails.len(), 2, "of twice and not at all, twice");
    assert_eq!(message_id(&mails[0]), message_id(&mails[1]));
    assert!(mails[0].content == mails[1].content, "the same message, with the same delivery");
    eventually("the store to have it", async || holds_once(&alice, &content)).await;
    // And not once more.
    kill(agent).await;
    let agent = start(&user.paths).await;
    eventually("a look", async || {
        json(&user.paths, &["status"]).await["outbox"]["items"] == serde_json::json!([])
    })
    .await;
    assert_eq!(sink.mails().len(), 2);
    kill(agent).await;
    alice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_32_killed_before_its_message_went_the_store_gets_the_delivery_once() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let user = User::new(&world, &sink, &["alice"]).await;
    let content = bytes(1, 700_000);
    std::fs::write(user.folder("alice").join("a.bin"), &content).unwrap();
    sink.hold.send_replace(Hold::Greeting);
    let agent = start(&user.paths).await;
    eventually("the store to have it", async || holds_once(&alice, &content)).await;
    kill(agent).await;
    assert!(sink.mails().is_empty());
    sink.hold.send_replace(Hold::Nowhere);
    let agent = start(&user.paths).await;
    eventually("the message", async || sink.mails().len() == 1).await;
    assert!(holds_once(&alice, &content));
    let mails = sink.mails();
    let restored = {
        let paths = world.paths("alice");
        run_ok(&paths, &["restore"], &mails[0].content).await
    };
    assert!(restored.len() > 900_000, "the stub is of the delivery that the store has");
    kill(agent).await;
    alice.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_32_killed_between_sent_and_moved_it_is_moved_and_not_sent() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let user = User::new(&world, &sink, &["bob"]).await;
    // Where `sent` cannot be made, nothing can be moved there.
    let sent = user.folder("bob").join("sent");
    std::fs::write(&sent, b"in the way").unwrap();
    let path = user.folder("bob").join("a.bin");
    std::fs::write(&path, b"content").unwrap();
    let agent = start(&user.paths).await;
    User::note(&path, "is not a folder: remove it").await;
    kill(agent).await;
    std::fs::remove_file(&sent).unwrap();
    let agent = start(&user.paths).await;
    user.is_sent("bob", 1).await;
    assert_eq!(sink.mails().len(), 1);
    assert!(!path.exists());
    eventually("the note to go", async || !user.folder("bob").join("a.bin.status.txt").exists()).await;
    kill(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_stays_with_a_note_and_in_status_and_goes_once_it_is_mended() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let user = User::new(&world, &sink, &["nobody"]).await;
    std::fs::create_dir_all(user.outbox.join("Bob")).unwrap();
    let hostile = "a\u{1b}[2J\u{202e}\n.txt";
    let path = user.folder("nobody").join(hostile);
    std::fs::write(&path, b"x").unwrap();
    let agent = start(&user.paths).await;
    let note = User::note(&path, "550 5.1.1 nobody here").await;
    assert!(note.starts_with("Lighter: NOT SENT.\n\na[2J.txt\n"), "{note:?}");
    User::note(&user.outbox.join("Bob"), "Its name is no mailbox").await;
    let status = json(&user.paths, &["status"]).await["outbox"].clone();
    let items = status["items"].as_array().unwrap();
    assert!(items.len() == 2 && items.iter().all(|item| item["state"] == "failed"), "{status}");
    let text = String::from_utf8(run_ok(&user.paths, &["status"], b"").await).unwrap();
    assert!(text.contains("nobody@example.org/a[2J.txt: the mail server did not take it: 550"), "{text}");
    // Into the right folder.
    std::fs::create_dir(user.folder("bob")).unwrap();
    std::fs::rename(&path, user.folder("bob").join("a.txt")).unwrap();
    user.is_sent("bob", 1).await;
    // A folder can be a group's, as `send --to` knows it.
    let books = user.paths.data.join("address-books");
    std::fs::create_dir_all(&books).unwrap();
    let group = "dn: cn=Bob,ou=x\nobjectClass: groupOfNames\ncn: Bob\nmember: mail=carol@example.org\n\
                 member: mail=dave@example.org\n";
    std::fs::write(books.join("friends.ldif"), group).unwrap();
    std::fs::write(user.outbox.join("Bob").join("b.txt"), b"y").unwrap();
    eventually("the group to have it", async || user.outbox.join("Bob/sent").exists()).await;
    eventually("the group's mail", async || sink.mails().len() == 2).await;
    let mut to = sink.mails()[1].to.clone();
    to.sort();
    assert_eq!(to, ["carol@example.org", "dave@example.org"]);
    eventually("the note to go", async || std::fs::read_dir(user.folder("nobody")).unwrap().count() == 0)
        .await;
    kill(agent).await;
}
