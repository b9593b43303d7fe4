//! Storage servers of one process: who is in it, too, speaks to them without a socket.
//!
//! A relay that runs its own servers (the default) would encrypt each byte to itself, send it through the system, and
//! decrypt it again. Within the process it is the same protocol, the same limits and the same order, over a pipe in
//! memory; who asks is known, as nobody else can hold the other end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lighter_protocol::PeerId;
use lighter_transport::tcp::TcpTls;
use tokio::io::duplex;
use tokio::sync::mpsc;

use crate::array::ServerRecord;
use crate::limits::{LOCAL_ARRIVALS_MAX, LOCAL_PIPE_LEN};
use crate::link::{Dial, Dialing, PeerStream};

/// The storage servers of a process that find each other, and are found, through this. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct LocalServers(Arc<Mutex<BTreeMap<PeerId, mpsc::Sender<Arrival>>>>);

/// A connection from within the process.
pub(crate) struct Arrival {
    pub(crate) stream: Box<dyn PeerStream>,
    /// Who dialled.
    pub(crate) peer: PeerId,
}

impl LocalServers {
    /// From now on, connections to `server` come here; until the receiver is dropped.
    pub(crate) fn open_door(&self, server: PeerId) -> mpsc::Receiver<Arrival> {
        let (door, arrivals) = mpsc::channel(LOCAL_ARRIVALS_MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server, door);
        arrivals
    }

    fn door(&self, server: &PeerId) -> Option<mpsc::Sender<Arrival>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }
}

/// Connections to servers of this process, and, by TLS, to all others.
pub(crate) struct LocalOrTls {
    pub(crate) local: LocalServers,
    pub(crate) tls: TcpTls,
}

impl Dial for LocalOrTls {
    fn dial<'a>(&'a self, server: &'a ServerRecord) -> Dialing<'a> {
        Box::pin(async {
            let Some(door) = self.local.door(&server.peer) else { return self.tls.dial(server).await };
            let (near, far) = duplex(LOCAL_PIPE_LEN);
            let arrival = Arrival { stream: Box::new(far), peer: self.tls.peer() };
            match door.send(arrival).await {
                Ok(()) => Ok(Box::new(near) as Box<dyn PeerStream>),
                // It was here, and has stopped: perhaps it runs elsewhere by now.
                Err(_) => self.tls.dial(server).await,
            }
        })
    }
}
