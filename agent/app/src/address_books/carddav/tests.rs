//! Fetching, from a server that says what a test wants it to.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::limits::{CARDDAV_ANSWER_LEN_MAX, CARDDAV_BOOKS_MAX};

/// What a request asks for, and whether it brings the password.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    method: String,
    path: String,
    has_password: bool,
}

type Answer = dyn Fn(&Asked) -> String + Send + Sync;

/// A server that answers as it is told. Ends with its handle.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answer: impl Fn(&Asked) -> String + Send + Sync + 'static) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, answer): (_, Arc<Answer>) = (asked.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, log.clone(), answer.clone()));
            }
        });
        Self { url, asked, task }
    }

    fn client(&self, path: &str) -> Client {
        let url = format!("{}{path}", self.url);
        Client::new("office", &url, None, &Proxies::none(), "anna", "secret").unwrap()
    }

    async fn fetch(&self, path: &str, copy: &mut Copy) -> Result<Fetched, CardDavError> {
        fetch(&self.client(path), copy).await
    }

    fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.into_iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, log: Arc<Mutex<Vec<Asked>>>, answer: Arc<Answer>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut first, mut len, mut has_password) = (String::new(), 0, false);
        if !matches!(stream.read_line(&mut first).await, Ok(1..)) {
            return;
        }
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.is_err() || line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => len = value.trim().parse().unwrap(),
                // anna:secret
                "authorization" => has_password = value.trim() == "Basic YW5uYTpzZWNyZXQ=",
                _ => {}
            }
        }
        let mut body = vec![0; len];
        stream.read_exact(&mut body).await.unwrap();
        let mut words = first.split(' ').map(str::to_owned);
        let asked = Asked { method: words.next().unwrap(), path: words.next().unwrap(), has_password };
        log.lock().unwrap().push(asked.clone());
        if stream.write_all(answer(&asked).as_bytes()).await.is_err() {
            return;
        }
    }
}

fn http(status: &str, more: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn multistatus(responses: &str) -> String {
    let body = format!(
        "<multistatus xmlns='DAV:' xmlns:c='urn:ietf:params:xml:ns:carddav'>{responses}</multistatus>"
    );
    http("207 Multi-Status", "", &body)
}

fn response(href: &str, properties: &str) -> String {
    format!(
        "<response><href>{href}</href><propstat><prop>{properties}</prop><status>HTTP/1.1 200 OK</status></propstat></response>"
    )
}

const BOOK: &str = "<resourcetype><collection/><c:addressbook/></resourcetype>";

fn card(name: &str) -> String {
    format!(
        "<getetag>\"1\"</getetag><c:address-data>BEGIN:VCARD\r\nFN:{name}\r\nEND:VCARD\r\n</c:address-data>"
    )
}

/// A book at `/b/` with these cards; `listed` is what it is asked for first, `given` what it gives then.
fn book(listed: &'static str, given: String) -> impl Fn(&Asked) -> String {
    move |asked| match asked.method.as_str() {
        "REPORT" => multistatus(&given),
        _ => multistatus(&format!("{}{listed}", response("/b/", BOOK))),
    }
}

#[tokio::test]
async fn a_password_does_not_follow_where_a_server_sends_on_to() {
    let other = Server::start(|_| multistatus("")).await;
    let target = other.url.clone();
    let moved = move |asked: &Asked| match asked.path.as_str() {
        "/near" => multistatus(&response("/near", BOOK)),
        "/" => http("301 Moved", "Location: /near\r\n", ""),
        "/round" => http("302 Found", "Location: /round\r\n", ""),
        _ => http("307 Elsewhere", &format!("Location: {target}/\r\n"), ""),
    };
    let server = Server::start(moved).await;
    let mut copy = Copy::default();
    assert!(server.fetch("/", &mut copy).await.is_ok());
    assert!(server.asked.lock().unwrap().iter().all(|asked| asked.has_password));
    let elsewhere = server.fetch("/far", &mut copy).await.unwrap_err();
    assert!(matches!(&elsewhere, CardDavError::Elsewhere(to) if to.starts_with(&other.url)), "{elsewhere}");
    assert!(matches!(server.fetch("/round", &mut copy).await, Err(CardDavError::Redirects(_))));
    // A card, a book or a home that lies there is not asked for either.
    for (path, properties) in [
        ("home", "<c:addressbook-home-set><href>OTHER/</href></c:addressbook-home-set>"),
        ("who", "<current-user-principal><href>OTHER/</href></current-user-principal>"),
    ] {
        let properties = properties.replace("OTHER", &other.url);
        let server = Server::start(move |_| multistatus(&response("/x/", &properties))).await;
        let failed = server.fetch("/x/", &mut copy).await;
        assert!(matches!(failed, Err(CardDavError::Elsewhere(_))), "{path}");
    }
    assert!(other.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn half_an_address_book_is_none_and_the_copy_stays() {
    let mut copy = Copy::default();
    const TWO: &str = "<response><href>/b/1.vcf</href><propstat><prop><getetag>1</getetag></prop><status>HTTP/1.1 200 OK</status></propstat></response><response><href>/b/%32.vcf</href><propstat><prop><getetag>1</getetag></prop><status>HTTP/1.1 200 OK</status></propstat></response>";
    // Percent or not is the same name.
    let both = format!("{}{}", response("/b/%31.vcf", &card("One")), response("/b/2.vcf", &card("Two")));
    let server = Server::start(book(TWO, both)).await;
    assert_eq!(server.fetch("/b/", &mut copy).await.unwrap(), Fetched { changed: 2, removed: 0 });
    let good = copy.clone();
    let missing = Server::start(book(TWO, response("/b/1.vcf", &card("One")))).await;
    // Its etags are others than those of the card: both are asked for again.
    copy.books =
        good.books.iter().map(|(url, book)| (url.replace(&server.url, &missing.url), book.clone())).collect();
    let before = copy.clone();
    assert!(
        matches!(missing.fetch("/b/", &mut copy).await, Err(CardDavError::Missing(href)) if href == "/b/%32.vcf")
    );
    assert_eq!(copy, before);
    // One that is gone meanwhile is no reason to fail.
    let gone = "<response><href>/b/2.vcf</href><status>HTTP/1.1 404 Not Found</status></response>";
    let server = Server::start(book(TWO, response("/b/1.vcf", &card("One")) + gone)).await;
    assert_eq!(server.fetch("/b/", &mut Copy::default()).await.unwrap(), Fetched { changed: 1, removed: 0 });
}

#[tokio::test]
async fn bad_answers_end_in_an_error_each() {
    let unauthorized = Server::start(|_| http("401 Unauthorized", "", "")).await;
    let refused = unauthorized.fetch("/", &mut Copy::default()).await;
    assert!(matches!(refused, Err(CardDavError::Refused(name)) if name == "office"));
    let cases: [(&str, String); 4] = [
        ("status", http("500 No", "", "")),
        ("speak", http("207 Multi-Status", "", "<html><body>Welcome</body></html>")),
        ("speak", http("207 Multi-Status", "", "<multistatus xmlns='DAV:'><response>")),
        ("no address book", multistatus(&response("/x/", "<resourcetype/>"))),
    ];
    for (_, answer) in cases {
        let server = Server::start(move |_| answer.clone()).await;
        assert!(server.fetch("/x/", &mut Copy::default()).await.is_err());
    }
    let many: String = (0..=CARDDAV_BOOKS_MAX).map(|at| response(&format!("/x/{at}/"), BOOK)).collect();
    let home = "<c:addressbook-home-set><href>/home/</href></c:addressbook-home-set>";
    let server = Server::start(move |asked| {
        multistatus(&if asked.path == "/home/" { many.clone() } else { response("/x/", home) })
    })
    .await;
    assert!(matches!(server.fetch("/x/", &mut Copy::default()).await, Err(CardDavError::TooManyBooks)));
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let client = Client::new("office", &url, None, &Proxies::none(), "anna", "secret").unwrap();
    let sending = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Of the request whatever is there: an answer before it is none.
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 207 Multi-Status\r\n\r\n").await.unwrap();
        let mut sent = 0;
        while stream.write_all(&[b' '; 65_536]).await.is_ok() {
            sent += 65_536;
        }
        sent
    });
    let endless = fetch(&client, &mut Copy::default()).await;
    assert!(matches!(endless, Err(CardDavError::TooLong { .. })), "{endless:?}");
    drop(client);
    // What lies in the buffers of both sides comes on top.
    assert!(sending.await.unwrap() < CARDDAV_ANSWER_LEN_MAX + 32 * 1024 * 1024);
}

#[tokio::test]
async fn what_has_not_changed_is_not_asked_for_again() {
    const LISTED: &str = "<response><href>/b/1.vcf</href><propstat><prop><getetag>\"1\"</getetag></prop><status>HTTP/1.1 200 OK</status></propstat></response>";
    let server = Server::start(book(LISTED, response("/b/1.vcf", &card("One")))).await;
    let mut copy = Copy::default();
    server.fetch("/b/", &mut copy).await.unwrap();
    assert_eq!(server.asked(), ["PROPFIND /b/", "PROPFIND /b/", "REPORT /b/"]);
    assert_eq!(server.fetch("/b/", &mut copy).await.unwrap(), Fetched::default());
    assert_eq!(server.asked(), ["PROPFIND /b/", "PROPFIND /b/"]);
}

#[test]
fn a_copy_is_fetched_when_it_is_due_and_a_failure_a_little_later() {
    let server: CardDavConfig =
        toml::from_str("name = 'a'\nurl = 'https://a.example'\nusername = 'a'\nrefresh_minutes = 60")
            .unwrap();
    let at = |minutes: u64| UnixTime(1_000_000 + minutes * 60);
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let fetched = Copy { fetched: Some(at(0)), ..Copy::default() };
    assert_eq!(server.due(&Copy::default(), at(0)), Duration::ZERO);
    assert_eq!(server.due(&fetched, at(10)), minutes(50));
    assert_eq!(server.due(&fetched, at(60)), Duration::ZERO);
    // A clock that was set back holds it up for one interval at most.
    assert_eq!(server.due(&fetched, UnixTime(0)), minutes(60));
    let failed = Copy { failed: Some(Failed { at: at(60), why: String::new() }), ..fetched };
    assert_eq!(server.due(&failed, at(61)), CARDDAV_RETRY - minutes(1));
    assert_eq!(server.due(&failed, at(70)), Duration::ZERO);
}

#[test]
fn servers_have_names_of_their_own_that_are_file_names() {
    let read = |text: &str| toml::from_str::<crate::config::AddressBooksConfig>(text);
    let server =
        |name: &str| format!("[[carddav]]\nname = {name:?}\nurl = 'https://a.example'\nusername = 'a'\n");
    assert_eq!(read(&server("of-1")).unwrap().carddav[0].refresh_minutes, CARDDAV_REFRESH_MINUTES_DEFAULT);
    for name in ["", "..", "a/b", "ä", "a b", &"a".repeat(CARDDAV_NAME_LEN_MAX + 1)] {
        assert!(read(&server(name)).is_err(), "{name}");
    }
    assert!(read(&(server("a") + &server("A"))).unwrap_err().to_string().contains("two CardDAV servers"));
    let many: String = (0..=CARDDAV_SERVERS_MAX).map(|at| server(&format!("a{at}"))).collect();
    assert!(read(&many).is_err());
    assert!(read(&(server("a") + "refresh_minutes = 0\n")).is_err());
}
