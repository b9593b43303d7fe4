//! WebDAV's answers: a 207 with what is known of each resource (RFC 4918 §13), of which CardDAV needs little (RFC 6352).
//!
//! Elements are told apart by namespace and name, never by prefix. No entity but XML's own five is replaced, so nothing
//! grows while it is read; nothing here recurses.

use quick_xml::NsReader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;
use quick_xml::name::{Namespace, ResolveResult};

use crate::limits::{CARDDAV_DEPTH_MAX, CARDDAV_RESOURCES_MAX};

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultistatusError {
    /// It is no XML, or ends too early.
    #[error("it is not well-formed at byte {at}")]
    Malformed {
        /// Where.
        at: u64,
    },
    /// It is XML, but no `DAV:multistatus`.
    #[error("it is no multistatus")]
    Other,
    /// Elements in elements without end.
    #[error("its elements are nested deeper than {CARDDAV_DEPTH_MAX}")]
    TooDeep,
    /// More resources than any address book has.
    #[error("it tells of more than {CARDDAV_RESOURCES_MAX} resources")]
    TooMany,
}

/// What an answer says of one resource. Properties that the server does not give are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Where it is: a path, or a whole address (RFC 4918 §8.3).
    pub href: String,
    /// What the server says of the resource as a whole, as an HTTP status.
    pub status: Option<u16>,
    /// Whether it holds other resources.
    pub is_collection: bool,
    /// Whether it is an address book (RFC 6352 §5.2).
    pub is_address_book: bool,
    /// What its owner calls it.
    pub display_name: Option<String>,
    /// Its version; another one, once it has changed (RFC 9110 §8.8.3).
    pub etag: Option<String>,
    /// A collection's version; another one, once something in it has changed: its `sync-token` (RFC 6578 §4), or
    /// calendarserver.org's `getctag`.
    pub version: Option<String>,
    /// The card (RFC 6352 §10.4).
    pub card: Option<String>,
    /// Who is asking, as a resource (RFC 5397).
    pub principal: Option<String>,
    /// Where a user's address books are (RFC 6352 §7.1.1).
    pub homes: Vec<String>,
}

/// The elements that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Multistatus,
    Response,
    Href,
    Status,
    Propstat,
    ResourceType,
    Collection,
    AddressBook,
    DisplayName,
    Etag,
    SyncToken,
    Ctag,
    AddressData,
    Principal,
    Homes,
    Other,
}

impl Element {
    fn of(namespace: &ResolveResult<'_>, name: &[u8]) -> Self {
        let ResolveResult::Bound(Namespace(namespace)) = namespace else { return Self::Other };
        match (*namespace, name) {
            (b"DAV:", b"multistatus") => Self::Multistatus,
            (b"DAV:", b"response") => Self::Response,
            (b"DAV:", b"href") => Self::Href,
            (b"DAV:", b"status") => Self::Status,
            (b"DAV:", b"propstat") => Self::Propstat,
            (b"DAV:", b"resourcetype") => Self::ResourceType,
            (b"DAV:", b"collection") => Self::Collection,
            (b"DAV:", b"displayname") => Self::DisplayName,
            (b"DAV:", b"getetag") => Self::Etag,
            (b"DAV:", b"sync-token") => Self::SyncToken,
            (b"DAV:", b"current-user-principal") => Self::Principal,
            (b"http://calendarserver.org/ns/", b"getctag") => Self::Ctag,
            (b"urn:ietf:params:xml:ns:carddav", b"addressbook") => Self::AddressBook,
            (b"urn:ietf:params:xml:ns:carddav", b"address-data") => Self::AddressData,
            (b"urn:ietf:params:xml:ns:carddav", b"addressbook-home-set") => Self::Homes,
            _ => Self::Other,
        }
    }
}

/// The resources that an answer tells of, in its order.
///
/// # Errors
/// [`MultistatusError`]; any text gives a value.
pub fn parse(text: &str) -> Result<Vec<Resource>, MultistatusError> {
    let mut xml = NsReader::from_str(text);
    let mut answer = Answer::default();
    loop {
        let at = xml.buffer_position();
        let malformed = || MultistatusError::Malformed { at };
        match xml.read_resolved_event().map_err(|_| malformed())? {
            (namespace, Event::Start(start)) => {
                answer.start(Element::of(&namespace, start.local_name().as_ref()))?;
            }
            (namespace, Event::Empty(start)) => {
                answer.start(Element::of(&namespace, start.local_name().as_ref()))?;
                answer.end()?;
            }
            (_, Event::End(_)) => answer.end()?,
            (_, Event::Text(part)) => answer.text.push_str(&part.decode().map_err(|_| malformed())?),
            (_, Event::CData(part)) => answer.text.push_str(&part.decode().map_err(|_| malformed())?),
            (_, Event::GeneralRef(entity)) => match entity.resolve_char_ref().map_err(|_| malformed())? {
                Some(character) => answer.text.push(character),
                None => {
                    let name = entity.decode().map_err(|_| malformed())?;
                    answer.text.push_str(resolve_xml_entity(&name).ok_or_else(malformed)?);
                }
            },
            (_, Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_)) => {}
            (_, Event::Eof) => return answer.finish().ok_or_else(malformed)?,
        }
    }
}

/// An answer that is being read.
#[derive(Debug, Default)]
struct Answer {
    open: Vec<Element>,
    is_multistatus: bool,
    resources: Vec<Resource>,
    /// The response that is open.
    response: Resource,
    /// The properties of the propstat that is open: they count only with a status of success, which stands behind them.
    found: Resource,
    /// Characters since the last tag.
    text: String,
}

impl Answer {
    fn start(&mut self, element: Element) -> Result<(), MultistatusError> {
        if self.open.len() == CARDDAV_DEPTH_MAX {
            return Err(MultistatusError::TooDeep);
        }
        match (self.open.as_slice(), element) {
            ([], Element::Multistatus) => self.is_multistatus = true,
            ([], _) => return Err(MultistatusError::Other),
            ([Element::Multistatus], Element::Response) => {
                if self.resources.len() == CARDDAV_RESOURCES_MAX {
                    return Err(MultistatusError::TooMany);
                }
                self.response = Resource::default();
            }
            (_, Element::Propstat) => self.found = Resource::default(),
            (_, Element::Collection) if self.is_in(Element::ResourceType) => self.found.is_collection = true,
            (_, Element::AddressBook) if self.is_in(Element::ResourceType) => {
                self.found.is_address_book = true;
            }
            _ => {}
        }
        self.text.clear();
        self.open.push(element);
        Ok(())
    }

    fn end(&mut self) -> Result<(), MultistatusError> {
        // The reader has checked that tags match.
        let Some(element) = self.open.pop() else { return Err(MultistatusError::Other) };
        let text = std::mem::take(&mut self.text);
        let word = || text.trim().to_owned();
        match element {
            Element::Response if self.open == [Element::Multistatus] => {
                self.resources.push(std::mem::take(&mut self.response));
            }
            Element::Href => match self.open.last() {
                Some(Element::Response) => self.response.href = word(),
                Some(Element::Principal) => self.found.principal = Some(word()),
                Some(Element::Homes) => self.found.homes.push(word()),
                _ => {}
            },
            Element::Status => match self.open.last() {
                Some(Element::Response) => self.response.status = status(&text),
                Some(Element::Propstat) => self.found.status = status(&text),
                _ => {}
            },
            Element::Propstat => {
                let found = std::mem::take(&mut self.found);
                if found.status.is_some_and(|status| (200..300).contains(&status)) {
                    self.response.take(found);
                }
            }
            Element::DisplayName => self.found.display_name = Some(word()).filter(|name| !name.is_empty()),
            Element::Etag => self.found.etag = Some(word()),
            Element::SyncToken => self.found.version = Some(word()),
            Element::Ctag => self.found.version = self.found.version.take().or_else(|| Some(word())),
            Element::AddressData => self.found.card = Some(text),
            _ => {}
        }
        Ok(())
    }

    fn is_in(&self, element: Element) -> bool {
        self.open.last() == Some(&element)
    }

    /// All is read; none where elements are still open.
    fn finish(self) -> Option<Result<Vec<Resource>, MultistatusError>> {
        match (self.open.is_empty(), self.is_multistatus) {
            (true, true) => Some(Ok(self.resources)),
            (true, false) => Some(Err(MultistatusError::Other)),
            (false, _) => None,
        }
    }
}

impl Resource {
    /// Adds properties that were found; there may be several propstats of success.
    fn take(&mut self, found: Self) {
        self.is_collection |= found.is_collection;
        self.is_address_book |= found.is_address_book;
        self.display_name = self.display_name.take().or(found.display_name);
        self.etag = self.etag.take().or(found.etag);
        self.version = self.version.take().or(found.version);
        self.card = self.card.take().or(found.card);
        self.principal = self.principal.take().or(found.principal);
        self.homes.extend(found.homes);
    }
}

/// The code of a status line: `HTTP/1.1 200 OK`.
fn status(line: &str) -> Option<u16> {
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_count_where_the_server_has_them_whatever_prefixes_it_uses() {
        let text = r#"<?xml version="1.0"?>
            <D:multistatus xmlns:D="DAV:" xmlns="urn:ietf:params:xml:ns:carddav" xmlns:x="http://calendarserver.org/ns/">
              <D:response><D:href>/anna/team%20a/</D:href>
                <D:propstat><D:prop>
                    <D:resourcetype><D:collection/><addressbook/></D:resourcetype>
                    <D:displayname>A &amp; B&#x21;</D:displayname><x:getctag>"7"</x:getctag>
                  </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>
                <D:propstat><D:prop><D:getetag/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>
              </D:response>
              <D:response><D:href>/anna/gone.vcf</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>
            </D:multistatus>"#;
        let book = Resource {
            href: "/anna/team%20a/".to_owned(),
            is_collection: true,
            is_address_book: true,
            display_name: Some("A & B!".to_owned()),
            version: Some("\"7\"".to_owned()),
            ..Resource::default()
        };
        let gone = Resource { href: "/anna/gone.vcf".to_owned(), status: Some(404), ..Resource::default() };
        assert_eq!(parse(text).unwrap(), [book, gone]);
    }

    #[test]
    fn a_card_keeps_its_lines_in_any_quoting() {
        let card = "BEGIN:VCARD\r\nFN:A & B\r\nEND:VCARD\r\n";
        let quoted = card.replace('&', "&amp;").replace('\r', "&#13;");
        for inner in [quoted, format!("<![CDATA[{card}]]>")] {
            let text = format!(
                "<multistatus xmlns='DAV:'><response><href>/a.vcf</href><propstat><prop>\
                 <address-data xmlns='urn:ietf:params:xml:ns:carddav'>{inner}</address-data>\
                 </prop><status>HTTP/1.1 200 OK</status></propstat></response></multistatus>"
            );
            assert_eq!(parse(&text).unwrap()[0].card.as_deref(), Some(card));
        }
    }

    #[test]
    fn what_is_no_answer_is_said() {
        let deep = format!("<multistatus xmlns='DAV:'>{}", "<a>".repeat(CARDDAV_DEPTH_MAX));
        assert_eq!(parse(&deep), Err(MultistatusError::TooDeep));
        for other in ["", "<html></html>", "<multistatus/>", "no XML at all"] {
            assert_eq!(parse(other), Err(MultistatusError::Other), "{other}");
        }
        // Entities of its own, the way to answers that grow, are not read.
        let growing = "<!DOCTYPE a [<!ENTITY b 'bbbb'>]><multistatus xmlns='DAV:'>&b;</multistatus>";
        for cut in ["<multistatus xmlns='DAV:'>", "<multistatus xmlns='DAV:'></response>", growing] {
            assert!(matches!(parse(cut), Err(MultistatusError::Malformed { .. })), "{cut}");
        }
    }
}
