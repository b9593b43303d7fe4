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
//! # fn read_smtp() -> Vec<Vec<u8>> { vec![b"Subject: Hello\r\n\r\nText\r\n".to_vec()] }
//! # let mut manifest: Vec<u8> = Vec::new();
//! # let mut blob: Vec<u8> = Vec::new();
//! let mut detacher = Detacher::new(Policy::default());
//! let mut summary = None;
//! let mut pieces = read_smtp().into_iter();
//! while summary.is_none() {
//!     match pieces.next() {
//!         Some(piece) => detacher.push(&piece),
//!         None => detacher.finish(),
//!     }
//!     while let Some(event) = detacher.poll_event() {
//!         match event {
//!             Event::Manifest(frames) => manifest.extend_from_slice(&frames),
//!             Event::BlobStart { .. } => blob.clear(),
//!             Event::BlobData(bytes) => blob.extend_from_slice(&bytes),
//!             Event::BlobRestart { len } => {
//!                 // Read back what was stored of this blob, begin a new one, feed the first back in.
//!                 let first = std::mem::take(&mut blob);
//!                 assert_eq!(first.len() as u64, len);
//!                 for piece in first.chunks(65_536) {
//!                     detacher.replay(piece).expect("the storage gave back what it took");
//!                     while let Some(Event::BlobData(bytes)) = detacher.poll_event() {
//!                         blob.extend_from_slice(&bytes);
//!                     }
//!                     # // (A server drains in its one outer loop instead, like `drive::drain`: other events may follow.)
//!                 }
//!             }
//!             Event::BlobEnd { id, size } => assert_eq!((size, id), (blob.len() as u64, id)),
//!             Event::End(end) => summary = Some(end),
//!         }
//!     }
//! }
//! let summary = summary.expect("the loop ends with it");
//! assert_eq!(summary.subject.as_deref(), Some("Hello"));
//! ```
//!
//! After the last piece of a replay, the events of the rest of the message follow in the same queue: see
//! [`drive::drain`] for a loop that takes both.
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
