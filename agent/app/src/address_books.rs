//! The sender's address books: a group that is written to is replaced by its members before anything is decided
//! (SPEC A11), so that each of them is a recipient on their own (SPEC A10).
//!
//! ```text
//!   files ──────── reads the books' files
//!   carddav ────── fetches books from servers, and keeps copies of them
//!   format ─────── bytes → cards: `text`, then `vcard`, `ldif` or `csv`
//!   book ───────── the cards of one book, members looked up: a graph of groups
//!   expand ─────── a group → its mailboxes, each once; cycles end
//!   recipients ─── what stands behind --to and --cc → the message's recipients, or why not
//!   view ───────── what `lighter-agent groups` shows
//! ```
//!
//! What is wrong in a file does not hide the rest of it; but a message never goes to a part of a group unasked: a
//! member without an address, or a group of which a part could not be read, is an error, and nothing is sent.
//!
//! vCard and LDIF are read by parsers of our own: what groups need of them is little (names, addresses, members), and
//! the crates that read them whole bring dozens of others. No parser recurses, and each has its bounds in `limits`.

pub mod book;
pub mod card;
pub mod carddav;
mod csv;
pub mod expand;
mod files;
pub mod format;
mod ldif;
mod names;
pub mod recipients;
mod text;
mod vcard;
mod view;

#[cfg(test)]
mod tests;

pub use files::read;
pub use view::BooksView;
