//! Every bound of the agent, with its unit and where it comes from; relations are asserted at compile time.

use std::num::NonZeroU64;
use std::time::Duration;

use lighter_protocol::limits::{PULL_SHARED_STREAMS_MAX, PULL_SOURCES_ASKED_MAX};
use lighter_transport::limits::{PIECE_LEN, PULL_WINDOW};

/// Pulls under way at a time; further offers are answered `Later(Busy)`, and the holder comes back.
pub const PULLS_MAX: usize = 64;
/// The same for a hosted store (SPEC A29).
pub const HOSTED_PULLS_MAX: usize = 256;
/// Streams that a hosted store serves to its users' devices at a time.
pub const HOSTED_SERVES_MAX: usize = 256;
/// Times that the location server is asked for all hosted mailboxes because they change meanwhile, before the next ping.
pub const HOSTING_ROUNDS_MAX: usize = 4;
/// Hosted mailboxes that a relay is told of at a time, of the 32 requests that a connection may have open.
pub const HOSTED_WAITS_AT_ONCE: usize = 16;
/// Seconds after which a relay that did not accept a hosted mailbox is told of it again.
pub const HOSTED_REFUSED_PAUSE_S: u32 = 30;
/// Hosted mailboxes that something is kept for and that are served no more: so many are listed in `status`.
pub const HOSTED_LISTED_MAX: usize = 100;
/// Of those, pulls for one peer that is not a relay of the own domain: a stranger leaves room for others.
pub const STRANGER_PULLS_MAX: usize = 8;
/// Requests of one connection that are worked on at a time; QUIC bounds those that wait.
pub const REQUESTS_PER_CONNECTION_MAX: usize = 32;
/// Bytes of a blob whose files are made when it comes, and not before it is asked for: no stream asks for a part of one.
pub const SMALL_LEN_MAX: u64 = lighter_protocol::blob::PORTION_LEN;
/// Small blobs of one delivery that are asked for one by one at a time, where the source does not give them together.
pub const SMALL_SINGLES_MAX: usize = 16;
/// Hand-overs of small blobs that are written to the disk in one go, where so many have come: at most
/// [`lighter_transport::limits::SMALL_BATCH_LEN`] each.
pub const PACKER_BATCH_MAX: usize = 16;
/// Blobs that get their final place with one sync of the folder and one transaction.
pub const FINISH_BATCH_MAX: usize = 64;
/// Bytes in them after which that is not put off any longer.
pub const FINISH_BATCH_LEN: u64 = lighter_store::limits::CHECKPOINT_LEN;
/// How long they wait for others at most.
pub const FINISH_WAIT_MAX: Duration = Duration::from_secs(1);
/// Blobs, of all pulls together, that wait for others before they get their final place: each has a file or two open.
pub const FINISH_HELD_MAX: usize = 256;
/// Streams that are served to others at a time, all peers together: each holds a few hundred KiB.
pub const SERVES_MAX: usize = 64;
/// Outgoing deliveries that are offered at a time.
pub const OFFERS_MAX: usize = 16;
/// Finished pulls that wait to be taken note of by the one task that runs them.
pub const PULL_EVENTS_MAX: usize = 256;
/// How long it is waited until the pulls that run have said who brings what.
pub const PULL_SHOW_TIME_MAX: Duration = Duration::from_secs(1);
/// Bytes of a delivery that are missing, from which on it is worth asking the user's other devices for them.
pub const DEVICE_LEN_MIN: u64 = 64 * 1024 * 1024;
/// Bytes of a delivery's attachments (for a taker: that are missing) from which on it is worth it to get them from other
/// recipients of the message: on a slow line, a minute.
pub const SHARED_LEN_MIN: u64 = 8 * 1024 * 1024;
/// Streams that are served to other recipients of a message at a time: the own deliveries have most of
/// [`SERVES_MAX`] to themselves.
pub const SHARED_SERVES_MAX: usize = 16;
/// Other recipients of a message that are looked up and dialled at a time, for all deliveries together.
pub const SEEKING_MAX: usize = 4;
/// Sharings that are looked at for one delivery, good or not.
pub const SHARINGS_VERIFIED_MAX: usize = 64;
/// Pulls under way, up to which one is begun that nobody offers: offers have the rest to themselves.
pub const RESUMED_PULLS_MAX: usize = PULLS_MAX / 4;
/// How often it is looked whether deliveries that nobody offers now can be had from other recipients of their messages,
/// where nothing says that it may be worth it before.
pub const SHARING_LOOK_INTERVAL: Duration = Duration::from_mins(5);
/// After each look, how long none is made whatever happens: what was begun then notices by itself who comes.
pub const SHARING_LOOK_PAUSE: Duration = Duration::from_mins(1);
/// Peers heard of that wait until it is seen whether somebody waits for them: beyond, each who waits tries.
pub const ARRIVALS_MAX: usize = 64;
/// Times that one giver is looked for during a pull.
pub const GIVER_TRIES_MAX: u32 = 4;
/// The wait before the second time; doubled each time.
pub const GIVER_WAIT_MIN: Duration = Duration::from_secs(15);
/// How long a sharing is good for: a sender that is away for the night is not needed.
pub const SHARING_LIFE: Duration = lighter_protocol::limits::SHARING_LIFE_MAX;
/// How long before its end another one is made, as long as the sender offers.
pub const SHARING_RENEWED_BEFORE: Duration = Duration::from_hours(6);
/// Other devices that are asked for one delivery.
pub const DEVICES_ASKED_MAX: usize = 3;
/// How often it is looked whether there is a session with a relay that is named as a source.
pub const SOURCES_INTERVAL: Duration = Duration::from_secs(1);

/// How long a peer that is dialled may take: three tries of a lost first packet.
pub const DIAL_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a relay's carrier is given before the next is tried beside it: a handshake over a slow line.
pub const CARRIER_HEAD_START: Duration = Duration::from_millis(600);
/// How long one carrier is given to open.
pub const CARRIER_TIME_MAX: Duration = Duration::from_secs(8);
/// How long a better carrier than the one in use is given.
pub const BETTER_TIME_MAX: Duration = Duration::from_secs(4);
/// When a better carrier is tried first, after a session has begun by another: a lost packet or a busy moment may have
/// been all that was in its way, …
pub const BETTER_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// … the second time, and then after twice as long each time.
pub const BETTER_PAUSE_MIN: Duration = Duration::from_secs(10);
/// The longest between two such tries.
pub const BETTER_PAUSE_MAX: Duration = Duration::from_mins(5);
/// Networks of which it is remembered what works there.
pub const NETWORKS_REMEMBERED_MAX: usize = 32;
/// Bytes of the file that it is remembered in.
pub const NETWORKS_FILE_LEN_MAX: u64 = 64 * 1024;
/// How long it is tried to reach a store on all ways together: three first packets at an address, or a helper and the
/// hole behind it.
pub const REACH_TIME_MAX: Duration = Duration::from_secs(6);
/// What addresses have before helpers are asked: a way that needs nobody's help is better, where there is one.
pub const HELPER_HEAD_START: Duration = Duration::from_millis(500);
/// Helpers that are asked for one peer.
pub const HELPERS_TRIED_MAX: usize = 3;
/// Helpers that are asked at a time, for all peers together: each is a connection to a relay, which allows this agent
/// [`lighter_transport::limits::CONNECTIONS_PER_PEER_MAX`].
pub const MEETINGS_AT_ONCE_MAX: usize = 4;
/// How long a helper may take until it is connected, and until it has answered.
pub const HELPER_TIME_MAX: Duration = Duration::from_secs(3);
/// How long both sides try to open a hole: of those that ever open, nearly all do at the first try (arXiv 2510.27500).
pub const HOLE_TIME_MAX: Duration = Duration::from_secs(3);
/// Senders towards whom a hole is opened at a time.
pub const KNOCKS_AT_ONCE_MAX: usize = 16;
/// Knocks of one sender at once …
pub const KNOCKS_BURST: u32 = 8;
/// … and then one each time that this has passed.
pub const KNOCKS_INTERVAL: Duration = Duration::from_secs(4);
/// The same for all senders together.
pub const ALL_KNOCKS_BURST: u32 = 64;
/// See [`ALL_KNOCKS_BURST`].
pub const ALL_KNOCKS_INTERVAL: Duration = Duration::from_millis(500);
/// Senders that are remembered for the rate.
pub const KNOCKERS_MAX: usize = 1_024;
/// Announcements of peers on the local network that are remembered.
pub const NEARBY_PEERS_MAX: usize = 256;
/// Addresses of one such peer: each that leads nowhere costs a quarter of a second.
pub const NEARBY_ADDRESSES_MAX: usize = 4;
/// How long an announcement counts: as long as multicast DNS keeps one (RFC 6762 §10).
pub const NEARBY_LIFE: Duration = Duration::from_mins(75);
/// How often it is looked whether anything comes from a store that pulls: two such times without a word, and it is gone.
pub const SILENCE_LOOK_INTERVAL: Duration = Duration::from_secs(4);
/// The same for a store that is connected and does nothing now: also what keeps such a connection alive.
pub const QUIET_LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// How long a sender waits for the store's own answer to a ping before the message goes by mail (SPEC A4, A8).
pub const STORE_PING_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a store may take to answer an offer to the `send` command.
pub const OFFER_ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How often an agent whose key was changed is started anew before that has failed, and how long apart.
pub const BEGIN_TRIES_MAX: u32 = 60;
/// See [`BEGIN_TRIES_MAX`].
pub const BEGIN_AGAIN: Duration = Duration::from_millis(250);
/// How long what opens drops for a former key of this store is kept: a relay keeps a drop for 365 days at most, and who
/// seals one has looked the key up within the hour. A month more, for an agent that was away.
pub const FORMER_KEY_LIFE: Duration = Duration::from_hours((365 + 30) * 24);
/// Bytes of the file about former keys: some 1,200 for each.
pub const FORMER_KEYS_LEN_MAX: u64 = 64 * 1024;
/// First wait before a broken session with a relay is opened again; doubled each time, with jitter.
pub const RECONNECT_MIN: Duration = Duration::from_millis(250);
/// Longest wait before a relay is dialled again.
pub const RECONNECT_MAX: Duration = Duration::from_secs(60);
/// A session that held this long was a good one: the next wait is the first again.
pub const SESSION_GOOD_AFTER: Duration = Duration::from_secs(30);
/// How often the clocks are compared and the own addresses looked at: what tells a wake and a change of network.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// How long the network has to settle after the kernel told of a change: they come in groups.
pub const NETWORK_SETTLE: Duration = Duration::from_millis(250);
/// The wall clock is this far ahead of the monotonic one: the machine slept (CLOCK_MONOTONIC stands still meanwhile).
pub const SLEPT_MIN: Duration = Duration::from_secs(10);
/// How long a registration is good for; renewed by registering again, long before.
pub const REGISTRATION_LIFE: Duration = Duration::from_hours(24);
/// How long a clean stop may take: saying offline, closing connections, syncing.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(8);
/// How often what is past its retention is let go of, and what is expired is forgotten.
pub const EXPIRE_INTERVAL: Duration = Duration::from_hours(1);
/// How long an outgoing delivery is offered before it counts as failed.
pub const OUTGOING_LIFE: Duration = Duration::from_hours(24 * 30);
/// How long attachments wait here for a store that cannot be reached, where nothing else is said: a long weekend.
pub const RETRY_HOURS_DEFAULT: u32 = 72;
/// The longest that may be said: as long as anything is offered.
pub const RETRY_HOURS_MAX: u32 = 24 * 30;
/// How long a finished outgoing delivery is listed.
pub const OUTGOING_LISTED: Duration = Duration::from_hours(24 * 30);

/// How long a relay may take to have a drop, from the question to the answer; a dead connection is noticed long before.
pub const DROP_TIME_MAX: Duration = Duration::from_hours(24);
/// Times that a relay is told of a drop before the message goes another way.
pub const DROP_TRIES_MAX: u32 = 5;
/// The wait after the first of them; doubled each time.
pub const DROP_RETRY_MIN: Duration = Duration::from_secs(1);
/// First wait before it is asked again what became of what was left; doubled each time.
pub const DROP_ASK_MIN: Duration = Duration::from_secs(15);
/// The longest one.
pub const DROP_ASK_MAX: Duration = Duration::from_mins(30);

/// People of whom this agent remembers that the location server knows that the user wrote to them.
pub const WRITTEN_TO_MAX: usize = 4_096;
/// How long the end of a command waits for the location server to be told so.
pub const WRITTEN_TO_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of one line on the control socket: a request with a message body, or one delivery with its blobs.
pub const CONTROL_LINE_LEN_MAX: u64 = 2 * 1024 * 1024;
/// Commands that the running agent serves at a time.
pub const CONTROL_CONNECTIONS_MAX: usize = 32;
/// Bytes of a message's text that `send` takes: the rest belongs into an attachment.
pub const BODY_LEN_MAX: u64 = 1024 * 1024;
/// Recipients of one message that `send` takes (RFC 5321 §4.5.3.1.8: a server takes at least 100).
pub const RECIPIENTS_MAX: usize = 100;
/// Address books that are looked at.
pub const BOOKS_MAX: usize = 64;
/// Files of one address book: a folder with one file for each card.
pub const BOOK_FILES_MAX: usize = 10_000;
/// Bytes of one file of an address book: ten thousand cards with a small picture each do not fill it.
pub const BOOK_FILE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of all address books together that one command reads.
pub const BOOKS_LEN_MAX: u64 = 256 * 1024 * 1024;
/// Cards (people and groups) of one address book.
pub const CARDS_MAX: usize = 100_000;
/// Members of all groups of one address book together.
pub const GROUP_MEMBERS_MAX: usize = 200_000;
/// Groups within groups.
pub const GROUP_DEPTH_MAX: usize = 32;
/// Bytes of a line of an address book, folds undone, that are looked at: an address with a long name in a folder of
/// LDAP's. What is longer (a picture) is passed over.
pub const BOOK_LINE_LEN_MAX: usize = 16 * 1024;
/// Names, addresses and labels of one card.
pub const CARD_VALUES_MAX: usize = 256;
/// Columns of a CSV file that are looked at; Outlook writes about a hundred.
pub const CSV_COLUMNS_MAX: usize = 1_024;
/// Rows of a CSV file that are looked at to find out which column holds addresses, where no heading says it.
pub const CSV_ROWS_TRIED: usize = 100;
/// CardDAV servers that address books are fetched from.
pub const CARDDAV_SERVERS_MAX: usize = 8;
/// Characters of what a CardDAV server is called here.
pub const CARDDAV_NAME_LEN_MAX: usize = 32;
/// Address books of one user on one CardDAV server.
pub const CARDDAV_BOOKS_MAX: usize = 32;
/// Resources that one answer of a CardDAV server tells of: those of a book, and the book itself.
pub const CARDDAV_RESOURCES_MAX: usize = CARDS_MAX + 1;
/// Elements within elements of such an answer; a card's is the seventh.
pub const CARDDAV_DEPTH_MAX: usize = 32;
/// Bytes of one answer of a CardDAV server: as many as of a file.
pub const CARDDAV_ANSWER_LEN_MAX: usize = 64 * 1024 * 1024;
/// Cards that are asked for at once: with pictures, a few MiB.
pub const CARDDAV_CARDS_AT_ONCE: usize = 100;
/// How often a CardDAV server sends on to another address of its own.
pub const CARDDAV_REDIRECTS_MAX: usize = 5;
/// How long a CardDAV server takes to begin an answer, and to end it.
pub const CARDDAV_ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long all address books of a server take, the first time.
pub const CARDDAV_TIME_MAX: Duration = Duration::from_mins(10);
/// How long `send` to a group waits for a copy that is fresh.
pub const CARDDAV_FRESHEN_TIME_MAX: Duration = Duration::from_secs(10);
/// Minutes after which a CardDAV server is asked what has changed.
pub const CARDDAV_REFRESH_MINUTES_DEFAULT: u32 = 60;
/// The fewest that can be set.
pub const CARDDAV_REFRESH_MINUTES_MIN: u32 = 1;
/// When a CardDAV server is tried again after a failure.
pub const CARDDAV_RETRY: Duration = Duration::from_mins(5);
/// The least between two looks at whether a copy is due.
pub const CARDDAV_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Bytes of a password's file.
pub const PASSWORD_LEN_MAX: u64 = 4_096;
/// Things that are wrong in one address book and are listed; the rest is counted.
pub const BOOK_PROBLEMS_MAX: usize = 100;
/// Things that are wrong with a group's members and are said in one message; the rest is counted.
pub const FAULTS_SAID_MAX: usize = 10;
/// Names that are offered for one that is not known.
pub const NEAR_NAMES_MAX: usize = 3;
/// Files in one message: as many as an offer can hold.
pub const FILES_MAX: usize = lighter_protocol::limits::OFFER_BLOBS_MAX;
/// Characters of a subject.
pub const SUBJECT_CHARS_MAX: usize = 900;
/// Folders of recipients in the outbox that are looked at.
pub const OUTBOX_FOLDERS_MAX: usize = 1_000;
/// Things in one recipient's folder that are looked at; the rest waits until these are sent.
pub const OUTBOX_ITEMS_MAX: usize = 1_000;
/// Folders within a folder that is sent as one message.
pub const OUTBOX_DEPTH_MAX: usize = 8;
/// Entries of a folder of any kind that are read before it is said to be too large.
pub const OUTBOX_ENTRIES_MAX: usize = 100_000;
/// Messages of the outbox that are sent at a time.
pub const OUTBOX_SENDING_MAX: usize = 4;
/// Steps, each a change on disk, that one look at the outbox makes; the next one goes on.
pub const OUTBOX_STEPS_MAX: usize = 1_000;
/// Renames into place that wait to be looked at; with more, files settle as those that are written do.
pub const OUTBOX_HINTS_MAX: usize = 1_000;
/// How long the outbox is left alone after an event, so that many of them are one look.
pub const OUTBOX_GATHER: Duration = Duration::from_millis(100);
/// How often the outbox is looked at without an event: file systems of other machines tell none.
pub const OUTBOX_SWEEP: Duration = Duration::from_secs(60);
/// The same where the system gives no events at all.
pub const OUTBOX_SWEEP_BLIND: Duration = Duration::from_secs(5);
/// First and longest wait before something that did not go is tried again.
pub const OUTBOX_RETRY_MIN: Duration = Duration::from_secs(15);
/// The longest one.
pub const OUTBOX_RETRY_MAX: Duration = Duration::from_hours(1);
/// How old what is known of a group's members may be when something is sent to them.
pub const OUTBOX_RESOLVED_FRESH: Duration = Duration::from_secs(1);
/// How long it is remembered what became of a file whose folder is not there any more (a drive that is away).
pub const OUTBOX_RECORD_LIFE: Duration = Duration::from_hours(24 * 30);
/// Bytes of one record of the outbox: a text, and as many names as a message has files.
pub const OUTBOX_RECORD_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Things in the outbox that `status` lists; the rest is counted.
pub const OUTBOX_LISTED_MAX: usize = 200;
/// Bytes of a note, and of the beginning of one that is there already.
pub const OUTBOX_NOTE_LEN_MAX: usize = 64 * 1024;
/// Mail clients that send through the agent at a time; each holds a few hundred KiB, and a connection to the provider.
pub const SUBMISSION_CONNECTIONS_MAX: usize = 32;
/// How long connecting to the provider may take, its greeting and TLS included: a mail client waits for its own greeting.
pub const SUBMISSION_PROVIDER_TIME_MAX: Duration = Duration::from_secs(45);
/// How long looking up and offering a submitted message may take before it goes whole: a client waits for the answer
/// (RFC 5321 §4.5.3.2.6 gives it ten minutes, and mail clients less).
pub const SUBMISSION_DECIDE_TIME_MAX: Duration = Duration::from_secs(50);
/// How long a mail client may leave what it is told unread.
pub const SUBMISSION_WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the same message in the same envelope is the same message.
pub const SUBMISSION_RECORD_LIFE: Duration = Duration::from_hours(24);
/// Mail servers' connections at a time, where mail is sent for all users of a domain; each holds a few hundred KiB, and a
/// connection to the next server. As many as Postfix has processes (`default_process_limit`).
pub const OUTGOING_CONNECTIONS_MAX: usize = 100;
/// How long such a message's attachments may take to be left with other domains' relays before it goes whole: the mail
/// server waits ten minutes for an answer (RFC 5321 §4.5.3.2.6), and the next one five for a command (§4.5.3.2.7).
pub const OUTGOING_LEAVE_TIME_MAX: Duration = Duration::from_secs(180);
/// How long such a message in the same envelope is the same message: longer than mail servers try (RFC 5321 §4.5.4.1
/// wants four to five days).
pub const OUTGOING_RECORD_LIFE: Duration = Duration::from_hours(24 * 8);
/// Recipients' attachments that are being left with relays at a time for messages of mail servers; with more, they go whole.
pub const OUTGOING_LEAVES_MAX: usize = 256;
/// Outgoing deliveries that are offered at a time for the users of whole domains.
pub const OUTGOING_OFFERS_MAX: usize = 256;
/// Streams that are served at a time for them.
pub const OUTGOING_SERVES_MAX: usize = 256;
/// Messages of which the location server is told at a time who wrote to whom; what is not told is told with the next one.
pub const SUBMISSION_NOTES_MAX: usize = 16;
/// Bytes of one record of a submitted message: as many addresses as an envelope has.
pub const SUBMISSION_RECORD_LEN_MAX: u64 = 1024 * 1024;
/// Bytes of commands read at a time from a mail client.
pub const SUBMISSION_COMMAND_READ_LEN: usize = 4 * 1024;
/// Bytes of content read at a time from a mail client.
pub const SUBMISSION_CONTENT_READ_LEN: usize = 64 * 1024;
/// Bytes of a submitted message's header that a report gives back.
pub const HEADER_REPORTED_LEN: u64 = lighter_mail::limits::REPORT_HEADER_LEN_MAX as u64;
/// Bytes of a file of certificates.
pub const CA_FILE_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a configuration file.
pub const CONFIG_LEN_MAX: u64 = 64 * 1024;
/// Bytes of a stub: placeholders and the text that stayed. What is larger is not a stub of Lighter's.
pub const STUB_LEN_MAX: u64 = lighter_store::limits::MANIFEST_SIZE_MAX;
/// Bytes of a line of a stub that `get` looks at: a whole field of Lighter's, if a server unfolded it.
pub const STUB_LINE_LEN_MAX: usize = lighter_message::limits::FIELD_LEN_MAX;
/// Names that are tried for a file before the user is asked for another one.
pub const NAMES_TRIED_MAX: u32 = 1_000;
/// Bytes read or written at a time where something streams through.
pub const COPY_LEN: usize = 64 * 1024;
/// How long a router is asked to keep a mapping: what RFC 6886 §3.3 recommends, halved, since one that lost power forgets it.
pub const PORT_LIFETIME: Duration = Duration::from_hours(1);
/// A mapping is renewed at half its life, and not more often than this,
pub const PORT_RENEW_MIN: Duration = Duration::from_secs(30);
/// nor less often: a router that was restarted has none.
pub const PORT_RENEW_MAX: Duration = Duration::from_mins(15);
/// How long after a refusal a router is asked again: doubled with each one,
pub const PORT_RETRY_MIN: Duration = Duration::from_mins(1);
/// up to this.
pub const PORT_RETRY_MAX: Duration = Duration::from_hours(1);
/// How often it is looked whether there is a router now, beside each change of network.
pub const PORT_SETTLE: Duration = Duration::from_mins(15);
/// How long the first PCP or NAT-PMP request waits for its answer (RFC 6886 §3.1); each further one twice as long.
pub const PORT_ASK_TIME_FIRST: Duration = Duration::from_millis(250);
/// Requests after the first. RFC 6886 §3.1 has eight, which last a minute; a router in the same house answers the second.
pub const PORT_ASK_RETRIES: usize = 2;
/// How long a UPnP router is searched for.
pub const PORT_SEARCH_TIME_MAX: Duration = Duration::from_secs(4);
/// How long a UPnP router may take to map a port.
pub const PORT_UPNP_TIME_MAX: Duration = Duration::from_secs(10);
/// Mappings of a UPnP router that are looked at for one of this store's.
pub const PORT_ENTRIES_MAX: u32 = 64;
/// How long the router may take to hear that the port is not needed any more.
pub const PORT_RELEASE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long an HTTP server may be silent during a download.
pub const HTTP_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Times that a broken download is taken up again where it stopped, without a byte of progress in between.
pub const HTTP_RESUMES_MAX: u32 = 5;

/// Bytes of a delivery that counts as small, where transfers take turns: what is sent in a moment does not wait behind what
/// takes an hour.
pub const SMALL_DELIVERY_LEN: u64 = 1024 * 1024;
/// Bytes a second on a metered network, with `metered = "limited"` and nothing else said.
pub const METERED_RATE_DEFAULT: NonZeroU64 = NonZeroU64::new(256 * 1024).expect("not zero");
/// Entries of a schedule.
pub const SCHEDULE_MAX: usize = 64;
/// How long a pause or a limit by hand may be said to last; without a time it lasts until it is ended.
pub const BY_HAND_TIME_MAX: Duration = Duration::from_hours(24 * 366);
/// Bytes of the file that it is kept in.
pub const BY_HAND_LEN_MAX: u64 = 16 * 1024;
/// How often battery, clock and time zone are looked at: nothing tells of them.
pub const GUEST_LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Power supplies that are looked at.
pub const POWER_SUPPLIES_MAX: usize = 64;
/// How long the system bus is left alone after it could not be reached, or went.
pub const BUS_RETRY: Duration = Duration::from_secs(60);
/// Characters of a network's name that are shown.
pub const NETWORK_NAME_LEN_MAX: usize = 64;
/// How long a configuration file is left alone after a change, so that it is read as a whole.
pub const CONFIG_SETTLE: Duration = Duration::from_millis(200);
/// Deliveries that wait with whoever holds them, and are remembered to be shown; the holders remember all.
pub const WAITS_MAX: usize = 1_000;
/// Of each, attachments that are shown.
pub const WAIT_PARTS_MAX: usize = 16;
/// Those that `status` lists; the rest is counted.
pub const WAITS_LISTED_MAX: usize = 20;
/// Seconds after which a peer may ask again for what does not go now: it is told before, where that is possible.
pub const HELD_LATER_S: u32 = 60;

const _: () = assert!(
    RETRY_HOURS_DEFAULT <= RETRY_HOURS_MAX && RETRY_HOURS_MAX as u64 * 3600 == OUTGOING_LIFE.as_secs()
);
const _: () = assert!(
    SUBMISSION_DECIDE_TIME_MAX.as_secs() + OUTGOING_LEAVE_TIME_MAX.as_secs() < 300,
    "the next server ends an idle connection after five minutes"
);
const _: () = assert!(MEETINGS_AT_ONCE_MAX < lighter_transport::limits::CONNECTIONS_PER_PEER_MAX);
const _: () = assert!(QUIET_LOOK_INTERVAL.as_secs() * 2 < lighter_transport::limits::IDLE_TIME_MAX.as_secs());
const _: () = assert!(PORT_RENEW_MAX.as_secs() * 2 < PORT_LIFETIME.as_secs());
const _: () = assert!(PORT_RELEASE_TIME_MAX.as_secs() < STOP_TIME_MAX.as_secs());
const _: () = assert!(BODY_LEN_MAX * 2 <= CONTROL_LINE_LEN_MAX);
const _: () = assert!(BOOK_FILE_LEN_MAX <= BOOKS_LEN_MAX);
const _: () = assert!(RECIPIENTS_MAX < GROUP_MEMBERS_MAX);
const _: () = assert!(STRANGER_PULLS_MAX < PULLS_MAX);
const _: () = assert!(
    PULL_SOURCES_ASKED_MAX as u64
        * (PULL_WINDOW as u64 + PULL_SHARED_STREAMS_MAX as u64 * 2 * PIECE_LEN as u64)
        <= 64 * 1024 * 1024
);
const _: () = assert!(OUTBOX_ITEMS_MAX <= OUTBOX_ENTRIES_MAX && FILES_MAX <= OUTBOX_ENTRIES_MAX);
const _: () = assert!(OUTBOX_LISTED_MAX as u64 * 8 * 1024 <= CONTROL_LINE_LEN_MAX);
const _: () = assert!(FILES_MAX as u64 * 1_024 <= CONTROL_LINE_LEN_MAX);
const _: () = assert!(SHARED_SERVES_MAX < SERVES_MAX);
const _: () = assert!(SHARING_RENEWED_BEFORE.as_secs() < SHARING_LIFE.as_secs());
