//! The queues between QUIC and a byte stream: what quinn takes for a UDP socket.
//!
//! Both are bounded by waiting, not by dropping: QUIC waits where the byte stream takes no more, and the byte stream where
//! QUIC does not. So nothing is ever lost in a tunnel.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;

use super::frames;
use crate::limits::{
    TUNNEL_DATAGRAM_COST, TUNNEL_DATAGRAM_LEN_MAX, TUNNEL_RECEIVE_LEN, TUNNEL_SEGMENTS, TUNNEL_SEND_LEN,
};

/// What waits in both directions.
#[derive(Debug, Default)]
pub(super) struct Queues {
    state: Mutex<State>,
    /// Something is to be written, or nothing will be.
    to_write: Notify,
    /// QUIC took something.
    took: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Framed.
    outgoing: BytesMut,
    /// Who waits until there is room in it.
    senders: Vec<Waker>,
    incoming: VecDeque<Bytes>,
    /// What these cost.
    incoming_cost: usize,
    /// Who waits for them.
    receiver: Option<Waker>,
    /// What is here is written, and no more.
    finishing: bool,
    /// Nothing is written any more.
    ended: bool,
}

impl Queues {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something may be pushed.
    pub(super) async fn room(&self) {
        self.until(|state| state.incoming_cost < TUNNEL_RECEIVE_LEN).await;
    }

    /// Waits until QUIC has taken everything.
    pub(super) async fn taken(&self) {
        self.until(|state| state.incoming.is_empty()).await;
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let took = self.took.notified();
            if is_so(&self.state()) {
                return;
            }
            took.await;
        }
    }

    /// A datagram has come.
    pub(super) fn push(&self, datagram: Bytes) {
        let receiver = {
            let mut state = self.state();
            state.incoming_cost += datagram.len() + TUNNEL_DATAGRAM_COST;
            state.incoming.push_back(datagram);
            state.receiver.take()
        };
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    /// What is to be written next, as soon as there is something; none when there will be nothing more.
    pub(super) async fn next_batch(&self) -> Option<BytesMut> {
        loop {
            let to_write = self.to_write.notified();
            let (batch, finishing, senders) = {
                let mut state = self.state();
                (state.outgoing.split(), state.finishing, std::mem::take(&mut state.senders))
            };
            senders.into_iter().for_each(Waker::wake);
            if !batch.is_empty() {
                return Some(batch);
            }
            if finishing {
                return None;
            }
            to_write.await;
        }
    }

    /// There will be nothing more to write.
    pub(super) fn finish(&self) {
        self.state().finishing = true;
        self.to_write.notify_one();
    }

    /// The byte stream is gone: what QUIC still says is heard by nobody.
    pub(super) fn end(&self) {
        let senders = {
            let mut state = self.state();
            state.ended = true;
            state.outgoing = BytesMut::new();
            state.incoming = VecDeque::new();
            std::mem::take(&mut state.senders)
        };
        senders.into_iter().for_each(Waker::wake);
    }
}

/// A tunnel as quinn sees it: everything goes to one address, and comes from it.
#[derive(Debug)]
pub(super) struct TunnelSocket {
    remote: SocketAddr,
    queues: Arc<Queues>,
}

impl TunnelSocket {
    pub(super) fn new(remote: SocketAddr, queues: Arc<Queues>) -> Self {
        Self { remote, queues }
    }
}

impl AsyncUdpSocket for TunnelSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { queues: Arc::clone(&self.queues) })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        {
            let mut state = self.queues.state();
            if state.ended {
                return Ok(());
            }
            if state.outgoing.len() >= TUNNEL_SEND_LEN {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
            for datagram in transmit.contents.chunks(segment) {
                frames::put(&mut state.outgoing, datagram);
            }
        }
        self.queues.to_write.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.queues.state();
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some(datagram) = state.incoming.pop_front() else { break };
            state.incoming_cost -= datagram.len() + TUNNEL_DATAGRAM_COST;
            let len = datagram.len().min(buffer.len()); // quinn's buffers are as long as the longest datagram
            buffer[..len].copy_from_slice(&datagram[..len]);
            *meta = RecvMeta { addr: self.remote, len, stride: len, ..RecvMeta::default() };
            count += 1;
        }
        if count == 0 {
            state.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.queues.took.notify_one();
        Poll::Ready(Ok(count))
    }

    /// Of the family that the other side's address is of; there is no port.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        let ip: IpAddr = match self.remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Ok(SocketAddr::new(ip, 0))
    }

    fn max_transmit_segments(&self) -> usize {
        TUNNEL_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Waits until a tunnel takes datagrams again.
#[derive(Debug)]
struct Poller {
    queues: Arc<Queues>,
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.queues.state();
        if state.ended || state.outgoing.len() < TUNNEL_SEND_LEN {
            return Poll::Ready(Ok(()));
        }
        if !state.senders.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.senders.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

const _: () = assert!(TUNNEL_DATAGRAM_LEN_MAX as usize * TUNNEL_SEGMENTS <= 64 * 1024);
