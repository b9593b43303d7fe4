//! Taking attachments out of mail while it streams by, and putting them back byte for byte (DESIGN §5).
//!
//! What the recipient's mail server keeps is the **stub**: the same message with a small readable **placeholder** where
//! each detached part stood. What Lighter keeps is the **manifest** (the message's literal bytes and its parts in order)
//! and a **blob** for each part. Stub or manifest, together with the blobs, give the original back, and prove it.
//!
//! Nothing here does I/O. Each machine is a value: bytes go in, events come out, and memory does not grow with the
//! message ([`limits`]):
//!
//! | machine | from | to |
//! |---|---|---|
//! | [`Detacher`] | message | manifest, blobs, [`Summary`] |
//! | [`StubWriter`] | manifest, [`StubContext`], [`Totals`] | one recipient's stub |
//! | [`OriginalWriter`] | manifest, blobs | original, verified |
//! | [`Restorer`] | stub, blobs | original, verified; or told apart |
//!
//! [`drive`] runs them over `std::io`, for commands and tests. A server writes the same loops over its own storage:
//!
//! # Taking in
//!
//! ```
//! use lighter_message::{Detacher, Event, Policy};
//!
//! # let message = b"Subject: Hello\r\n\r\nText\r\n";
//! # let mut pieces = message.chunks(7);
//! let mut detacher = Detacher::new(Policy::default());
//! let (mut manifest, mut blob) = (Vec::new(), Vec::new());
//! let mut first_copy: Option<Vec<u8>> = None;
//! let summary = loop {
//!     match detacher.poll_event() {
//!         Some(Event::Manifest(frames)) => manifest.extend_from_slice(&frames),
//!         Some(Event::BlobStart { .. }) => blob.clear(),
//!         Some(Event::BlobData(bytes)) => blob.extend_from_slice(&bytes),
//!         // A new blob begins; what was stored of the first one is to be read back.
//!         Some(Event::BlobRestart { .. }) => first_copy = Some(std::mem::take(&mut blob)),
//!         Some(Event::BlobEnd { size, .. }) => assert_eq!(size, blob.len() as u64),
//!         Some(Event::End(summary)) => break summary,
//!         // It waits: for the first copy, in as many pieces as one likes, or for more of the message.
//!         None => match first_copy.take() {
//!             Some(first) => detacher.replay(&first)?,
//!             None => match pieces.next() {
//!                 Some(piece) => detacher.push(piece),
//!                 None => detacher.finish(),
//!             },
//!         },
//!     }
//! };
//! assert_eq!(summary.subject.as_deref(), Some("Hello"));
//! # Ok::<(), lighter_message::ReplayError>(())
//! ```
//!
//! # Handing on, and back again
//!
//! ```
//! use lighter_message::drive::{self, MemoryBlobs};
//! use lighter_message::{FromStub, Policy, StubContext};
//! use lighter_protocol::{DeliveryId, UnixTime};
//!
//! let message = b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n";
//! let (mut manifest, mut blobs) = (Vec::new(), MemoryBlobs::new());
//! let summary = drive::detach(Policy::everything(), &mut &message[..], &mut manifest, &mut blobs)?;
//! assert_eq!(blobs.get(summary.parts[0].blob), Some(&b"ABC"[..]));
//!
//! let context = StubContext {
//!     delivery: DeliveryId([7; 16]),
//!     landing: Some("https://relay.example.org/t/TOKEN/".to_owned()),
//!     expires: Some(UnixTime(1_797_811_200)),
//! };
//! let mut stub = Vec::new();
//! drive::write_stub(&mut manifest.as_slice(), context, summary.totals, &mut stub)?;
//! assert!(stub.starts_with(b"Lighter-Message: v=1;"));
//!
//! let mut original = Vec::new();
//! let end = drive::restore(&mut stub.as_slice(), &mut |id| blobs.open(id), &mut original)?;
//! assert!(matches!(end, FromStub::Verified(_)));
//! assert_eq!(original, message);
//! # Ok::<(), drive::DriveError>(())
//! ```
//!
//! Where a server on the way rewrote the stub, [`Restorer`] ends with [`FromStub::Mismatch`]; then the manifest is used,
//! behind the bytes that it kept of what stood above.

mod body;
pub mod detach;
pub mod drive;
pub mod fields;
mod header;
mod leaf;
pub mod limits;
pub mod line_end;
pub mod manifest;
pub mod name;
mod original;
mod placeholder;
pub mod policy;
mod rebuild;
pub mod recipe;
mod restore;
mod scan;
mod stub;

pub use detach::{Detacher, Event, PartFacts, PartSummary, Summary};
pub use fields::{MessageField, PartField};
pub use leaf::ReplayError;
pub use manifest::{ManifestError, ManifestReader, PartEntry, Totals};
pub use original::{FromManifest, OriginalWriter};
pub use policy::Policy;
pub use rebuild::{FeedError, Rebuilt};
pub use recipe::Recipe;
pub use restore::{FromStub, Restorer};
pub use stub::{StubContext, StubWriter};
