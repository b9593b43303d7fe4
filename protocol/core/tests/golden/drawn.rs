//! Messages, statements and sets with drawn contents, and one hash over their encodings.
//!
//! They are drawn from BLAKE3's output, not from a generator of `rand`, whose numbers may differ between versions.

use std::time::Duration;

use lighter_protocol::blob::RangeSet;
use lighter_protocol::wire::{
    Answer, Get, GetBlobs, GetShared, Have, Knock, LaterReason, Meet, NoReason, Offer, OfferedBlob, Request,
    Response, Sources, encode,
};
use lighter_protocol::{
    Attestation, BlobId, DeliveryId, Introduction, Mailbox, PeerId, Receipt, Registration, RelayRecord,
    Sharing, Signed, Statement, Succession, TicketKey, UnixTime,
};

use super::samples::{key, peer, waiting};

/// Draws numbers.
struct Source(blake3::OutputReader);

impl Source {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// Below `end`, small numbers and large ones alike.
    fn below(&mut self, end: u64) -> u64 {
        let [shift, ..] = self.bytes::<1>();
        (u64::from_le_bytes(self.bytes()) >> (shift % 64)) % end
    }

    fn index(&mut self, end: u64) -> usize {
        usize::try_from(self.below(end)).unwrap()
    }

    fn text(&mut self, len: u64) -> String {
        const LETTERS: [char; 8] = ['a', 'b', '7', '.', '-', 'é', '漢', '😀'];
        (0..self.below(len)).map(|_| LETTERS[self.index(8)]).collect()
    }

    fn mailbox(&mut self) -> Mailbox {
        format!("u{}@d{}.example", self.below(1 << 40), self.below(1 << 20)).parse().unwrap()
    }

    fn peer(&mut self) -> PeerId {
        peer(u8::try_from(1 + self.below(8)).unwrap())
    }

    fn signed<T: Statement>(&mut self, statement: &T) -> Signed<T> {
        Signed::sign(statement, &key(u8::try_from(1 + self.below(8)).unwrap())).unwrap()
    }

    fn many<T>(&mut self, max: u64, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max)).map(|_| one(self)).collect()
    }

    fn maybe<T>(&mut self, one: impl Fn(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 1).then(|| one(self))
    }

    fn address(&mut self) -> std::net::SocketAddr {
        let port = u16::try_from(self.below(1 << 16)).unwrap();
        if self.below(2) == 0 { (self.bytes::<4>(), port).into() } else { (self.bytes::<16>(), port).into() }
    }

    fn time(&mut self) -> UnixTime {
        UnixTime(self.below(1 << 40))
    }

    fn attestation(&mut self) -> Attestation {
        let issued = self.time();
        Attestation {
            mailbox: self.mailbox(),
            peer: self.peer(),
            primary: self.below(2) == 1,
            relays: self.many(4, |source| RelayRecord {
                peer: source.peer(),
                addresses: source.many(4, Self::address),
                retrieval_url: source.text(30),
            }),
            issued,
            expires: issued.plus(Duration::from_secs(self.below(86_400))),
        }
    }

    fn introduction(&mut self) -> Introduction {
        Introduction {
            sender: self.peer(),
            sender_mailbox: self.mailbox(),
            recipient: self.mailbox(),
            bytes_max: self.below(u64::MAX),
            expires: self.time(),
            number: self.below(u64::MAX),
        }
    }

    fn registration(&mut self) -> Registration {
        Registration {
            mailbox: self.mailbox(),
            peer: self.peer(),
            addresses: self.many(8, Self::address),
            sequence: self.below(u64::MAX),
            expires: self.time(),
        }
    }

    fn receipt(&mut self) -> Receipt {
        Receipt {
            delivery: DeliveryId(self.bytes()),
            mailbox: self.mailbox(),
            store: self.peer(),
            manifest: BlobId(self.bytes()),
            time: self.time(),
        }
    }

    fn sharing(&mut self) -> Sharing {
        Sharing {
            delivery: DeliveryId(self.bytes()),
            giver: self.mailbox(),
            giver_store: peer(1),
            taker: "u@other.example".parse().unwrap(),
            taker_store: peer(2),
            expires: self.time(),
        }
    }

    fn get(&mut self) -> Get {
        Get {
            delivery: DeliveryId(self.bytes()),
            blob: BlobId(self.bytes()),
            ranges: self.ranges().to_wire(),
            attestation: self.maybe(|source| {
                let attestation = source.attestation();
                source.signed(&attestation)
            }),
        }
    }

    fn offered(&mut self) -> OfferedBlob {
        OfferedBlob {
            id: BlobId(self.bytes()),
            size: self.below(1 << 40),
            name: self.text(50),
            media_type: self.text(30),
        }
    }

    fn ranges(&mut self) -> RangeSet {
        self.many(20, |source| (source.below(1 << 39), source.below(1 << 30)))
            .into_iter()
            .map(|(start, len)| start..start + len)
            .collect()
    }

    fn request(&mut self) -> Request {
        match self.below(13) {
            0 => Request::Ping,
            1 => Request::Have(Have::Delivery(DeliveryId(self.bytes()))),
            2 => Request::Have(Have::Blob(BlobId(self.bytes()))),
            3 => Request::Offer(Offer {
                delivery: DeliveryId(self.bytes()),
                mailbox: self.mailbox(),
                manifest: self.offered(),
                blobs: self.many(6, Self::offered),
                sources: self.many(4, Self::peer),
                expires: self.time(),
                introduction: self.maybe(|source| {
                    let introduction = source.introduction();
                    source.signed(&introduction)
                }),
            }),
            4 => Request::Get(self.get()),
            5 => {
                let receipt = self.receipt();
                Request::Receipt(self.signed(&receipt))
            }
            6 => Request::Waiting(waiting()),
            7 => {
                let introduction = self.introduction();
                Request::Meet(Meet { introduction: self.signed(&introduction), store: self.peer() })
            }
            8 => {
                let introduction = self.introduction();
                Request::Knock(Knock { introduction: self.signed(&introduction), address: self.address() })
            }
            9 => {
                let get = self.get();
                let sharing = self.sharing();
                Request::GetShared(GetShared { get, sharing: self.signed(&sharing) })
            }
            10 => {
                let first = self.sharing();
                let mut sharings = vec![self.signed(&first)];
                sharings.extend(self.many(4, |source| {
                    let sharing = source.sharing();
                    source.signed(&sharing)
                }));
                Request::Sources(Sources { delivery: DeliveryId(self.bytes()), sharings })
            }
            11 => {
                let delivery = DeliveryId(self.bytes());
                let mut blobs = vec![BlobId(self.bytes())];
                blobs.extend(self.many(20, |source| BlobId(source.bytes())));
                Request::GetBlobs(GetBlobs { delivery, blobs, attestation: self.get().attestation })
            }
            12 => {
                let mailbox = self.mailbox();
                let succession = Succession { mailbox, former: peer(1), next: peer(2), time: self.time() };
                Request::Succession(vec![self.signed(&succession)])
            }
            _ => Request::Here(self.below(u64::MAX)),
        }
    }

    fn response(&mut self) -> Response {
        match self.below(11) {
            0 => Response::Pong,
            1 => Response::Have(self.below(2) == 1),
            2 => Response::Answer(self.many(20, |source| match source.below(4) {
                0 => Answer::Have,
                1 => Answer::Pull,
                2 => Answer::Later([LaterReason::Quota, LaterReason::Busy][source.index(2)]),
                _ => Answer::No([NoReason::TooLarge, NoReason::NotAccepted][source.index(2)]),
            })),
            3 => Response::Data { size: self.below(1 << 40) },
            4 => Response::Released,
            5 => Response::Waiting(self.below(u64::MAX)),
            6 => Response::Refused,
            7 => Response::Later(u32::try_from(self.below(1 << 32)).unwrap()),
            8 => Response::Met(self.address()),
            9 => Response::Noted,
            _ => Response::Coming,
        }
    }
}

/// The hash over `rounds` of everything that has an encoding.
pub(crate) fn hash_of_encodings(rounds: u32) -> String {
    let mut source = Source(blake3::Hasher::new_derive_key("lighter golden 1").finalize_xof());
    let mut hasher = blake3::Hasher::new();
    for _ in 0..rounds {
        hasher.update(&encode(&source.request()).unwrap());
        hasher.update(&encode(&source.response()).unwrap());
        let (registration, attestation) = (source.registration(), source.attestation());
        hasher.update(&source.signed(&registration).to_bytes());
        hasher.update(&source.signed(&attestation).to_bytes());
        let (introduction, receipt) = (source.introduction(), source.receipt());
        hasher.update(&source.signed(&introduction).to_bytes());
        hasher.update(&source.signed(&receipt).to_bytes());
        hasher.update(&source.ranges().to_bytes());
        let ticket = TicketKey::derive(&source.bytes()).ticket(&DeliveryId(source.bytes()), 3);
        hasher.update(ticket.to_text().as_bytes());
        hasher.update(&ticket.hash().0);
    }
    hasher.finalize().to_hex().to_string()
}
