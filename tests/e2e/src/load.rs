//! Senders that send one message after the other while something happens, and write down what they were answered.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lighter_harness::mail::{MailClient, TestMessage};
use lighter_harness::watch::{EVENT_TIMEOUT, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Between two messages of one sender: so many messages are enough, and each is looked at in the end.
const PAUSE: Duration = Duration::from_millis(100);
/// Sizes of attachments: all large enough to be taken out, some in one portion, some in several.
const SIZES: std::ops::Range<u64> = 300_000..2_500_000;
/// Each sender has so many numbers for its messages.
const NUMBERS: u64 = 100_000;

/// A message and what became of it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The message.
    pub message: TestMessage,
    /// The code of the reply that decided, `None` where the connection ended without one.
    pub code: Option<u16>,
    /// How long that took, from connecting on.
    pub took: Duration,
}

/// Senders at work.
#[derive(Debug)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    /// Messages of which it is known what became of them.
    replies: watch::Sender<u64>,
    senders: JoinSet<Vec<Sent>>,
}

impl Load {
    /// Starts `senders` that send to `mailbox`. What they send follows from `seed`: two loads of one world need two.
    pub fn start(smtp: SocketAddr, mailbox: &str, senders: u64, seed: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (replies, mut tasks) = (watch::Sender::new(0), JoinSet::new());
        for sender in 0..senders {
            let (mailbox, is_over, replies) = (mailbox.to_owned(), Arc::clone(&is_over), replies.clone());
            let first = (seed * senders + sender + 1) * NUMBERS;
            tasks.spawn(async move {
                let (mut chance, mut sent) = (StdRng::seed_from_u64(first), Vec::new());
                for number in first..first + NUMBERS {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let message = TestMessage::new(&mailbox, chance.random_range(SIZES), number);
                    let began = Instant::now();
                    let code = try_send(smtp, &message).await;
                    sent.push(Sent { message, code, took: began.elapsed() });
                    replies.send_modify(|count| *count += 1);
                    tokio::time::sleep(PAUSE).await;
                }
                sent
            });
        }
        Self { is_over, replies, senders: tasks }
    }

    /// Returns once the fate of so many messages is known, since the beginning of all.
    ///
    /// # Errors
    /// Where that takes too long.
    pub async fn wait_for_replies(&self, count: u64) -> Result<()> {
        let mut replies = self.replies.subscribe();
        let waited = timeout(EVENT_TIMEOUT, replies.wait_for(|replies| *replies >= count)).await;
        waited.with_context(|| format!("waited too long: {count} messages sent"))??;
        Ok(())
    }

    /// No more messages: those on their way are finished.
    pub async fn stop(self) -> Vec<Sent> {
        self.is_over.store(true, Ordering::Relaxed);
        self.senders.join_all().await.into_iter().flatten().collect()
    }
}

/// Sends one message on a connection of its own: the code of the reply that decided, `None` where the connection ended
/// without one.
pub async fn try_send(smtp: SocketAddr, message: &TestMessage) -> Option<u16> {
    let mut client = MailClient::connect(smtp, "EHLO").await.ok()?;
    for command in
        [format!("MAIL FROM:<{}>", message.from), format!("RCPT TO:<{}>", message.to), "DATA".to_owned()]
    {
        let reply = client.command(&command).await.ok()?;
        if reply.code >= 400 {
            return Some(reply.code);
        }
    }
    for piece in message.pieces() {
        if client.write(&piece).await.is_err() {
            break;
        }
    }
    let _ = client.write(b".\r\n").await;
    client.reply().await.ok().map(|reply| reply.code)
}

/// Sends messages until one is taken, which is given. Each is another one: of one that was left without an answer
/// nobody knows.
///
/// # Errors
/// Where that takes too long.
pub async fn send_until_taken(smtp: SocketAddr, mailbox: &str, seed: u64) -> Result<Sent> {
    let seeds = Cell::new(seed);
    wait_for("a message to be taken", async || {
        let message = TestMessage::new(mailbox, SIZES.start, seeds.replace(seeds.get() + 1));
        let began = Instant::now();
        let code = try_send(smtp, &message).await;
        Ok((code == Some(250)).then(|| Sent { message, code, took: began.elapsed() }))
    })
    .await
}

/// That each of them was taken, and within `time_max`; the slowest one's time.
///
/// # Errors
/// Says which was not.
pub fn assert_all_taken(sent: &[Sent], time_max: Duration) -> Result<Duration> {
    ensure!(!sent.is_empty(), "nothing was sent");
    for Sent { message, code, took } in sent {
        ensure!(*code == Some(250), "message {}: {code:?} after {took:?}", message.seed);
        ensure!(*took < time_max, "message {} was taken after {took:?}", message.seed);
    }
    Ok(sent.iter().map(|sent| sent.took).max().unwrap_or_default())
}
