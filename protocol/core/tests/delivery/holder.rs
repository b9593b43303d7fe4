//! The holder's shell: does what its machine says, on a disk that remembers one thing (that the receipt was recorded).

use std::time::Duration;

use lighter_protocol::blob::GROUP_LEN;
use lighter_protocol::offer::{self, Offering};
use lighter_protocol::pull::{StreamEnd, StreamId};
use lighter_protocol::wire::{Get, Request, Response, decode, encode};
use lighter_protocol::{Introduction, Keypair, PeerId, Releaser, Signed};
use rand::RngExt;

use super::{Message, Reply, World};

pub(crate) struct Holder {
    pub(crate) key: Keypair,
    pub(crate) peer: PeerId,
    pub(crate) machine: Offering,
    /// On its disk: the receipt was recorded.
    pub(crate) recorded: bool,
    pub(crate) honest: bool,
    pub(crate) relay: bool,
}

impl World {
    pub(crate) fn holder_does(&mut self, at: usize, command: offer::Command) {
        match command {
            offer::Command::Nothing | offer::Command::WaitForPresence => {}
            offer::Command::Wait(until) => assert_eq!(self.holders[at].machine.deadline(), Some(until)),
            offer::Command::SendOffer { to, mut offer, .. } => {
                assert_eq!(to, self.store.peer);
                if !self.holders[at].relay {
                    offer.introduction = Some(self.introduction(at));
                }
                let payload = encode(&Request::Offer(*offer)).unwrap()[4..].to_vec();
                self.send(Message::ToStore { from: at, payload, of: Reply::Offer });
            }
            offer::Command::Record(verified) => {
                assert_eq!(verified.receipt().delivery, self.delivery.id);
                let command = if self.chaos && self.rng.random_bool(0.2) {
                    self.holders[at].machine.handle_not_recorded(self.now)
                } else {
                    self.holders[at].recorded = true;
                    if self.chaos && self.rng.random_bool(0.2) {
                        return self.crash_holder(at); // between record and release
                    }
                    self.holders[at].machine.handle_recorded()
                };
                self.holder_does(at, command);
            }
            offer::Command::Release => {
                assert!(self.holders[at].recorded, "released before the receipt was recorded");
                assert!(self.store.receipt.is_some(), "released without a receipt on the store's disk");
                let payload = encode(&Response::Released).unwrap()[4..].to_vec();
                self.send(Message::ToStore { from: at, payload, of: Reply::Receipt });
            }
            offer::Command::GiveUp(reason) => panic!("gave up: {reason}"),
        }
    }

    pub(crate) fn introduction(&self, at: usize) -> Signed<Introduction> {
        let introduction = Introduction {
            sender: self.holders[at].peer,
            sender_mailbox: "alice@example.com".parse().unwrap(),
            recipient: self.mailbox.clone(),
            bytes_max: 1 << 30,
            expires: self.now.wall.plus(Duration::from_mins(10)),
            number: at as u64,
        };
        Signed::sign(&introduction, &self.location).unwrap()
    }

    pub(crate) fn holder_takes(&mut self, at: usize, payload: &[u8], of: Reply) {
        let now = self.now;
        match of {
            Reply::Offer => {
                let response = decode::<Response>(payload).unwrap();
                let command = self.holders[at].machine.handle_response(&response, now);
                self.holder_does(at, command);
            }
            Reply::Get { stream, life } => {
                let Request::Get(get) = decode::<Request>(payload).unwrap() else { panic!("not a Get") };
                self.serve(at, &get, stream, life);
            }
            Reply::Receipt => {
                let Request::Receipt(receipt) = decode::<Request>(payload).unwrap() else {
                    panic!("not a receipt")
                };
                let location = self.location.public().to_peer_id();
                let releaser =
                    Releaser::attested(&self.attestation, &location, &self.mailbox, now.wall).unwrap();
                let command = self.holders[at].machine.handle_receipt(&receipt, &releaser, now).unwrap();
                self.holder_does(at, command);
            }
        }
    }

    pub(crate) fn serve(&mut self, at: usize, get: &Get, stream: StreamId, life: u32) {
        let location = self.location.public().to_peer_id();
        let holder = &mut self.holders[at];
        let Some(size) = holder.machine.admits(get, &self.store.peer, &location, self.now.wall) else {
            return self.send(Message::End { stream, end: StreamEnd::Refused, life });
        };
        assert_eq!(self.delivery.size_of(&get.blob), Some(size));
        let command = holder.machine.handle_progress(self.now);
        self.holder_does(at, command);
        if !self.holders[at].honest {
            return self.send(Message::End { stream, end: StreamEnd::Wrong, life });
        }
        if self.chaos && self.rng.random_bool(0.1) {
            let end = StreamEnd::Later(self.rng.random_range(0..10_000));
            return self.send(Message::End { stream, end, life });
        }
        for &(start, end) in &get.ranges {
            let mut from = start;
            while from < end {
                let step = self.rng.random_range(1..400) * GROUP_LEN;
                let to = (from + step).min(end);
                self.send(Message::Data { stream, range: from..to, life });
                from = to;
            }
        }
        self.send(Message::End { stream, end: StreamEnd::Over, life });
    }

    pub(crate) fn crash_holder(&mut self, at: usize) {
        let holder = &mut self.holders[at];
        let seed = self.rng.random();
        holder.machine = Offering::new(self.delivery.clone(), None, seed);
        if holder.recorded {
            holder.machine = Offering::released(self.delivery.clone());
        }
        let peer = holder.peer;
        self.store_lost(peer);
        if self.online {
            self.go_online(at);
        }
    }

    pub(crate) fn go_online(&mut self, at: usize) {
        let command = self.holders[at].machine.handle_online(self.store.peer, self.now);
        self.holder_does(at, command);
    }
}
