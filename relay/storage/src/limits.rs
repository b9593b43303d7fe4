//! Every bound of the storage array, with its unit and where it comes from; relations are asserted at compile time.

use std::time::Duration;

use lighter_protocol::blob::PORTION_LEN;

use crate::ids::GRACE_DAYS;

/// Bytes of plaintext in one frame of the cipher (DESIGN §8).
pub const FRAME_LEN: usize = 64 * 1024;
/// Bytes that AES-256-GCM adds to each frame.
pub const TAG_LEN: usize = 16;
/// Bytes of a nonce of AES-256-GCM.
pub const NONCE_LEN: usize = 12;
/// Bytes of each key.
pub const KEY_LEN: usize = 32;

/// Bytes of a blob that the array takes: 16 GiB. The chaining values of its portions fit into one record then.
pub const STORED_BLOB_SIZE_MAX: u64 = 16 << 30;
/// Portions of the largest blob.
pub const BLOB_PORTIONS_MAX: u64 = STORED_BLOB_SIZE_MAX / PORTION_LEN;
/// Frames that one record of a blob may have: those of a portion, one for its pairs, and those of the blob's end.
pub const RECORD_FRAMES_MAX: u32 = 32;
/// Bytes of one catalog record's plaintext. The longest names up to a thousand attachments.
pub const CATALOG_RECORD_LEN_MAX: usize = 1024 * 1024;

/// Bytes of a record's payload: a whole portion with its pairs and the largest blob's end.
pub const PAYLOAD_LEN_MAX: usize = 1792 * 1024;
/// Bytes of a whole record: header, payload, checksum, padding.
pub const RECORD_LEN_MAX: usize = PAYLOAD_LEN_MAX + 128;
/// Bytes of a buffer that is kept to be used again: a record with a whole portion fits, with the end of all but the largest blobs.
pub const BUFFER_LEN: usize = 1024 * 1024 + 64 * 1024;
/// What is shorter is taken from the system: it does not clear whole pages for it.
pub const BUFFER_LEN_MIN: usize = 64 * 1024;
/// Buffers that are kept while nobody has them: 34 MiB, if so many were ever in use at once.
pub const BUFFERS_FREE_MAX: usize = 32;
/// Bytes on their way in each direction of a connection within the process: what a socket holds, roughly.
pub const LOCAL_PIPE_LEN: usize = 256 * 1024;
/// Connections from within the process that a server has not taken yet.
pub const LOCAL_ARRIVALS_MAX: usize = 16;
/// Records and padding begin at multiples of this.
pub const RECORD_ALIGN: usize = 16;

/// Bytes of a segment, its header and records; the footer comes on top (DESIGN §8).
pub const SEGMENT_LEN_MAX: u64 = 1 << 30;
/// Records of a segment: bounds the footer's index and what sealing holds in memory.
pub const SEGMENT_RECORDS_MAX: u64 = 1 << 20;
/// Bytes of a segment's header block: one page, written in one piece.
pub const SEGMENT_HEADER_LEN: usize = 4096;
/// Members that hold a segment's copies.
pub const MEMBERS_MAX: usize = 8;
/// Segments that a later one's header closes: what fits into its block. Each failure of a member closes one for each
/// class that was being written, and it counts until its copies are mended.
pub const CLOSED_MAX: usize = 100;
/// Segments of one unit: 1 PiB of full ones; bounds what a server keeps in memory about them.
pub const UNIT_SEGMENTS_MAX: usize = 1 << 20;
/// Bytes of a footer: 24 for each catalog record of a segment that has nothing else.
pub const FOOTER_LEN_MAX: usize = 32 * 1024 * 1024;
/// Damaged stretches of one segment that are told apart; beyond, the rest of the file counts as one.
pub const DAMAGED_MAX: usize = 256;

/// Bytes that a group commit gathers before it writes (DESIGN §8).
pub const GROUP_LEN_MAX: usize = 4 * 1024 * 1024;
/// How long a group commit gathers while more keeps coming (DESIGN §8).
pub const GROUP_TIME_MAX: Duration = Duration::from_millis(2);
/// Zeros written ahead of small appends, so that their sync need not change the file's length: a third of the cost
/// (FINDINGS, storage).
pub const FILL_LEN: u64 = 4 * 1024 * 1024;
/// Groups of at least this much are written without zeros first: their sync is a small part of their cost, and zeros
/// would double the bytes.
pub const FILL_BELOW_LEN: usize = 512 * 1024;
/// Bytes of a sealed segment's file.
pub const SEALED_LEN_MAX: u64 = SEGMENT_LEN_MAX + FOOTER_LEN_MAX as u64;
/// Bytes that one request copies from another server: 64 MiB, synced at its end. It bounds what a break costs, and how
/// finely the writer paces.
pub const RECEIVE_LEN_MAX: u32 = 64 * 1024 * 1024;
/// Bytes that are asked of a copy's source at a time.
pub const RECEIVE_PIECE_LEN: u32 = 1024 * 1024;
/// Pieces on their way from a copy's source: enough to keep a line of 100 ms and 300 Mbit busy.
pub const RECEIVE_AHEAD: usize = 4;
/// Requests that copy to one server at once; further ones wait. Bounds its memory for them to 16 MiB.
pub const RECEIVES_MAX: usize = 4;
/// Copies that a unit has begun and not yet adopted; where more come, the one that was touched longest ago goes.
pub const PARTIALS_MAX: usize = 64;
/// A begun copy that nobody goes on with for this long is removed: its writer begins anew.
pub const PARTIAL_IDLE_MAX: Duration = Duration::from_secs(3600);
/// Of a unit's disk, one part in so many is kept free for appends: copies are refused before.
pub const RESERVE_SHARE: u64 = 16;
/// Bytes that are kept free for appends at most: four full segments, one of each class.
pub const RESERVE_MAX: u64 = 4 * SEGMENT_LEN_MAX;
/// Peers that are allowed to read a segment at once on one server: more than any writer rebuilds at a time.
pub const GUESTS_MAX: usize = 4096;
/// How long a peer may read a segment after its writer said so. Each time it says so begins anew.
pub const GUEST_TIME: Duration = Duration::from_secs(600);
/// Commands that wait for a unit before their senders do.
pub const UNIT_QUEUE_MAX: usize = 256;

/// Bytes of a frame's message on the storage protocol, its data left out.
pub const MESSAGE_LEN_MAX: usize = 256 * 1024;
/// Bytes of a frame's data: one group.
pub const DATA_LEN_MAX: usize = GROUP_LEN_MAX;
/// Requests of one connection that a server works on at once.
pub const CONNECTION_REQUESTS_MAX: usize = 64;
/// Bytes of data that one connection may have waiting in a server.
pub const CONNECTION_DATA_MAX: usize = 16 * 1024 * 1024;
/// Connections of one server, all peers together: a few relays and servers with two each.
pub const CONNECTIONS_MAX: usize = 256;
/// Connections of one server whose peer has not yet shown that it may be there.
pub const NEWCOMERS_MAX: usize = 256;
/// Bytes that must be free on a unit for it to be given a new segment: a few groups, so that it gets to write some.
pub const UNIT_FREE_MIN: u64 = 4 * GROUP_LEN_MAX as u64;
/// Servers of one array.
pub const SERVERS_MAX: usize = 1024;
/// Units of one server.
pub const UNITS_MAX: usize = 256;
/// Bytes of the name of a machine, a disk or a network path.
pub const LABEL_LEN_MAX: usize = 64;
/// Groups of servers: a second one takes over where the first does not take a write, and so on.
pub const GROUPS_MAX: u8 = 8;
/// Relays and places named in the mirroring table, all together.
pub const MIRRORS_MAX: usize = 4096;
/// Names that copies may share.
pub const ALLOWED_MAX: usize = 256;
/// A stretch that is given back when a segment is thinned has at least so many bytes.
pub const HOLE_LEN_MIN: u32 = 64 * 1024;
/// Stretches of a segment that were given back.
pub const HOLES_MAX: usize = 16 * 1024;
/// Days that have begun since a segment's storage day before it may be thinned: what messages on their way in have stored is
/// referred to by nothing yet, and whatever was begun in it was ended a day ago at least.
pub const THIN_AGE_DAYS: u32 = 2;
/// Other relays that may read what one stores.
pub const READERS_MAX: usize = 64;
/// Segments of other relays of which a relay remembers where they are: those read last.
pub const FELLOW_SEGMENTS_MAX: usize = 16 * 1024;
/// How often the records of one segment may have been closed off and gone on in another.
pub const SUCCESSORS_MAX: usize = 32;
/// Servers remembered after they went.
pub const GONE_MAX: usize = 1024;
/// Bytes of an encoded table.
pub const TABLE_LEN_MAX: usize = 1024 * 1024;
/// Looks at a candidate that a search for members may take: it ends in a few milliseconds, whatever servers share.
pub const PLACING_LOOKS_MAX: usize = 1 << 22;
/// Segments in one page of a list; units in one hello.
pub const PAGE_MAX: usize = 512;
/// Entries in one page of a segment's index.
pub const INDEX_PAGE_MAX: usize = 8192;

/// A connection says who it is within this time.
pub const HELLO_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection on which no frame arrives whole for this long is closed; a client pings in a third of it.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// An answer that does not come within this time is an error. An append's has a time of its own (`ArrayConfig`).
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// A server that was taken in and goes before this time has failed once more: it is taken in again after a pause.
pub const LIVE_TIME_STEADY: Duration = Duration::from_secs(5);
/// Sealing and adopting read the segment once: its own, longer time.
pub const SEAL_TIME_MAX: Duration = Duration::from_secs(120);
/// Receiving fetches up to 64 MiB and syncs them, perhaps behind others.
pub const RECEIVE_TIME_MAX: Duration = Duration::from_secs(120);

/// Bytes that one class's writer holds, sealed and not yet acknowledged: bounds a relay's memory.
pub const LANE_DATA_MAX: usize = 12 * 1024 * 1024;
/// Groups of one class that are on their way at once.
pub const LANE_GROUPS_MAX: usize = 8;
/// Groups of one class that are on their way at once where some members are not waited for: a mirror that hesitates for a
/// moment delays nobody.
pub const LANE_GROUPS_BEHIND_MAX: usize = 32;
/// Portions that reading a blob fetches ahead.
pub const READ_AHEAD: usize = 3;
/// A read is not asked of a second copy sooner than this: what a disk's hiccup takes.
pub const HEDGE_DELAY_MIN: Duration = Duration::from_millis(20);
/// A read that has no answer after this is asked of the next copy as well, however slow its server usually is.
pub const HEDGE_DELAY_MAX: Duration = Duration::from_millis(500);
/// The same for a server of which too little is known.
pub const HEDGE_DELAY_UNKNOWN: Duration = Duration::from_millis(100);
/// Reads of a server whose times are remembered.
pub const HEDGE_SAMPLES: usize = 64;
/// Reads from which on a server's times tell something.
pub const HEDGE_SAMPLES_MIN: usize = 8;
/// One read in so many may be asked of a second copy while nothing is known to lag: a tenth more load at most.
pub const HEDGE_READS: u32 = 10;
/// Hedges that may come at once: a server that hangs is found out by the first of them.
pub const HEDGE_BURST: u32 = 8;
/// Pause between two probes of a server that is asked last.
pub const PROBE_PAUSE: Duration = Duration::from_millis(250);
/// Catalog records that a replay fetches ahead.
pub const REPLAY_AHEAD: usize = 64;

/// A clock that differs by more than this from what it should be is in doubt: nothing expires (DESIGN §3 rule 9).
pub const CLOCK_DOUBT: Duration = Duration::from_secs(3600);
/// A server that starts further ahead than this of the last time it believed waits before anything expires: as long as the
/// grace that each deletion day has, so that a clock ahead by less takes nothing whose retention was promised.
pub const CLOCK_LEAP: Duration = Duration::from_secs(86_400 * GRACE_DAYS as u64);
/// So long: in it, time servers set a clock right, and the relay says what it takes the time for.
pub const CLOCK_PROBATION: Duration = Duration::from_secs(3600);
/// How often a server looks for what expired.
pub const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);

/// Bytes that a scrub reads at a time: small beside a group, so that an append hardly waits for it.
pub const SCRUB_PIECE_LEN: usize = 256 * 1024;
/// Days within which a unit re-reads what it has, where nothing else is set.
pub const SCRUB_DAYS_DEFAULT: u32 = 30;
/// Bytes per second at least that a scrub reads, so that a small unit is soon done.
pub const SCRUB_RATE_MIN: u64 = 1024 * 1024;
/// Bytes per second at most, also where a unit was away for most of a round: a share of the slowest disk in use.
pub const SCRUB_RATE_MAX: u64 = 64 * 1024 * 1024;
/// How long one read of a scrub waits at most while appends do.
pub const SCRUB_YIELD_MAX: Duration = Duration::from_secs(1);
/// How often a scrub writes down how far it is: what is read in vain after a restart.
pub const SCRUB_STORE_INTERVAL: Duration = Duration::from_secs(60);
/// How often a unit that has nothing to scrub looks again.
pub const SCRUB_IDLE: Duration = Duration::from_secs(600);
/// Damaged segments that a unit remembers over a restart; more are found again by the next round.
pub const DAMAGED_SEGMENTS_MAX: usize = 4096;
/// Syncs whose times a unit keeps in mind.
pub const SYNC_TIMES: usize = 128;

/// Bytes of one part of an upload to an object store: above the 5 MiB that S3 asks for, and few enough to be held. The
/// longest segment has 128 of them, of the 10,000 that S3 takes.
pub const OBJECT_PART_LEN: usize = 8 * 1024 * 1024;
/// Bytes that are read of an object at a time where all of it is read: 128 requests for the longest segment.
pub const OBJECT_PIECE_LEN: usize = 8 * 1024 * 1024;
/// Reads of an object store at once, for one server: 16 of a record each, or of 8 MiB while objects are verified.
pub const OBJECT_READS_MAX: usize = 16;
/// A read that an object store does not answer within this time is refused, so that another copy is read. Below what a
/// relay waits for a read.
pub const OBJECT_READ_TIME_MAX: Duration = Duration::from_secs(8);
/// How long reads are refused at once after one found the store away.
pub const OBJECT_AWAY_PAUSE: Duration = Duration::from_secs(1);
/// Anything else that an object store is asked: a part of 8 MiB at 2 Mbit/s.
pub const OBJECT_WRITE_TIME_MAX: Duration = Duration::from_secs(40);
/// A connection to an object store is there within this time.
pub const OBJECT_CONNECT_TIME_MAX: Duration = Duration::from_secs(4);
/// Bytes of the name that a store gives an upload: AWS's have about 130.
pub const UPLOAD_NAME_LEN_MAX: usize = 4096;
/// How often a server looks for segments to move, and for objects to remove.
pub const MOVE_INTERVAL: Duration = Duration::from_secs(60);
/// How long a server waits after an object store failed, at most: it begins with a second and doubles.
pub const MOVE_PAUSE_MAX: Duration = Duration::from_secs(600);
/// A segment that has less than this to live is not moved any more.
pub const MOVE_LIFE_MIN: Duration = Duration::from_secs(86_400);
/// How often a server compares what a store lists with what it has there.
pub const ORPHAN_INTERVAL: Duration = Duration::from_secs(86_400);
/// Bytes per second at most that a scrub reads of objects: a quarter of what it reads of a disk, since each byte may cost.
pub const OBJECT_SCRUB_RATE_MAX: u64 = 16 * 1024 * 1024;
/// Days that must have gone by since a segment's storage day before it is moved, where nothing else is set.
pub const MOVE_AFTER_DAYS_DEFAULT: u32 = 1;

/// The largest record of a blob: head, a portion in frames, its pairs, the end in frames (`sealing`).
const PORTION_PAYLOAD_MAX: usize = 80
    + PORTION_BYTES
    + PORTION_BYTES.div_ceil(FRAME_LEN) * TAG_LEN
    + 63 * 64
    + TAG_LEN
    + END_BYTES
    + (END_BYTES / FRAME_LEN + 1) * TAG_LEN;
#[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
const PORTION_BYTES: usize = PORTION_LEN as usize;
#[expect(clippy::cast_possible_truncation, reason = "16 Ki portions of 32 bytes")]
const END_BYTES: usize = 64 + BLOB_PORTIONS_MAX as usize * 32;

const _: () = assert!(PORTION_PAYLOAD_MAX <= PAYLOAD_LEN_MAX);
const _: () = assert!(PORTION_BYTES / FRAME_LEN + 2 + END_BYTES / FRAME_LEN < RECORD_FRAMES_MAX as usize);
const _: () = assert!(CATALOG_RECORD_LEN_MAX + 4096 <= PAYLOAD_LEN_MAX);
const _: () = assert!(PAYLOAD_LEN_MAX + 64 + 4 + RECORD_ALIGN <= RECORD_LEN_MAX);
const _: () = assert!(HEDGE_SAMPLES_MIN <= HEDGE_SAMPLES);
const _: () = assert!(HEDGE_DELAY_MIN.as_millis() <= HEDGE_DELAY_UNKNOWN.as_millis());
const _: () = assert!(HEDGE_DELAY_UNKNOWN.as_millis() <= HEDGE_DELAY_MAX.as_millis());
const _: () = assert!(RECORD_LEN_MAX <= GROUP_LEN_MAX);
/// The encodings of a server, an entry of the mirroring table, a name and a server that is gone, rounded up.
const TABLE_PARTS_MAX: usize = SERVERS_MAX * (64 + 32 + 3 * (LABEL_LEN_MAX + 2) + 8)
    + MIRRORS_MAX * 96
    + ALLOWED_MAX * (LABEL_LEN_MAX + 8)
    + READERS_MAX * 64
    + GONE_MAX * 64;
const _: () = assert!(TABLE_PARTS_MAX + 64 <= TABLE_LEN_MAX);
const _: () = assert!(TABLE_LEN_MAX <= DATA_LEN_MAX);
const _: () = assert!(RECEIVE_PIECE_LEN as usize <= GROUP_LEN_MAX && RECEIVE_PIECE_LEN <= RECEIVE_LEN_MAX);
const _: () = assert!(SCRUB_RATE_MIN <= SCRUB_RATE_MAX);
const _: () = assert!(GROUP_LEN_MAX * 2 <= CONNECTION_DATA_MAX);
const _: () = assert!(RECORD_LEN_MAX * 2 <= LANE_DATA_MAX);
const _: () = assert!(SEGMENT_RECORDS_MAX * 24 + 4096 <= FOOTER_LEN_MAX as u64);
const _: () =
    assert!(RECORD_LEN_MAX <= OBJECT_PART_LEN && SEGMENT_LEN_MAX / OBJECT_PART_LEN as u64 <= 10_000);
const _: () = assert!(OBJECT_PART_LEN >= 5 * 1024 * 1024);
const _: () = assert!(OBJECT_READ_TIME_MAX.as_secs() < ANSWER_TIME_MAX.as_secs());
const _: () = assert!(OBJECT_PIECE_LEN.is_multiple_of(RECORD_ALIGN));
