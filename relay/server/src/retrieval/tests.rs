//! Retrieval over real sockets, on attachments in memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lighter_protocol::{BlobId, DeliveryId, TicketHash, TicketKey, UnixTime};
use lighter_transport::{Endpoint, EndpointConfig, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;

/// Attachments in memory.
#[derive(Clone, Default)]
struct Memory {
    deliveries: HashMap<TicketHash, DeliveryView<Blob>>,
    /// Bytes read of all blobs.
    read: Arc<AtomicU64>,
    away: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Blob {
    Bytes(Bytes),
    /// So many zeros, made as they are read.
    Zeros,
    /// Breaks after the first piece.
    Broken,
    /// Cannot be read, for this reason.
    Unreadable(RetrievalError),
}

/// Pieces of at most 1 MiB, as the array gives them.
struct MemoryPieces {
    blob: Blob,
    range: Range<u64>,
    read: Arc<AtomicU64>,
    given: u64,
}

const PIECE: u64 = 1 << 20;

impl Attachments for Memory {
    type Blob = Blob;
    type Pieces = MemoryPieces;

    async fn find(&self, ticket: TicketHash) -> Result<Option<DeliveryView<Blob>>, RetrievalError> {
        if self.away { Err(RetrievalError::Unavailable) } else { Ok(self.deliveries.get(&ticket).cloned()) }
    }

    fn open(&self, blob: &Blob, range: Range<u64>) -> MemoryPieces {
        MemoryPieces { blob: blob.clone(), range, read: self.read.clone(), given: 0 }
    }
}

impl Pieces for MemoryPieces {
    async fn next(&mut self) -> Result<Option<Bytes>, RetrievalError> {
        let (start, end) = (self.range.start, self.range.end.min(self.range.start + PIECE));
        if start == end {
            return Ok(None);
        }
        let place = |offset: u64| usize::try_from(offset).unwrap();
        let piece = match &self.blob {
            Blob::Bytes(bytes) => bytes.slice(place(start)..place(end)),
            Blob::Broken if self.given > 0 => return Err(RetrievalError::Damaged),
            Blob::Unreadable(error) => return Err(*error),
            Blob::Zeros | Blob::Broken => Bytes::from(vec![0; place(end - start)]),
        };
        self.range.start = end;
        self.given += end - start;
        self.read.fetch_add(end - start, Ordering::Relaxed);
        Ok(Some(piece))
    }
}

struct Well;

impl Status for Well {
    fn trouble(&self) -> Option<&'static str> {
        None
    }

    async fn metrics(&self) -> String {
        "lighter_relay_messages 1\n# EOF\n".to_owned()
    }
}

fn attachment(name: &str, media_type: &str, blob: Blob, size: u64) -> Attachment<Blob> {
    let id = match &blob {
        Blob::Bytes(bytes) => BlobId::of(bytes),
        _ => BlobId([7; 32]),
    };
    Attachment { name: name.into(), media_type: media_type.into(), id, size, blob }
}

fn text(name: &str, media_type: &str, content: &'static [u8]) -> Attachment<Blob> {
    attachment(name, media_type, Blob::Bytes(Bytes::from_static(content)), content.len() as u64)
}

fn view(attachments: Vec<Attachment<Blob>>) -> DeliveryView<Blob> {
    DeliveryView {
        from: "Bob Example <bob@example.org>".into(),
        subject: "Holiday pictures".into(),
        accepted: UnixTime::now(),
        expires: UnixTime::now().day().plus(30),
        opened: Opened::Here,
        attachments,
    }
}

struct World {
    address: SocketAddr,
    read: Arc<AtomicU64>,
    _stopping: tokio_util::sync::DropGuard,
}

fn ticket(number: u8) -> lighter_protocol::Ticket {
    TicketKey::derive(&[1; 32]).ticket(&DeliveryId([number; 16]), 0)
}

async fn world_of(views: Vec<DeliveryView<Blob>>, away: bool) -> World {
    let mut memory = Memory { away, ..Memory::default() };
    for (number, view) in (0..).zip(views) {
        memory.deliveries.insert(ticket(number).hash(), view);
    }
    let read = memory.read.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stopping = CancellationToken::new();
    let endpoint =
        Endpoint::bind(&Identity::generate(), ([127, 0, 0, 1], 0).into(), EndpointConfig::default());
    let tunnels = Tunnels::new(endpoint.unwrap(), &[]);
    tokio::spawn(serve(listener, memory, Well, tunnels, stopping.clone()));
    World { address, read, _stopping: stopping.drop_guard() }
}

async fn world(view: DeliveryView<Blob>) -> World {
    world_of(vec![view], false).await
}

/// An answer, taken apart.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl World {
    async fn ask(&self, method: &str, path: &str, fields: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n");
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        // A connection that is broken off on purpose gives what came before.
        let _ = read.expect("an answer in time");
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: answer[end + 4..].to_vec() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }
}

fn page_path(number: u8) -> String {
    format!("/t/{}/", ticket(number).to_text())
}

fn file_path(number: usize) -> String {
    format!("/t/{}/{number}/name", ticket(0).to_text())
}

#[tokio::test]
async fn the_page_lists_the_attachments_and_looking_uses_nothing_up() {
    // SPEC: D2, A22
    let world = world(view(vec![
        text("beach.jpg", "image/jpeg", b"jpeg"),
        attachment("film.mp4", "video/mp4", Blob::Zeros, 25_000_000),
    ]))
    .await;
    for _ in 0..3 {
        let page = world.get(&page_path(0)).await;
        assert_eq!(page.status, 200);
        let text = page.text();
        for expected in [
            "beach.jpg",
            "4 bytes",
            "film.mp4",
            "25 MB",
            "Holiday pictures",
            &BlobId::of(b"jpeg").to_string(),
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(text.contains(&format!("href=\"/t/{}/1/film.mp4\"", ticket(0).to_text())));
    }
    assert_eq!(world.read.load(Ordering::Relaxed), 0, "no byte of a file was read");
    let without_slash = page_path(0);
    assert_eq!(world.get(without_slash.trim_end_matches('/')).await.status, 200);
}

#[tokio::test]
async fn an_attachment_comes_as_a_download_that_no_browser_runs() {
    // SPEC: C9
    let world = world(view(vec![text("evil.html", "text/html", b"<script>alert(1)</script>")])).await;
    let answer = world.get(&file_path(0)).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"<script>alert(1)</script>"[..]));
    assert_eq!(answer.field("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.field("content-disposition"), Some("attachment; filename=\"evil.html\""));
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.field("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.field("cache-control"), Some("private, no-store"));
    assert!(answer.field("content-security-policy").unwrap().contains("sandbox"));
    let etag = format!("\"{}\"", BlobId::of(b"<script>alert(1)</script>"));
    assert_eq!(answer.field("etag"), Some(etag.as_str()));
}

#[tokio::test]
async fn bad_input_21_html_and_script_in_names_subjects_and_senders_show_as_text() {
    let evil = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'";
    let mut hostile = view(vec![text(&format!("{evil}\u{202e}gpj.exe"), "text/html", b"x")]);
    hostile.subject = evil.into();
    hostile.from = format!("{evil}\r\nX-Injected: yes");
    let world = world(hostile).await;
    let page = world.get(&page_path(0)).await;
    let text = page.text();
    for never in ["<script", "<img", "onerror=alert(1)>'", "\u{202e}", "\r"] {
        assert!(!text.contains(never), "{never}: {text}");
    }
    assert!(text.contains("&lt;script&gt;"));
    let policy = page.field("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let answer = world.get(&file_path(0)).await;
    assert!(!answer.head.to_lowercase().contains("x-injected"), "{}", answer.head);
}

#[tokio::test]
async fn bad_input_40_ranges_come_as_asked_or_are_refused() {
    let world = world(view(vec![text("a.txt", "text/plain", b"0123456789")])).await;
    let etag = format!("\"{}\"", BlobId::of(b"0123456789"));
    let range = async |fields: String| {
        let answer = world.ask("GET", &file_path(0), &fields).await;
        let content_range = answer.field("content-range").map(str::to_owned);
        let body = if answer.status == 416 { String::new() } else { answer.text().to_owned() };
        (answer.status, body, content_range)
    };
    let part = |body: &str, content_range: &str| (206, body.to_owned(), Some(content_range.to_owned()));
    let whole = (200, "0123456789".to_owned(), None);
    let refused = (416, String::new(), Some("bytes */10".to_owned()));
    let thousand = vec!["0-0"; 1_000].join(",");
    for (fields, expected) in [
        ("range: bytes=0-0\r\n".to_owned(), part("0", "bytes 0-0/10")),
        ("range: bytes=2-4\r\n".to_owned(), part("234", "bytes 2-4/10")),
        ("range: bytes=8-\r\n".to_owned(), part("89", "bytes 8-9/10")),
        ("range: bytes=-3\r\n".to_owned(), part("789", "bytes 7-9/10")),
        ("range: bytes=5-500\r\n".to_owned(), part("56789", "bytes 5-9/10")),
        ("range: bytes=10-\r\n".to_owned(), refused.clone()),
        ("range: bytes=-0\r\n".to_owned(), refused),
        ("range: bytes=4-2\r\n".to_owned(), whole.clone()),
        ("range: bytes=0-5,3-8\r\n".to_owned(), whole.clone()),
        (format!("range: bytes={thousand}\r\n"), whole.clone()),
        (format!("range: bytes=2-4\r\nif-range: {etag}\r\n"), part("234", "bytes 2-4/10")),
        ("range: bytes=2-4\r\nif-range: \"old\"\r\n".to_owned(), whole),
    ] {
        assert_eq!(range(fields.clone()).await, expected, "{fields}");
    }
}

#[tokio::test]
async fn rfc_9110_13_what_the_client_has_is_told_without_reading_it() {
    let world = world(view(vec![text("a.txt", "text/plain", b"0123456789")])).await;
    let first = world.get(&file_path(0)).await;
    let (etag, modified) = (first.field("etag").unwrap(), first.field("last-modified").unwrap());
    world.read.store(0, Ordering::Relaxed);
    for method in ["GET", "HEAD"] {
        for fields in [
            format!("if-none-match: {etag}\r\n"),
            format!("if-none-match: W/{etag}\r\nrange: bytes=0-0\r\n"),
            format!("if-modified-since: {modified}\r\n"),
        ] {
            let answer = world.ask(method, &file_path(0), &fields).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{fields}");
            // §15.4.5: what a cache has to know again.
            assert_eq!((answer.field("etag"), answer.field("last-modified")), (Some(etag), Some(modified)));
            assert_eq!(answer.field("cache-control"), first.field("cache-control"));
        }
        let refused = world.ask(method, &file_path(0), "if-match: \"other\"\r\n").await;
        assert_eq!((refused.status, refused.body.len()), (412, 0));
    }
    assert_eq!(world.read.load(Ordering::Relaxed), 0, "no byte of the file was read");
    // §13.1.5: a download that broke off goes on by tag and by date alike.
    for validator in [etag, modified] {
        let fields = format!("range: bytes=4-\r\nif-range: {validator}\r\n");
        let rest = world.ask("GET", &file_path(0), &fields).await;
        assert_eq!((rest.status, rest.text()), (206, "456789"), "{validator}");
    }
    let page = world.ask("GET", &page_path(0), &format!("if-none-match: {etag}\r\n")).await;
    assert_eq!(page.status, 200, "the page is none of the files");
}

#[tokio::test]
async fn bad_input_40_head_of_everything_has_the_fields_and_no_body() {
    let world = world(view(vec![attachment("film.mp4", "video/mp4", Blob::Zeros, 5 << 30)])).await;
    let answer = world.ask("HEAD", &file_path(0), "range: bytes=0-0\r\n").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.field("content-length"), Some("5368709120"));
    assert_eq!(answer.field("accept-ranges"), Some("bytes"));
    assert_eq!(world.read.load(Ordering::Relaxed), 0);
    for path in [page_path(0), "/healthz".into(), "/style-1.css".into(), "/nothing".into(), file_path(7)] {
        let (get, head) = (world.get(&path).await, world.ask("HEAD", &path, "").await);
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        assert_eq!(head.field("content-length"), get.field("content-length"), "{path}");
    }
}

#[tokio::test]
async fn a_download_holds_a_few_pieces_in_memory_however_large_it_is() {
    let world = world(view(vec![attachment("huge.bin", "application/zip", Blob::Zeros, 1 << 40)])).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", file_path(0));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut taken = vec![0; 1 << 20];
    stream.read_exact(&mut taken).await.unwrap();
    // What the system's socket buffers take, and a few pieces; far from a terabyte.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let read = world.read.load(Ordering::Relaxed);
        if read == before {
            break;
        }
        before = read;
    }
    assert!(before < 64 << 20, "{before} bytes were read for a client that took one MiB");
}

#[tokio::test]
async fn bad_input_34_unknown_forged_and_revoked_tickets_get_one_answer() {
    let world = world(view(vec![text("a", "text/plain", b"a")])).await;
    let unknown = world.get(&page_path(9)).await;
    assert_eq!(unknown.status, 404);
    let no_date = |answer: &Answer| {
        let lines: Vec<_> = answer.head.lines().filter(|line| !line.starts_with("date: ")).collect();
        lines.join("\n")
    };
    let valid = ticket(0).to_text();
    for path in [
        page_path(1),
        "/t/x/".into(),
        format!("/t/{valid}A/"),
        format!("/t/{}/", &valid[..42]),
        format!("/t/{valid}/1/name"),
        format!("/t/{valid}/-1/name"),
        format!("/t/{valid}/99999999999999999999/name"),
        "/t/%00/".into(),
        "/t/..%2f..%2fetc%2fpasswd/0/x".into(),
    ] {
        let answer = world.get(&path).await;
        assert_eq!((no_date(&answer), &answer.body), (no_date(&unknown), &unknown.body), "{path}");
    }
}

#[tokio::test]
async fn bad_input_34_what_has_expired_is_gone_and_not_unknown() {
    // SPEC: C11
    let mut over = view(vec![text("a", "text/plain", b"a")]);
    over.expires = lighter_protocol::Day(UnixTime::now().day().0 - 1);
    // The catalog believes that it is there, and its segment has had its day.
    let gone = view(vec![attachment("b", "text/plain", Blob::Unreadable(RetrievalError::Expired), 10)]);
    let world = world_of(vec![gone, over], false).await;
    for path in [file_path(0), page_path(1), format!("{}0/a", page_path(1)), format!("{}7/a", page_path(1))] {
        for fields in ["", "range: bytes=0-0\r\n", "if-none-match: \"x\"\r\n"] {
            let answer = world.ask("GET", &path, fields).await;
            assert_eq!(answer.status, 410, "{path}");
            assert!(answer.text().contains("have expired"), "{}", answer.text());
            assert!(answer.field("lighter-expired").is_some_and(|day| day.len() == 10));
            assert!(answer.field("etag").is_none() && answer.field("content-disposition").is_none());
        }
    }
    assert_eq!(world.ask("HEAD", &page_path(1), "").await.status, 410);
}

#[tokio::test]
async fn a_guesser_is_slowed_down() {
    let world = world(view(vec![])).await;
    let mut guesses = 0;
    let slowed = loop {
        let answer = world.get(&page_path(9)).await;
        if answer.status != 404 {
            break answer;
        }
        guesses += 1;
        assert!(guesses < 10_000, "never slowed down");
    };
    assert_eq!(slowed.status, 429);
    assert!(slowed.field("retry-after").is_some());
    assert_eq!(world.get(&page_path(0)).await.status, 200, "who has a ticket is not");
}

#[tokio::test]
async fn when_the_relay_has_let_go_the_user_is_told_which_store_has_it() {
    // SPEC: A22
    let store = Identity::generate().peer();
    let mut released = view(vec![text("a.txt", "text/plain", b"a")]);
    released.opened = Opened::At(store);
    let mut withdrawn = view(vec![]);
    withdrawn.opened = Opened::Withdrawn;
    let world = world_of(vec![released, withdrawn], false).await;
    for path in [page_path(0), file_path(0)] {
        let answer = world.get(&path).await;
        assert_eq!((answer.status, answer.field("lighter-store")), (410, Some(store.to_string().as_str())));
        assert!(answer.text().contains(&store.to_string()) && answer.text().contains("a.txt"));
    }
    assert_eq!(world.get(&page_path(1)).await.status, 410);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_with_a_status_and_what_breaks_off_with_the_connection() {
    let world = world(view(vec![
        attachment("a", "text/plain", Blob::Unreadable(RetrievalError::Unavailable), 10),
        attachment("b", "text/plain", Blob::Broken, 3 * PIECE),
        attachment("c", "text/plain", Blob::Unreadable(RetrievalError::Damaged), 10),
    ]))
    .await;
    let answer = world.get(&file_path(0)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.field("retry-after").is_some() && answer.field("content-disposition").is_none());
    let answer = world.get(&file_path(1)).await;
    assert_eq!((answer.status, answer.field("content-length")), (200, Some("3145728")));
    assert!(answer.body.len() as u64 <= PIECE, "the client sees that it is not whole");
    let answer = world.get(&file_path(2)).await;
    assert_eq!((answer.status, answer.field("retry-after")), (502, None), "trying again does not help");
    assert!(answer.text().contains("is damaged"));
}

#[tokio::test]
async fn while_the_catalog_is_away_nothing_is_called_unknown() {
    let world = world_of(vec![], true).await;
    assert_eq!(world.get(&page_path(9)).await.status, 503);
}

#[tokio::test]
async fn bad_input_41_bodies_other_methods_and_smuggled_requests_get_nowhere() {
    let world = world(view(vec![text("a", "text/plain", b"secret")])).await;
    assert_eq!(world.ask("POST", &page_path(0), "content-length: 0\r\n").await.status, 405);
    for fields in [
        "content-length: 9999999999\r\n",
        "transfer-encoding: chunked\r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
    ] {
        let request = format!("{fields}\r\n0\r\n\r\nGET {} HTTP/1.1\r\nhost: y\r\n", file_path(0));
        let answer = world.ask("GET", &page_path(0), &request).await;
        assert_eq!(answer.status, 400, "{fields}");
        assert!(!answer.text().contains("secret"));
    }
}

#[tokio::test]
async fn health_and_metrics_are_there() {
    let world = world(view(vec![])).await;
    assert_eq!(world.get("/healthz").await.text(), "ok\n");
    assert!(world.get("/metrics").await.text().contains("lighter_relay_messages 1"));
    assert_eq!(world.ask("GET", "/metrics", "x-forwarded-for: 8.8.8.8\r\n").await.status, 404);
}
