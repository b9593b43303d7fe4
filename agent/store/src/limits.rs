//! Every bound of the store, with its unit and where it comes from; relations are asserted at compile time.

use lighter_protocol::blob::GROUP_LEN;

/// Bytes written to a partial blob after which a checkpoint is due: what a power failure can cost a pull (a killed
/// process costs it nothing). Each checkpoint is four syncs, of data, outboard and index, beside the writing: more often,
/// and they hold up a fast pull (docs/performance.md).
pub const CHECKPOINT_LEN: u64 = 32 * 1024 * 1024;

/// Bytes in a blob; larger files are not mail.
pub const BLOB_SIZE_MAX: u64 = lighter_protocol::limits::BLOB_SIZE_MAX;
/// Bytes in a manifest: it holds a message's text and every part that stayed. It is taken outside quota, so it has a
/// bound of its own.
pub const MANIFEST_SIZE_MAX: u64 = 256 * 1024 * 1024;
/// Bytes that stay free on the disk: the index must be able to record what was taken in, and the user's machine to go
/// on working.
pub const DISK_RESERVE: u64 = 64 * 1024 * 1024;

/// Deliveries on record, incoming and outgoing each: a bound on what a stranger can make the index grow to.
pub const DELIVERIES_MAX: u64 = 1_000_000;

/// Deliveries with the same blob that are looked through to see whose it is: beyond, it is pulled again, at worst.
pub const SHARERS_MAX: usize = 1_000;

/// Recipients of one message that are looked at to see who may read from whom: more are never asked.
pub const SHOWN_MAX: usize = 1_000;
/// Statements of who else has what is being pulled, on record for all deliveries together, each of up to 1 KiB: more are not
/// kept, and lost when the process ends.
pub const SHARINGS_KEPT_MAX: u64 = 16_384;

/// Files that are synced at a time, where several are to be durable.
pub const SYNCS_MAX: usize = 8;
/// Bytes of small blobs in a file, after which the next one is begun: what is synced together.
pub const PACK_LEN_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of the index kept in memory (redb's default is 1 GiB; an idle agent has 40 MiB in all, DESIGN §11).
pub const INDEX_CACHE_LEN: usize = 4 * 1024 * 1024;
/// Bytes read or copied at a time where a whole file is gone through.
pub const COPY_LEN: usize = 256 * 1024;

const _: () = assert!(CHECKPOINT_LEN.is_multiple_of(GROUP_LEN));
const _: () = assert!((COPY_LEN as u64).is_multiple_of(GROUP_LEN));
const _: () = assert!(MANIFEST_SIZE_MAX < BLOB_SIZE_MAX);
