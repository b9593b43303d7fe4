//! Fetching: the user's address books are found, and of each one what has changed since the copy.

use std::collections::BTreeMap;

use hyper::Uri;
use percent_encoding::percent_decode_str;

use super::client::{CardDavError, Client, Depth};
use super::copy::{BookCopy, CardCopy, Copy};
use super::multistatus::Resource;
use crate::limits::{CARDDAV_BOOKS_MAX, CARDDAV_CARDS_AT_ONCE};

/// What a fetch brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fetched {
    /// Cards that are new, or were changed.
    pub(super) changed: usize,
    /// Cards that are no longer there.
    pub(super) removed: usize,
}

/// Brings `copy` up to what the server has. It is left as it was where anything fails: half an address book would be a
/// group without some of its members.
///
/// # Errors
/// [`CardDavError`].
pub(super) async fn fetch(client: &Client, copy: &mut Copy) -> Result<Fetched, CardDavError> {
    let mut books = BTreeMap::new();
    let mut fetched = Fetched::default();
    for (uri, found) in find(client).await? {
        let known = copy.books.get(&uri.to_string());
        let (book, of_book) = update(client, &uri, found, known).await?;
        fetched.changed += of_book.changed;
        fetched.removed += of_book.removed;
        books.insert(uri.to_string(), book);
    }
    let is_gone = |(uri, _): &(&String, &BookCopy)| !books.contains_key(*uri);
    fetched.removed += copy.books.iter().filter(is_gone).map(|(_, book)| book.cards.len()).sum::<usize>();
    copy.books = books;
    Ok(fetched)
}

const ABOUT_A_BOOK: &str = "<resourcetype/><displayname/><sync-token/><s:getctag/>";

/// The address books: the one that the address names, or all of the user's (RFC 6352 §7.1, RFC 6764 §6).
async fn find(client: &Client) -> Result<Vec<(Uri, Resource)>, CardDavError> {
    let begin = client.base();
    let what = format!("{ABOUT_A_BOOK}<current-user-principal/><c:addressbook-home-set/>");
    let mut asked = client.properties(begin, Depth::Zero, &what).await;
    // A server's root need not know of CardDAV: that address is for it.
    let is_unknown = |asked: &Result<(Uri, Vec<Resource>), CardDavError>| match asked {
        Ok((_, found)) => {
            found.iter().all(|one| one.principal.is_none() && one.homes.is_empty() && !one.is_address_book)
        }
        Err(CardDavError::Status { .. } | CardDavError::Answer { .. }) => true,
        Err(_) => false,
    };
    if begin.path() == "/" && is_unknown(&asked) {
        asked = client.properties(&client.at(begin, WELL_KNOWN)?, Depth::Zero, &what).await;
    }
    let (uri, found) = asked?;
    let Some(first) = found.into_iter().next() else { return Err(no_books(client)) };
    if first.is_address_book {
        return Ok(vec![(uri, first)]);
    }
    let homes = match (first.homes.is_empty(), &first.principal) {
        (false, _) => (uri, first.homes),
        (true, Some(principal)) => {
            let principal = client.at(&uri, principal)?;
            let (uri, found) =
                client.properties(&principal, Depth::Zero, "<c:addressbook-home-set/>").await?;
            (uri, found.into_iter().flat_map(|one| one.homes).collect())
        }
        // An address of the home itself.
        (true, None) => (uri.clone(), vec![uri.path().to_owned()]),
    };
    let mut books = Vec::new();
    for home in &homes.1 {
        let (uri, found) = client.properties(&client.at(&homes.0, home)?, Depth::One, ABOUT_A_BOOK).await?;
        for book in found.into_iter().filter(|one| one.is_address_book) {
            if books.len() == CARDDAV_BOOKS_MAX {
                return Err(CardDavError::TooManyBooks);
            }
            books.push((client.at(&uri, &book.href)?, book));
        }
    }
    if books.is_empty() { Err(no_books(client)) } else { Ok(books) }
}

/// RFC 6764 §5.
const WELL_KNOWN: &str = "/.well-known/carddav";

fn no_books(client: &Client) -> CardDavError {
    CardDavError::NoBooks(client.host())
}

/// One book: as it is known, where nothing in it has changed.
async fn update(
    client: &Client,
    uri: &Uri,
    found: Resource,
    known: Option<&BookCopy>,
) -> Result<(BookCopy, Fetched), CardDavError> {
    let name = found.display_name.unwrap_or_else(|| last_part(uri.path()));
    if let Some(known) = known
        && known.version.is_some()
        && known.version == found.version
    {
        return Ok((BookCopy { name, ..known.clone() }, Fetched::default()));
    }
    // Asked before the cards: what changes meanwhile is fetched the next time.
    let mut book = BookCopy { name, version: found.version, cards: BTreeMap::new() };
    let (listed_at, listed) = client.properties(uri, Depth::One, "<resourcetype/><getetag/>").await?;
    let mut wanted: Vec<(String, String)> = Vec::new();
    for card in listed.into_iter().filter(|one| !one.is_collection && one.status.is_none()) {
        // On this server, whatever it names.
        let key = key(&client.at(&listed_at, &card.href)?);
        let kept = known.and_then(|known| known.cards.get(&key));
        match kept.filter(|kept| kept.etag.is_some() && kept.etag == card.etag) {
            Some(kept) => {
                book.cards.insert(key, kept.clone());
            }
            None => wanted.push((key, card.href)),
        }
    }
    let mut fetched = Fetched::default();
    for some in wanted.chunks(CARDDAV_CARDS_AT_ONCE) {
        let hrefs: Vec<&str> = some.iter().map(|(_, href)| href.as_str()).collect();
        let mut answers: BTreeMap<String, Resource> = BTreeMap::new();
        for answer in client.cards(uri, &hrefs).await? {
            answers.insert(key(&client.at(uri, &answer.href)?), answer);
        }
        for (wanted, href) in some {
            match answers.remove(wanted) {
                Some(Resource { card: Some(text), etag, .. }) => {
                    fetched.changed += 1;
                    book.cards.insert(wanted.clone(), CardCopy { etag, text });
                }
                // Removed since it was listed.
                Some(Resource { status: Some(404 | 410), .. }) => {}
                _ => return Err(CardDavError::Missing(href.clone())),
            }
        }
    }
    let is_gone = |key: &&String| !book.cards.contains_key(*key);
    fetched.removed = known.map_or(0, |known| known.cards.keys().filter(is_gone).count());
    Ok((book, fetched))
}

/// A card's name: servers write the same path with more or fewer characters in percent.
fn key(uri: &Uri) -> String {
    percent_decode_str(uri.path()).decode_utf8_lossy().into_owned()
}

fn last_part(path: &str) -> String {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    percent_decode_str(last).decode_utf8_lossy().into_owned()
}
