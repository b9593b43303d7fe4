//! `lighter-protocol`: messages, statements, tickets, range sets, mailboxes.

use lighter_protocol::blob::RangeSet;
use lighter_protocol::limits::BLOB_SIZE_MAX;
use lighter_protocol::wire::{
    Answer, Decoder, DropAnswer, DropState, Get, GetBlobs, GetShared, Have, Knock, LaterReason, Meet,
    Message, NewDrop, Offer, OfferedBlob, Push, PushAnswer, PushPart, Request, Response, SealedBlob, Sources,
    Waiting, decode, encode,
};
use lighter_protocol::{
    Attestation, BlobId, DeliveryId, Introduction, Keypair, Mailbox, PeerId, Receipt, Registration,
    RelayRecord, SealingKey, Sharing, Signed, Statement, Succession, Ticket, TicketKey, UnixTime,
};
use lighter_sealing::{ContentKey, Envelope, Part, SealingSecret, Table};

use crate::Target;

/// This crate's targets.
pub const TARGETS: &[Target] = &[
    Target { name: "wire_request", run: wire_request, seeds: request_seeds },
    Target { name: "wire_response", run: wire_response, seeds: response_seeds },
    Target { name: "signed_statement", run: signed_statement, seeds: statement_seeds },
    Target { name: "ticket", run: ticket, seeds: ticket_seeds },
    Target { name: "range_set", run: range_set, seeds: range_set_seeds },
    Target { name: "mailbox", run: mailbox, seeds: mailbox_seeds },
    Target { name: "drop_envelope", run: drop_envelope, seeds: envelope_seeds },
];

/// A stream of frames with requests in them.
pub fn wire_request(data: &[u8]) {
    stream::<Request>(data);
}

/// A stream of frames with responses in them.
pub fn wire_response(data: &[u8]) {
    stream::<Response>(data);
}

/// Whatever the bytes: cut anywhere they give the same messages, and what comes out may be sent again.
fn stream<M: Message + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let whole = messages::<M>(data, data.len().max(1));
    for piece in [1, 7] {
        assert!(messages::<M>(data, piece) == whole, "the pieces' size makes a difference");
    }
    for message in whole.0 {
        assert!(message.check().is_ok(), "decoded, and breaks a bound: {message:?}");
        let frame = encode(&message).map_err(|error| format!("{error}: {message:?}"));
        let frame = frame.unwrap_or_default();
        assert!(
            decode::<M>(frame.get(4..).unwrap_or_default()).as_ref() == Ok(&message),
            "not the same: {message:?}"
        );
    }
}

/// The messages, and whether the stream ended well.
fn messages<M: Message>(data: &[u8], piece: usize) -> (Vec<M>, bool) {
    let mut decoder = Decoder::<M>::new();
    let mut messages = Vec::new();
    for mut input in data.chunks(piece) {
        loop {
            match decoder.feed(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
        }
    }
    let well = decoder.finish().is_ok();
    (messages, well)
}

/// A signed statement of each kind, as it is stored.
pub fn signed_statement(data: &[u8]) {
    statement::<Registration>(data);
    statement::<Attestation>(data);
    statement::<Introduction>(data);
    statement::<Receipt>(data);
    statement::<SealingKey>(data);
    statement::<Succession>(data);
    statement::<Sharing>(data);
}

fn statement<T: Statement>(data: &[u8]) {
    let Ok(signed) = Signed::<T>::from_bytes(data) else { return };
    assert!(signed.to_bytes() == data, "one statement, two encodings");
    let _ = signed.claim();
    if let Ok(verified) = signed.verify(&peer()) {
        assert!(verified.within_limits(), "verified, and beyond its limits");
    }
}

/// A ticket's text.
pub fn ticket(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert!(ticket.to_text() == text, "one ticket, two texts");
        assert!(ticket.hash().is_of(&ticket));
    }
}

/// A range set as a store keeps it.
pub fn range_set(data: &[u8]) {
    let Ok(set) = RangeSet::from_bytes(data) else { return };
    assert!(set.to_bytes() == data, "one set, two encodings");
    let mut end = None;
    for range in set.iter() {
        assert!(range.start < range.end && range.end <= BLOB_SIZE_MAX);
        assert!(end.is_none_or(|end| end < range.start), "ranges that are not apart");
        end = Some(range.end);
    }
    let size = end.unwrap_or(0).saturating_add(100_000).min(BLOB_SIZE_MAX);
    let mut whole = set.clone();
    for range in set.missing(size).iter() {
        whole.insert(range);
    }
    assert!(whole.is_whole(size), "what is there and what is missing are not the whole");
}

/// A drop's envelope: it opens as it was sealed, or not at all.
pub fn drop_envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::parse(data.to_vec()) else { return };
    assert!(envelope.as_bytes() == data, "one envelope, two encodings");
    if let Ok(opened) = envelope.open(&sealing_secret(), &DeliveryId([3; 16]), &bob()) {
        assert!(opened.table == table(), "opened, and not what was sealed");
    }
}

fn sealing_secret() -> SealingSecret {
    SealingSecret::derive(&[7; 32]).expect("a key")
}

fn succession() -> Succession {
    let next = Keypair::ed25519_from_bytes([9; 32]).expect("any 32 bytes are a key").public().to_peer_id();
    Succession { mailbox: bob(), former: peer(), next, time: UnixTime(1_800_000_000) }
}

fn sealing_key() -> SealingKey {
    sealing_secret().statement(bob(), peer(), UnixTime(1_800_000_000))
}

fn table() -> Table {
    let part = |number: u8, name: &str| Part {
        id: BlobId([number; 32]),
        size: 70_000,
        name: name.to_owned(),
        media_type: "application/pdf".to_owned(),
        sealed: BlobId([number + 1; 32]),
    };
    Table { sender: bob(), parts: vec![part(1, ""), part(3, "Übersicht.pdf")] }
}

fn envelope_seeds() -> Vec<Vec<u8>> {
    let key = ContentKey::generate().expect("random bytes");
    let seal = |stores: usize| {
        let stores = vec![sealing_key(); stores];
        Envelope::seal(&table(), &key, &DeliveryId([3; 16]), &bob(), &stores).expect("seals")
    };
    [1, 2, 16].map(|stores| seal(stores).as_bytes().to_vec()).to_vec()
}

/// A mailbox's text.
pub fn mailbox(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(mailbox) = text.parse::<Mailbox>() {
        assert!(
            mailbox.as_str().parse::<Mailbox>().as_ref() == Ok(&mailbox),
            "the normal form is not its own"
        );
        assert!(!mailbox.as_str().contains(['\r', '\n', '\0', '<', '>', '"', ' ']));
        assert!(format!("{}@{}", mailbox.local(), mailbox.domain()) == mailbox.as_str());
    }
}

// ---- seeds ----

fn key() -> Keypair {
    Keypair::ed25519_from_bytes([1; 32]).expect("any 32 bytes are an Ed25519 key")
}

fn peer() -> PeerId {
    key().public().to_peer_id()
}

fn signed<T: Statement>(statement: &T) -> Signed<T> {
    Signed::sign(statement, &key()).expect("a seed is within its limits")
}

fn bob() -> Mailbox {
    "bob@b.example".parse().expect("a mailbox")
}

fn registration() -> Registration {
    let addresses = vec![([192, 0, 2, 1], 4433).into(), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 4433).into()];
    Registration { mailbox: bob(), peer: peer(), addresses, sequence: 300, expires: UnixTime(1_800_000_000) }
}

fn attestation() -> Attestation {
    let relay = RelayRecord {
        peer: peer(),
        addresses: vec![([192, 0, 2, 1], 4433).into()],
        retrieval_url: "https://b.example".to_owned(),
    };
    Attestation {
        mailbox: bob(),
        peer: peer(),
        primary: true,
        relays: vec![relay],
        issued: UnixTime(1_800_000_000),
        expires: UnixTime(1_800_086_400),
    }
}

fn introduction() -> Introduction {
    Introduction {
        sender: peer(),
        sender_mailbox: bob(),
        recipient: bob(),
        bytes_max: 1 << 30,
        expires: UnixTime(1_800_000_600),
        number: 5,
    }
}

fn receipt() -> Receipt {
    Receipt {
        delivery: DeliveryId([3; 16]),
        mailbox: bob(),
        store: peer(),
        manifest: BlobId([4; 32]),
        time: UnixTime(1_800_000_000),
    }
}

fn sharing() -> Sharing {
    Sharing {
        delivery: DeliveryId([3; 16]),
        giver: bob(),
        giver_store: peer(),
        taker: "ann@b.example".parse().expect("a mailbox"),
        taker_store: Keypair::ed25519_from_bytes([2; 32]).expect("a key").public().to_peer_id(),
        expires: UnixTime(1_800_000_000),
    }
}

fn frame<M: Message>(message: &M) -> Vec<u8> {
    encode(message).expect("a seed is within its limits")
}

fn push_parts() -> Vec<PushPart> {
    let part =
        |number: u8, ranges: &[(u64, u64)]| PushPart { blob: BlobId([number; 32]), ranges: ranges.to_vec() };
    vec![part(4, &[(0, 5_000)]), part(5, &[(0, 16_384), (1 << 20, 1 << 21)])]
}

fn request_seeds() -> Vec<Vec<u8>> {
    let offered = |number: u8| OfferedBlob {
        id: BlobId([number; 32]),
        size: 25_000_000,
        name: "Übersicht.pdf".to_owned(),
        media_type: "application/pdf".to_owned(),
    };
    let offer = Offer {
        delivery: DeliveryId([3; 16]),
        mailbox: bob(),
        manifest: offered(4),
        blobs: (5..9).map(offered).collect(),
        sources: vec![peer()],
        expires: UnixTime(1_800_000_000),
        introduction: Some(signed(&introduction())),
    };
    let get = Get {
        delivery: DeliveryId([3; 16]),
        blob: BlobId([5; 32]),
        ranges: vec![(0, 16_384), (1 << 20, 1 << 21)],
        attestation: Some(signed(&attestation())),
    };
    let sealed = |number: u8| SealedBlob { id: BlobId([number; 32]), size: 70_000 };
    let new_drop = NewDrop {
        delivery: DeliveryId([3; 16]),
        recipient: bob(),
        envelope: sealed(4),
        blobs: (5..9).map(sealed).collect(),
        expires: UnixTime(1_800_000_000),
        introduction: signed(&introduction()),
    };
    let mut seeds: Vec<_> = [
        Request::Ping,
        Request::Have(Have::Delivery(DeliveryId([3; 16]))),
        Request::Have(Have::Blob(BlobId([5; 32]))),
        Request::Offer(offer.clone()),
        Request::PushOffer(offer),
        Request::Push(Push { delivery: DeliveryId([3; 16]), parts: push_parts() }),
        Request::Get(get.clone()),
        Request::GetBlobs(GetBlobs {
            delivery: DeliveryId([3; 16]),
            blobs: (5..9).map(|number| BlobId([number; 32])).collect(),
            attestation: Some(signed(&attestation())),
        }),
        Request::GetShared(GetShared { get, sharing: signed(&sharing()) }),
        Request::Sources(Sources { delivery: DeliveryId([4; 16]), sharings: vec![signed(&sharing()); 3] }),
        Request::Receipt(signed(&receipt())),
        Request::Succession(vec![signed(&succession()); 2]),
        Request::Waiting(Waiting { attestation: signed(&attestation()) }),
        Request::Drop(new_drop),
        Request::DropState(DeliveryId([3; 16])),
        Request::Meet(Meet { introduction: signed(&introduction()), store: peer() }),
        Request::Knock(Knock {
            introduction: signed(&introduction()),
            address: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 4433).into(),
        }),
        Request::Here(300),
    ]
    .iter()
    .map(frame)
    .collect();
    seeds.push(seeds.concat());
    seeds
}

fn response_seeds() -> Vec<Vec<u8>> {
    let answers = vec![Answer::Have, Answer::Pull, Answer::Later(LaterReason::Busy)];
    let mut seeds: Vec<_> = [
        Response::Pong,
        Response::Have(true),
        Response::Answer(answers.clone()),
        Response::PushAnswer(PushAnswer { answers, wanted: push_parts() }),
        Response::Pushed,
        Response::Data { size: 25_000_000 },
        Response::Released,
        Response::Waiting(7),
        Response::Refused,
        Response::Later(60),
        Response::Dropped(DropAnswer::Taken { until: UnixTime(1_800_000_000) }),
        Response::Dropped(DropAnswer::Later(LaterReason::Quota)),
        Response::DropState(DropState::Waiting),
        Response::DropState(DropState::Receipted(signed(&receipt()))),
        Response::Met(([192, 0, 2, 1], 4433).into()),
        Response::Coming,
        Response::Noted,
    ]
    .iter()
    .map(frame)
    .collect();
    seeds.push(seeds.concat());
    seeds
}

fn statement_seeds() -> Vec<Vec<u8>> {
    vec![
        signed(&registration()).to_bytes(),
        signed(&attestation()).to_bytes(),
        signed(&introduction()).to_bytes(),
        signed(&receipt()).to_bytes(),
        signed(&sealing_key()).to_bytes(),
        signed(&sharing()).to_bytes(),
    ]
}

fn ticket_seeds() -> Vec<Vec<u8>> {
    let key = TicketKey::derive(&[1; 32]);
    (0..4).map(|generation| key.ticket(&DeliveryId([3; 16]), generation).to_text().into_bytes()).collect()
}

fn range_set_seeds() -> Vec<Vec<u8>> {
    let set = |count: u64| -> RangeSet { (0..count).map(|at| at * 50_000..at * 50_000 + 16_384).collect() };
    vec![
        RangeSet::new().to_bytes(),
        RangeSet::whole(BLOB_SIZE_MAX).to_bytes(),
        set(3).to_bytes(),
        set(300).to_bytes(),
    ]
}

fn mailbox_seeds() -> Vec<Vec<u8>> {
    ["bob@b.example", "Alice.B+tag@Example.ORG", "ünal@bücher.example", "ΑΣ@d.example"]
        .map(|text| text.into())
        .to_vec()
}
