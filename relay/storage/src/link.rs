//! A connection to a storage server, from the asker's side: of a writer, or of a server to the next in a chain.
//!
//! Two tasks drive it, one for each direction, and end with the last handle. Requests are sent in the order of the
//! calls; an answer finds its caller by its number. An answer that nobody waits for (twice, too late, never asked) ends
//! the connection: a server that does that is not to be relied on for what it says next.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lighter_protocol::UnixTime;
use lighter_transport::tcp::TcpTls;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::array::ServerRecord;
use crate::ids::Epoch;
use crate::limits::{CONNECTION_REQUESTS_MAX, HELLO_TIME_MAX, IDLE_TIME_MAX};
use crate::watch;
use crate::wire::{Frame, OutFrame, Refusal, Request, Response, UnitInfo, VERSION};

/// A byte stream whose other side is known.
pub trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> PeerStream for S {}

/// A connection on its way.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn PeerStream>>> + Send + 'a>>;

/// Makes connections to servers: TLS over TCP, or, in tests, within the process.
pub trait Dial: Send + Sync + 'static {
    /// A stream to that server and to nobody else.
    fn dial<'a>(&'a self, server: &'a ServerRecord) -> Dialing<'a>;
}

impl Dial for TcpTls {
    fn dial<'a>(&'a self, server: &'a ServerRecord) -> Dialing<'a> {
        Box::pin(async {
            let stream = self.connect(server.address, server.peer).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn PeerStream>)
        })
    }
}

/// Why a request has no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The connection could not be made, or ended.
    #[error("no connection")]
    Closed,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The server said no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// An answer that is none to this request, or a request too long to send.
    #[error("a wrong answer")]
    Wrong,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Link {
    requests: mpsc::Sender<OutFrame>,
    waiting: Arc<Waiting>,
    tasks: [JoinHandle<()>; 2],
}

/// What a server said when the connection was made.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// Its clock.
    pub now: UnixTime,
    /// The epoch that counts there for the asker.
    pub epoch: Epoch,
    /// Its units.
    pub units: Vec<UnitInfo>,
}

/// An answer on its way.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<(Response, Bytes), LinkError>>);

#[derive(Debug)]
struct Waiting {
    next_id: AtomicU64,
    /// `None` once the connection has ended.
    answers: Mutex<Option<BTreeMap<u64, Answer>>>,
    ended: watch::Sender<bool>,
}

type Answer = oneshot::Sender<Result<(Response, Bytes), LinkError>>;

impl Link {
    /// Connects to `server` and says hello.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn connect(
        dial: &dyn Dial,
        server: &ServerRecord,
        now: UnixTime,
    ) -> Result<(Self, Greeting), LinkError> {
        let dialed = timeout(HELLO_TIME_MAX, dial.dial(server)).await.map_err(|_| LinkError::TimedOut)?;
        let stream = dialed.map_err(|error| {
            tracing::debug!(server = %server.peer, %error, "cannot connect");
            LinkError::Closed
        })?;
        let link = Self::over(stream);
        let hello = Request::Hello { version: VERSION, now };
        match link.call(&hello, Vec::new(), HELLO_TIME_MAX).await? {
            (Response::Hello { now, epoch, units }, _) => Ok((link, Greeting { now, epoch, units })),
            _ => Err(LinkError::Wrong),
        }
    }

    fn over(stream: Box<dyn PeerStream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (requests, queue) = mpsc::channel(CONNECTION_REQUESTS_MAX);
        let waiting = Arc::new(Waiting {
            next_id: AtomicU64::new(0),
            answers: Mutex::new(Some(BTreeMap::new())),
            ended: watch::Sender::new(false),
        });
        let tasks = [
            tokio::spawn(send_requests(write, queue, Arc::clone(&waiting))),
            tokio::spawn(receive_answers(read, Arc::clone(&waiting))),
        ];
        Self { requests, waiting, tasks }
    }

    /// Sends a request; its answer is waited for elsewhere. Requests go out in the order of these calls.
    ///
    /// # Errors
    /// [`LinkError::Closed`], [`LinkError::Wrong`].
    pub async fn send(&self, request: &Request, data: Vec<Bytes>) -> Result<Pending, LinkError> {
        let id = self.waiting.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = OutFrame::new(id, request, data).map_err(|_| LinkError::Wrong)?;
        let (answer, pending) = oneshot::channel();
        self.waiting.add(id, answer)?;
        self.requests.send(frame).await.map_err(|_| LinkError::Closed)?;
        Ok(Pending(pending))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn call(
        &self,
        request: &Request,
        data: Vec<Bytes>,
        time_max: Duration,
    ) -> Result<(Response, Bytes), LinkError> {
        let asked = async { self.send(request, data).await?.answer().await };
        timeout(time_max, asked).await.map_err(|_| LinkError::TimedOut)?
    }

    /// As [`Link::call`], for requests whose good answer is [`Response::Done`].
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn done(
        &self,
        request: &Request,
        data: Vec<Bytes>,
        time_max: Duration,
    ) -> Result<Bytes, LinkError> {
        match self.call(request, data, time_max).await? {
            (Response::Done, data) => Ok(data),
            _ => Err(LinkError::Wrong),
        }
    }

    /// Requests that are not answered yet.
    pub fn waiting_len(&self) -> usize {
        self.waiting.answers.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, BTreeMap::len)
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.waiting.answers.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Returns when the connection has ended.
    pub async fn ended(&self) {
        let mut ended = self.waiting.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Ends the connection: whoever waits for an answer gets none.
    pub fn close(&self) {
        self.waiting.end();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

impl Pending {
    /// The answer; a refusal is an error.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn answer(self) -> Result<(Response, Bytes), LinkError> {
        match self.0.await.map_err(|_| LinkError::Closed)?? {
            (Response::Refused(refusal), _) => Err(LinkError::Refused(refusal)),
            other => Ok(other),
        }
    }
}

impl Waiting {
    fn add(&self, id: u64, answer: Answer) -> Result<(), LinkError> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.as_mut().ok_or(LinkError::Closed)?.insert(id, answer);
        Ok(())
    }

    fn take(&self, id: u64) -> Option<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.as_mut()?.remove(&id)
    }

    /// Dropping the senders tells those who wait.
    fn end(&self) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.ended.send_replace(true);
    }
}

async fn send_requests(
    write: WriteHalf<Box<dyn PeerStream>>,
    mut queue: mpsc::Receiver<OutFrame>,
    waiting: Arc<Waiting>,
) {
    let mut write = BufWriter::with_capacity(64 * 1024, write);
    while let Some(frame) = next_or_ping(&mut queue, &waiting).await {
        let mut sent = frame.write(&mut write).await;
        if queue.is_empty() && sent.is_ok() {
            sent = write.flush().await;
        }
        if sent.is_err() {
            break;
        }
    }
    waiting.end();
}

/// The next request; where none comes for a while, one that keeps the connection alive.
async fn next_or_ping(queue: &mut mpsc::Receiver<OutFrame>, waiting: &Waiting) -> Option<OutFrame> {
    if let Ok(next) = timeout(IDLE_TIME_MAX / 3, queue.recv()).await {
        return next;
    }
    let id = waiting.next_id.fetch_add(1, Ordering::Relaxed);
    let (answer, _) = oneshot::channel();
    waiting.add(id, answer).ok()?;
    OutFrame::new(id, &Request::Ping, Vec::new()).ok()
}

async fn receive_answers(mut read: ReadHalf<Box<dyn PeerStream>>, waiting: Arc<Waiting>) {
    loop {
        let answered = timeout(IDLE_TIME_MAX, Frame::read(&mut read)).await;
        let Ok(Ok(frame)) = answered else { break };
        let (Some(answer), Ok(response)) = (waiting.take(frame.id), frame.decode::<Response>()) else {
            tracing::warn!("an answer that nobody asked for, or none that can be read: connection ended");
            break;
        };
        // Nobody may wait for it any more; that is no fault of the server's.
        let _ = answer.send(Ok((response, frame.data)));
    }
    waiting.end();
}
