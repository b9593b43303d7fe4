//! Connections that stores open towards this agent, because it asked a helper for it: who waits for which.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lighter_protocol::PeerId;
use lighter_transport::Connection;
use tokio::sync::mpsc;

/// Which connection: from whom, and the number of the introduction that it is because of.
type Of = (PeerId, u64);

/// Who waits for connections. As many as helpers are asked at a time.
#[derive(Debug, Default)]
pub struct Expected {
    waiting: Mutex<HashMap<Of, mpsc::Sender<Connection>>>,
}

/// Waits for one connection; dropped, it waits no more.
#[derive(Debug)]
pub struct Expectation<'a> {
    expected: &'a Expected,
    of: Of,
    arrived: mpsc::Receiver<Connection>,
}

impl Expected {
    /// Waits for a connection from `peer` because of the introduction with this number (drawn for this one wait).
    pub fn expect(&self, peer: PeerId, number: u64) -> Expectation<'_> {
        let (sender, arrived) = mpsc::channel(1);
        self.lock().insert((peer, number), sender);
        Expectation { expected: self, of: (peer, number), arrived }
    }

    /// A connection from its peer has come that says that it is because of this introduction. Whether anybody waited for
    /// it, and has it now.
    pub fn arrived(&self, number: u64, connection: Connection) -> bool {
        let waiting = self.lock().remove(&(connection.peer(), number));
        waiting.is_some_and(|waiting| waiting.try_send(connection).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Of, mpsc::Sender<Connection>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expectation<'_> {
    /// The connection, when it has come.
    pub async fn connection(&mut self) -> Connection {
        match self.arrived.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await, // it has been given already
        }
    }
}

impl Drop for Expectation<'_> {
    fn drop(&mut self) {
        self.expected.lock().remove(&self.of);
        // One that came at the last moment is of no use any more.
        self.arrived.close();
        while let Ok(connection) = self.arrived.try_recv() {
            connection.close();
        }
    }
}
