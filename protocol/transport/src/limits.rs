//! Every bound of the transport, with its unit and where it comes from; relations are asserted at compile time.
//!
//! What one connection may hold in memory does not depend on what flows through it; what all of them may hold is
//! [`CONNECTIONS_MEMORY_MAX`].

use std::time::Duration;

use lighter_protocol::blob::{GROUP_LEN, PORTION_LEN};
use lighter_protocol::limits::{GET_RANGES_MAX, WIRE_MESSAGE_LEN_MAX};

/// Bytes in a key file: `lighter-key-1 `, 64 hexadecimal digits, a line end, and room for an editor's blanks.
pub const KEY_FILE_LEN_MAX: u64 = 256;

/// From the first byte to the end of a TLS handshake on TCP. A handshake is three flights: this allows for a second of
/// round trip, two lost packets and a loaded machine.
pub const TLS_HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Until a TCP connection stands: three SYNs (1 s, 2 s, 4 s) and some.
pub const TCP_CONNECT_TIME_MAX: Duration = Duration::from_secs(8);
/// Bytes that are read from a TCP socket at once, beneath TLS: a few of its records, of 16 KiB at most (RFC 8446 §5.1).
pub const TLS_READ_LEN: usize = 64 * 1024;

/// Connections that an endpoint has accepted and holds.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Of those, connections of one peer. A program that died and came back leaves one behind until it has been idle long
/// enough; a few such restarts must not lock it out.
pub const CONNECTIONS_PER_PEER_MAX: usize = 8;
/// Of those, connections and handshakes from one network (an IPv4 address, an IPv6 /64): the stores of an office behind
/// one address are that many.
pub const CONNECTIONS_PER_NETWORK_MAX: usize = 1_024;
/// Handshakes under way. Above half of it, whoever knocks proves its address first (RFC 9000 §8.1.2).
pub const HANDSHAKES_MAX: usize = 512;
/// New connections from one network at once, …
pub const NEW_CONNECTIONS_BURST: u32 = 256;
/// … and then one each time that this has passed.
pub const NEW_CONNECTION_INTERVAL: Duration = Duration::from_millis(50);
/// Networks that are remembered for the rate.
pub const NETWORKS_MAX: usize = 32_768;
/// Open connections that wait for the program to take them over.
pub const ACCEPTED_QUEUE_MAX: usize = 64;
/// From the first packet until a new connection is open: handshake, Ping, Pong.
pub const OPEN_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes kept for each connection attempt, and for all, before it is decided whether to let it in.
pub const INCOMING_BUFFER_LEN: u64 = 16 * 1024;
/// See [`INCOMING_BUFFER_LEN`].
pub const INCOMING_BUFFERS_LEN: u64 = HANDSHAKES_MAX as u64 * INCOMING_BUFFER_LEN;

/// Addresses of one peer that are tried.
pub const ADDRESSES_TRIED_MAX: usize = lighter_protocol::limits::ADDRESSES_MAX;
/// How long one address is given before the next is tried beside it (RFC 8305 §5 recommends 250 ms).
pub const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);

/// What is taken for the round-trip time until it is known, where a hole is opened: a first packet is repeated after three
/// times as long (RFC 9002 §6.2.2), then after twice as long each time: six of them in three seconds.
pub const HOLE_INITIAL_RTT: Duration = Duration::from_millis(33);

/// Requests to meet a store that one sender may make of a helper at once: it may try several times in a row, …
pub const MEETS_BURST: u32 = 8;
/// … and then one each time that this has passed.
pub const MEETS_INTERVAL: Duration = Duration::from_secs(4);
/// The same for all senders together: an office that comes online sends at once, …
pub const ALL_MEETS_BURST: u32 = 512;
/// … and then 100 a second: each is three small messages.
pub const ALL_MEETS_INTERVAL: Duration = Duration::from_millis(10);
/// Senders that are remembered for the rate.
pub const MEETERS_MAX: usize = 16_384;
/// Stores that are knocked at and have not answered yet.
pub const KNOCKS_AT_ONCE_MAX: usize = 256;
/// How long a store may take to answer a knock: it looks nothing up.
pub const KNOCK_ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Silence after which a connection counts as dead. More than two keep-alives.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a sign of life is sent. It also holds the NAT's mapping, which many drop after 30 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(22);
/// How long a clean stop waits for the peers to hear of it.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(3);

/// Requests of one peer that are open at once on a connection: streams.
pub const STREAMS_MAX: u32 = 32;
/// Bytes that one stream may have under way. quinn ends a connection one of whose streams has more than 1,024 gaps:
/// above 2 MiB, a lossy line gets there.
pub const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes that may be under way on a connection that pulls: enough for 640 Mbit/s at 100 ms.
pub const PULL_WINDOW: u32 = 8 * 1024 * 1024;
/// Bytes that may be under way on a connection that does not pull: requests.
pub const CONNECTION_WINDOW: u32 = 128 * 1024;
/// Bytes that wait on a connection to be sent or to be acknowledged.
pub const SEND_WINDOW: u64 = 8 * 1024 * 1024;
/// The largest UDP payload. With GSO, ten packets are handed over at once: they must stay under 64 KiB. (Over 6,500 and
/// with ten, quinn falls back to 1,200 bytes.)
pub const DATAGRAM_LEN_MAX: u16 = 6_500;
/// The largest UDP payload on a path that may lead over the internet: an Ethernet frame less IPv6 and UDP headers.
pub const DATAGRAM_LEN_INTERNET_MAX: u16 = 1_452;
/// The shortest round trip of a line on which losses are looked into: on shorter ways Cubic is back before anybody notices, and what
/// is lost within a machine (a full socket buffer) shows no queue.
pub const LOSSY_RTT_MIN: Duration = Duration::from_millis(5);
/// Bytes under way on a line that loses without being full, at least: QUIC's initial window (RFC 9002 §7.2), …
pub const LOSSY_WINDOW_MIN: u64 = 12_000;
/// … and at most: what may wait to be acknowledged anyway.
pub const LOSSY_WINDOW_MAX: u64 = SEND_WINDOW;
/// What is asked of the system for a socket's buffers; it may give less.
pub const SOCKET_BUFFER_LEN: usize = 2 * 1024 * 1024;

/// From opening a stream until a request has been read whole.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// From asking until the whole answer is here. Answers wait for disks that sync and re-read.
pub const RESPONSE_TIME_MAX: Duration = Duration::from_secs(60);
/// Malformed requests after which a connection is closed: one may be a newer version's, many are noise.
pub const MALFORMED_REQUESTS_MAX: u32 = 16;
/// Bytes of a message that are read without asking. Longer ones (offers) take turns.
pub const SMALL_REQUEST_LEN: usize = 4 * 1024;
/// How many longer messages are being read at once, over all connections of an endpoint.
pub const LARGE_REQUESTS_MAX: usize = 64;

/// Streams of one pull: more throughput than one, and fewer gaps in each.
pub const PULL_STREAMS_MAX: usize = 4;
/// Bytes that are worth a stream of their own.
pub const PULL_STREAM_LEN_MIN: u64 = 4 * 1024 * 1024;
/// Pushes that are open on one connection in each direction: half of its streams, so that requests find one.
pub const PUSHES_PER_CONNECTION_MAX: usize = STREAMS_MAX as usize / 2;
/// Time without a single byte after which a push is given up, and its bytes are asked for: that costs less than waiting.
pub const PUSH_SILENCE_MAX: Duration = Duration::from_secs(15);
/// From the last byte of a push until the other side has said that all of it came: what is on its way may take long on
/// a slow line, and nothing waits for it but the next push.
pub const PUSHED_TIME_MAX: Duration = lighter_protocol::limits::PULL_IDLE_MAX;
/// Verified bytes that are handed on at once, the last piece excepted.
pub const PIECE_LEN: usize = 1024 * 1024;
/// Bytes of small blobs that are handed on at once, where so many have come.
pub const SMALL_BATCH_LEN: usize = 256 * 1024;
/// Bytes gathered before they are given to a stream that sends.
pub const SEND_BATCH_LEN: usize = 128 * 1024;
/// Bytes read from a file at once for sending.
pub const READ_AHEAD_LEN: usize = 1024 * 1024;
/// Bytes read from an outboard file at once for sending: the pairs of 16 MiB.
pub const OUTBOARD_READ_AHEAD_LEN: usize = 64 * 1024;
/// Time without a single byte after which the other side of a transfer is given up.
pub const SILENCE_TIME_MAX: Duration = Duration::from_secs(30);
/// Silence of a peer that is waited for after which it is asked whether it is there at all: one that has gone without a
/// word is noticed so, long before its time is up.
pub const SILENCE_PROBE_TIME: Duration = Duration::from_secs(2);
/// Each time that this long was spent waiting for the other side …
pub const PROGRESS_TIME: Duration = Duration::from_secs(60);
/// … this many bytes must have moved in the meantime: 1 KiB/s, a seventh of a modem.
pub const PROGRESS_LEN_MIN: u64 = 60 * 1024;

/// The largest of QUIC's datagrams in a byte stream: four times an Ethernet frame's, for fewer of them. quinn sets aside
/// 32 of these for each tunnel (and touches what comes in).
pub const TUNNEL_DATAGRAM_LEN_MAX: u16 = 4_096;
/// Datagrams that are handed over at once.
pub const TUNNEL_SEGMENTS: usize = 8;
/// Bytes of datagrams that wait on this side until the byte stream takes them; then QUIC waits.
pub const TUNNEL_SEND_LEN: usize = 64 * 1024;
/// Bytes of datagrams that have come and that QUIC has not taken; then the byte stream waits. Each counts
/// [`TUNNEL_DATAGRAM_COST`] more than its length.
pub const TUNNEL_RECEIVE_LEN: usize = 64 * 1024;
/// What a datagram costs in memory besides its bytes.
pub const TUNNEL_DATAGRAM_COST: usize = 64;
/// Bytes that are read from a byte stream at once.
pub const TUNNEL_READ_LEN: usize = 32 * 1024;
/// Bytes that are written to a byte stream at once: a TLS record (RFC 8446 §5.1), and a WebSocket message.
pub const TUNNEL_WRITE_LEN: usize = 16 * 1024;
/// Bytes that the system may hold of a TCP connection that it has not sent yet: what is said later waits behind them.
pub const TUNNEL_UNSENT_LEN: u32 = 128 * 1024;
/// Tunnels that an endpoint has accepted and holds, besides what [`CONNECTIONS_MAX`] allows.
pub const TUNNELS_MAX: usize = 1_024;
/// Bytes that one tunnel holds, at worst: quinn's 32 datagrams, both queues, what is read and written, TLS' input.
pub const TUNNEL_MEMORY_MAX: u64 = 32 * TUNNEL_DATAGRAM_LEN_MAX as u64
    + (TUNNEL_SEND_LEN + TUNNEL_SEGMENTS * TUNNEL_DATAGRAM_LEN_MAX as usize) as u64
    + (TUNNEL_RECEIVE_LEN + 2 * TUNNEL_READ_LEN) as u64
    + (TLS_READ_LEN + 4 * TUNNEL_WRITE_LEN) as u64;
/// How much longer than at its best a round trip may take before a sender in a tunnel holds back: what waits for the line
/// waits on this side then, not in the queues of the system and of routers, where a ping would wait behind it.
pub const TUNNEL_DELAY_MAX: Duration = Duration::from_millis(100);
/// Bytes under way in a tunnel to begin with, at least, …
pub const TUNNEL_WINDOW_MIN: u64 = 128 * 1024;
/// … and at most: what may wait to be acknowledged anyway.
pub const TUNNEL_WINDOW_MAX: u64 = SEND_WINDOW;
/// How long the best round trip counts; then it is measured anew. The way through the network may have changed.
pub const TUNNEL_BEST_RTT_TIME: Duration = Duration::from_secs(60);
/// After accept(2) failed (too many open files), wait so long before the next.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a WebSocket message or frame.
pub const WEBSOCKET_MESSAGE_LEN_MAX: usize = 64 * 1024;
/// Bytes that wait in a WebSocket to be written, beyond one message: answers to pings.
pub const WEBSOCKET_WRITE_LEN_MAX: usize = 256 * 1024;
/// From the first SYN to the upgrade, through a proxy and with TLS.
pub const WEBSOCKET_CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// Addresses of one web server that are tried.
pub const WEB_ADDRESSES_TRIED_MAX: usize = 4;

/// Bytes that all accepted connections together hold for requests, at worst: each its window and its small requests,
/// besides the large ones that take turns. Pulls and answers to `Get` come on top; the program bounds their number.
pub const CONNECTIONS_MEMORY_MAX: u64 = CONNECTIONS_MAX as u64
    * (CONNECTION_WINDOW as u64 + STREAMS_MAX as u64 * SMALL_REQUEST_LEN as u64)
    + LARGE_REQUESTS_MAX as u64 * WIRE_MESSAGE_LEN_MAX as u64
    + TUNNELS_MAX as u64 * TUNNEL_MEMORY_MAX;
/// Bytes that one pull holds, at worst: the window, and two pieces for each of its streams.
pub const PULL_MEMORY_MAX: u64 = PULL_WINDOW as u64 + (PULL_STREAMS_MAX * 2 * PIECE_LEN) as u64;

/// Turns that a limited line gives in a second: transfers alternate that often, and ask for that much at a time.
pub const TURNS_PER_SECOND: u64 = 8;
/// Bytes of a turn at least: a group, which is the least that can be verified.
pub const TURN_LEN_MIN: u64 = GROUP_LEN;
/// Bytes of a turn at most: what a pull that is paused has still to take.
pub const TURN_LEN_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of a turn where there is no limit: a limit that is set meanwhile holds from the next turn on.
pub const TURN_LEN_ANY: u64 = 64 * 1024 * 1024;
/// Bytes a second that are the least limit: whoever wants less pauses. A stream that is served has to bring
/// [`PROGRESS_LEN_MIN`] in each [`PROGRESS_TIME`], with others beside it.
pub const RATE_MIN: u64 = 16 * 1024;
/// Bytes a second that each stream served has at least, where there is a limit: so many are served at a time.
pub const SERVED_RATE_MIN: u64 = 4 * 1024;

const _: () = assert!(CONNECTIONS_MEMORY_MAX <= 1_700 * 1024 * 1024);
const _: () = assert!(TUNNEL_MEMORY_MAX <= 512 * 1024 && TUNNELS_MAX <= CONNECTIONS_MAX);
const _: () = assert!(TUNNEL_DATAGRAM_LEN_MAX as usize + 2 <= TUNNEL_READ_LEN);
const _: () = assert!(TUNNEL_DATAGRAM_LEN_MAX as usize <= TUNNEL_RECEIVE_LEN);
const _: () = assert!(TUNNEL_DATAGRAM_LEN_MAX >= 1_200); // RFC 9000 §14
const _: () = assert!(TUNNEL_WRITE_LEN <= WEBSOCKET_MESSAGE_LEN_MAX);
const _: () = assert!(WEBSOCKET_MESSAGE_LEN_MAX <= WEBSOCKET_WRITE_LEN_MAX);
const _: () = assert!(TUNNEL_WINDOW_MIN < TUNNEL_WINDOW_MAX);
const _: () = assert!(LOSSY_WINDOW_MIN < LOSSY_WINDOW_MAX);
const _: () = assert!(PULL_MEMORY_MAX <= 32 * 1024 * 1024);
const _: () = assert!(CONNECTIONS_PER_PEER_MAX <= CONNECTIONS_PER_NETWORK_MAX);
const _: () = assert!(CONNECTIONS_PER_NETWORK_MAX <= CONNECTIONS_MAX);
const _: () = assert!(NETWORKS_MAX >= CONNECTIONS_MAX + HANDSHAKES_MAX);
const _: () = assert!(KEEP_ALIVE.as_secs() * 2 < IDLE_TIME_MAX.as_secs());
const _: () = assert!(DATAGRAM_LEN_MAX as u32 * 10 < 64 * 1024);
const _: () = assert!(DATAGRAM_LEN_INTERNET_MAX <= DATAGRAM_LEN_MAX);
const _: () = assert!(STREAM_WINDOW <= 2 * 1024 * 1024 && STREAM_WINDOW <= PULL_WINDOW);
const _: () = assert!(CONNECTION_WINDOW < PULL_WINDOW);
const _: () = assert!(PULL_STREAMS_MAX < STREAMS_MAX as usize);
const _: () = assert!(lighter_protocol::limits::PUSH_STREAMS_MAX <= PUSHES_PER_CONNECTION_MAX);
const _: () = assert!(PUSHES_PER_CONNECTION_MAX < STREAMS_MAX as usize);
const _: () = assert!(PUSH_SILENCE_MAX.as_secs() <= SILENCE_TIME_MAX.as_secs());
const _: () = assert!(TURN_LEN_MIN / SERVED_RATE_MIN * 3 <= PUSH_SILENCE_MAX.as_secs());
const _: () = assert!(PULL_STREAMS_MAX <= GET_RANGES_MAX);
const _: () = assert!((PIECE_LEN as u64).is_multiple_of(GROUP_LEN) && PIECE_LEN as u64 == PORTION_LEN);
const _: () = assert!((READ_AHEAD_LEN as u64).is_multiple_of(GROUP_LEN));
const _: () = assert!(SMALL_REQUEST_LEN < WIRE_MESSAGE_LEN_MAX);
const _: () = assert!(SILENCE_PROBE_TIME.as_secs() * 5 <= SILENCE_TIME_MAX.as_secs());
const _: () = assert!(SILENCE_TIME_MAX.as_secs() <= PROGRESS_TIME.as_secs());
const _: () = assert!(TURN_LEN_MIN.is_multiple_of(GROUP_LEN) && TURN_LEN_MIN <= TURN_LEN_MAX);
const _: () = assert!(TURN_LEN_ANY.is_multiple_of(GROUP_LEN) && TURN_LEN_MAX <= TURN_LEN_ANY);
const _: () = assert!(SERVED_RATE_MIN * PROGRESS_TIME.as_secs() >= 2 * PROGRESS_LEN_MIN);
const _: () = assert!(TURN_LEN_MIN / SERVED_RATE_MIN * 4 <= SILENCE_TIME_MAX.as_secs());
