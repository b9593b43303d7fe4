//! What was written to a disk and comes back from it: catalog records, the location server's rows, a store's files.

use std::io;
use std::sync::{Mutex, PoisonError};

use lighter_catalog::{Change, HandOver};
use lighter_location::rows::{EnrolmentRow, Kind, Row, StoreKey, TokenRow};
use lighter_protocol::blob::{BlobHasher, GROUP_LEN, RangeSet};
use lighter_protocol::{BlobId, DeliveryId, Keypair, MessageId, UnixTime};
use lighter_store::disk::DiskFile;
use lighter_store::tree::{self, Files};
use lighter_transport::location::Scope;

use crate::Target;

/// These crates' targets.
pub const TARGETS: &[Target] = &[
    Target { name: "catalog_change", run: catalog_change, seeds: change_seeds },
    Target { name: "location_row", run: location_row, seeds: row_seeds },
    Target { name: "store_files", run: store_files, seeds: store_seeds },
];

/// A record of the catalog, as the log gives it back.
pub fn catalog_change(data: &[u8]) {
    let Ok(change) = Change::decode(data) else { return };
    let bytes = change.encode().expect("what was decoded is within its bounds");
    assert!(Change::decode(&bytes).as_ref() == Ok(&change), "not the same: {change:?}");
}

/// A row of the location server: its kind, its key with the length before it, its value.
pub fn location_row(data: &[u8]) {
    let [kind, key_len, rest @ ..] = data else { return };
    let Some((key, value)) = rest.split_at_checked(usize::from(*key_len)) else { return };
    let Some(&kind) = Kind::ALL.get(usize::from(*kind) % Kind::ALL.len()) else { return };
    let Ok(row) = Row::decode(kind, key, value) else { return };
    assert!(row.kind() == kind, "of another kind");
    let again = Row::decode(kind, &row.key().encode(), &row.encode_value());
    assert!(again.as_ref() == Ok(&row), "not the same: {row:?}");
}

/// Bytes of the blob whose files a disk damages.
const BLOB_LEN: usize = 3 * 16 * 1024 + 99;

/// A blob's two files with anything in them: what is said to verify is the blob, and nothing else is given out.
pub fn store_files(data: &[u8]) {
    let (blob, id, _) = blob();
    let (bytes, outboard) = data.split_at(data.len().min(BLOB_LEN));
    let (bytes, outboard) = (MemoryFile::new(bytes), MemoryFile::new(outboard));
    let files = Files { data: &bytes, outboard: Some(&outboard) };
    let size = blob.len() as u64;
    let verified = tree::verified(files, id, size, &RangeSet::whole(size)).expect("memory can be read");
    let held = bytes.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let place = |range: &std::ops::Range<u64>| {
        usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small")
    };
    for range in verified.iter() {
        assert!(held.get(place(&range)) == blob.get(place(&range)), "what verifies is not the blob's");
    }
    assert!(tree::is_whole(files, id, size).ok() == Some(verified.is_whole(size)));
    for start in (0..size).step_by(usize::try_from(GROUP_LEN).expect("small")) {
        let range = start..(start + GROUP_LEN).min(size);
        match tree::read(files, id, size, range.clone()) {
            Ok(read) => assert!(Some(&*read) == blob.get(place(&range)), "what is read is not the blob's"),
            Err(_) => assert!(!verified.contains(&range), "verified, and not read"),
        }
    }
}

/// A file in memory that ends where it ends.
#[derive(Debug)]
struct MemoryFile(Mutex<Vec<u8>>);

impl MemoryFile {
    fn new(bytes: &[u8]) -> Self {
        Self(Mutex::new(bytes.to_vec()))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let found = bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

// ---- seeds ----

fn change_seeds() -> Vec<Vec<u8>> {
    let (message, delivery) = (MessageId([0x11; 16]), DeliveryId([0x22; 16]));
    let at = UnixTime(1_800_000_000);
    [
        Change::Voided(message),
        Change::HandedOver { message, hand_overs: vec![HandOver::first(2), HandOver::lapsed(300)], at },
        Change::HandOverFailed { message, hand_overs: vec![HandOver::first(0)], at },
        Change::Released { delivery },
        Change::Expired { delivery, at },
        Change::TicketRevoked { delivery, generation: 1 },
    ]
    .iter()
    .map(|change| change.encode().expect("within its bounds"))
    .collect()
}

fn row_seeds() -> Vec<Vec<u8>> {
    let peer = Keypair::ed25519_from_bytes([7; 32]).expect("a key").public().to_peer_id();
    let store = StoreKey { mailbox: "alice@example.org".parse().expect("a mailbox"), peer };
    let at = UnixTime(1_800_000_000);
    let token = TokenRow {
        id: "7f".to_owned(),
        name: "relay".to_owned(),
        scopes: vec![Scope::Lookup, Scope::Relay],
        created: at,
        expires: Some(at),
        revoked: None,
    };
    [
        Row::Enrolment(store, EnrolmentRow { primary: true, enrolled: at, confirmed: at }),
        Row::Token([5; 32], token),
    ]
    .iter()
    .map(|row| {
        let kind = Kind::ALL.iter().position(|kind| *kind == row.kind()).and_then(|at| u8::try_from(at).ok());
        let key = row.key().encode();
        let head = [kind.expect("a kind"), u8::try_from(key.len()).expect("short")];
        [&head[..], &key, &row.encode_value()].concat()
    })
    .collect()
}

/// The blob, its id, its outboard.
fn blob() -> (Vec<u8>, BlobId, Vec<u8>) {
    let blob: Vec<u8> = (0..=u8::MAX).cycle().take(BLOB_LEN).collect();
    let mut hasher = BlobHasher::new();
    let pairs = hasher.push(&blob).expect("one portion").pairs.to_vec();
    (blob, hasher.finish().id(), pairs)
}

fn store_seeds() -> Vec<Vec<u8>> {
    let (blob, _, outboard) = blob();
    vec![[blob, outboard].concat()]
}
