//! An intake that keeps messages in memory and decides by local part, for tests of the shells around it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lighter_mail::{Envelope, MailFrom, RcptTo, Reply};
use tokio::sync::watch;

use super::{Incoming, Intake, MailPeer, Summary, Verdict};

/// One message that came to its end.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) peer: MailPeer,
    pub(crate) envelope: Envelope,
    pub(crate) content: Vec<u8>,
}

/// Recipients: `unknown` is refused; `late` fails at the end; `drop` ends without a verdict; others are accepted.
#[derive(Debug)]
pub(crate) struct Memory {
    taken: Mutex<Vec<Taken>>,
    /// Messages taken and messages aborted, to be waited for.
    counts: watch::Sender<(usize, usize)>,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), counts: watch::Sender::default() })
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `taken` messages were taken and `aborted` aborted.
    pub(crate) async fn wait_for(&self, taken: usize, aborted: usize) {
        let mut counts = self.counts.subscribe();
        counts.wait_for(|counts| counts.0 >= taken && counts.1 >= aborted).await.unwrap();
    }
}

pub(crate) struct MemoryIncoming {
    memory: Arc<Memory>,
    message: Option<Taken>,
}

impl Intake for Arc<Memory> {
    type Incoming = MemoryIncoming;

    async fn sender(&self, _: &MailPeer, mail: &MailFrom) -> Result<(), Reply> {
        match &mail.path {
            Some(address) if address.local() == "blocked" => Err(Reply::fixed(550, 7, 1, "Blocked")),
            _ => Ok(()),
        }
    }

    async fn recipient(&self, _: &MailPeer, _: &MailFrom, rcpt: &RcptTo) -> Result<(), Reply> {
        if rcpt.address.local() == "unknown" { Err(Reply::fixed(550, 1, 1, "Unknown")) } else { Ok(()) }
    }

    async fn begin(&self, peer: &MailPeer, envelope: Envelope) -> Result<MemoryIncoming, Reply> {
        let message = Some(Taken { peer: peer.clone(), envelope, content: Vec::new() });
        Ok(MemoryIncoming { memory: Arc::clone(self), message })
    }
}

impl Incoming for MemoryIncoming {
    async fn content(&mut self, piece: Bytes) -> Result<(), Reply> {
        if let Some(message) = &mut self.message {
            message.content.extend_from_slice(&piece);
        }
        Ok(())
    }

    async fn finish(mut self, summary: Summary) -> Verdict {
        let message = self.message.take().expect("taken once");
        assert_eq!(summary.len, message.content.len() as u64);
        let reply = |rcpt: &RcptTo| match rcpt.address.local() {
            "late" => Reply::fixed(452, 2, 2, "Full"),
            _ => Reply::fixed(250, 0, 0, "Taken"),
        };
        let verdict = if message.envelope.recipients.iter().any(|rcpt| rcpt.address.local() == "drop") {
            Verdict::Drop
        } else {
            Verdict::Each(message.envelope.recipients.iter().map(reply).collect())
        };
        self.memory.taken.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        self.memory.counts.send_modify(|counts| counts.0 += 1);
        verdict
    }

    async fn abort(self) {}
}

impl Drop for MemoryIncoming {
    fn drop(&mut self) {
        if self.message.is_some() {
            self.memory.counts.send_modify(|counts| counts.1 += 1);
        }
    }
}
