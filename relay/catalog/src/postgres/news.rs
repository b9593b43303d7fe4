//! What relays tell each other through the database (`LISTEN`, `NOTIFY`): that something waits for a mailbox, that a
//! delivery needs to be offered no more, that another relay came. Told with the transaction that makes it so.
//!
//! News can get lost: with the connection that listens, or with a database that takes over. Who listens is told that
//! some may have been ([`News::Missed`]), and looks for itself.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lighter_protocol::{DeliveryId, Mailbox};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_postgres::{AsyncMessage, Client};

use super::error::DbError;
use super::leases::Holder;
use super::pool::{Connection, Pool};
use crate::change::Change;
use crate::limits::{DATABASE_RETRY_MAX_MS, NEWS_LEN_MAX};

type Result<T> = std::result::Result<T, DbError>;

/// The channel that all relays listen on.
const CHANNEL: &str = "lighter";

/// Something that another relay told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something waits for this mailbox, which may be free to be offered.
    Waiting(Mailbox),
    /// A store has this delivery.
    Ended(DeliveryId),
    /// There is another relay.
    Relays,
    /// Some news may have been missed.
    Missed,
}

impl News {
    fn text(&self, from: i64) -> String {
        match self {
            Self::Waiting(mailbox) => format!("{from} waiting {mailbox}"),
            Self::Ended(delivery) => format!("{from} ended {delivery}"),
            Self::Relays => format!("{from} relays"),
            Self::Missed => format!("{from} missed"),
        }
    }

    /// What another relay than `own` told. None: it is one's own, or of a later version.
    fn read(text: &str, own: i64) -> Option<Self> {
        let (from, rest) = text.split_once(' ')?;
        if from.parse() == Ok(own) {
            return None;
        }
        let (what, about) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "waiting" => about.parse().ok().map(Self::Waiting),
            "ended" => about.parse().ok().map(Self::Ended),
            "relays" => Some(Self::Relays),
            "missed" => Some(Self::Missed),
            _ => None,
        }
    }

    /// What others want to know of changes.
    pub(super) fn of<'c>(changes: impl Iterator<Item = &'c Change>) -> Vec<Self> {
        let (mut mailboxes, mut news) = (BTreeSet::new(), Vec::new());
        for change in changes {
            match change {
                Change::Accepted(message) => {
                    let endowed = message.recipients.iter().filter(|to| to.delivery().is_some());
                    mailboxes.extend(endowed.filter_map(|to| to.mailbox.clone()));
                }
                Change::Receipted { delivery, .. } => news.push(Self::Ended(*delivery)),
                _ => {}
            }
        }
        news.extend(mailboxes.into_iter().map(Self::Waiting));
        news
    }
}

/// Tells all relays, when the transaction is made.
pub(super) async fn tell(connection: &mut Connection, holder: &Holder, news: &[News]) -> Result<()> {
    const NOTIFY: &str = "SELECT pg_notify($1, news) FROM unnest($2::text[]) AS told (news)";
    if news.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = news.iter().map(|news| news.text(holder.incarnation)).collect();
    connection.query(NOTIFY, &[&CHANNEL, &texts]).await?;
    Ok(())
}

/// Listens until nobody wants to hear any more.
pub(super) fn listen(holder: &Arc<Holder>, pool: Pool, runtime: &Handle) -> mpsc::Receiver<News> {
    let (sender, receiver) = mpsc::channel(NEWS_LEN_MAX);
    runtime.spawn(keep_listening(Arc::downgrade(holder), pool, sender));
    receiver
}

async fn keep_listening(holder: Weak<Holder>, pool: Pool, sender: mpsc::Sender<News>) {
    while let Some(holder) = holder.upgrade()
        && !sender.is_closed()
    {
        if let Err(error) = listen_once(holder.incarnation, &pool, &sender).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "news of other relays are not heard now"
            );
        }
        drop(holder);
        sleep(Duration::from_millis(DATABASE_RETRY_MAX_MS)).await;
    }
}

/// Listens until the connection ends, or nobody wants to hear any more.
async fn listen_once(own: i64, pool: &Pool, sender: &mpsc::Sender<News>) -> Result<()> {
    let (config, tls) = pool.config();
    let connecting = tokio::time::timeout(pool.connect_time_max(), config.connect(tls));
    let (client, mut connection) =
        connecting.await.map_err(|_| DbError::late("connecting took too long"))??;
    let listening = listen_on(client);
    tokio::pin!(listening);
    let mut is_listening = None;
    loop {
        let message = tokio::select! {
            biased;
            client = &mut listening, if is_listening.is_none() => {
                // Kept: without its client, the connection ends.
                is_listening = Some(client?);
                pass_on(sender, News::Missed);
                continue;
            }
            () = sender.closed() => return Ok(()),
            message = poll_fn(|context| connection.poll_message(context)) => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(told))) => {
                if let Some(news) = News::read(told.payload(), own) {
                    pass_on(sender, news);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
}

async fn listen_on(client: Client) -> Result<Client> {
    client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
    Ok(client)
}

/// Who is behind with the news finds out from the database: the connection must not be held up.
fn pass_on(sender: &mpsc::Sender<News>, news: News) {
    if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(news) {
        tracing::debug!("more news than are read");
    }
}
