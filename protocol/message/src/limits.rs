//! Every bound of this crate, with its unit and where it comes from; relations are asserted at compile time.
//!
//! Together they make the memory of one [`Detacher`](crate::Detacher) independent of the message: the largest header
//! block, the part held back until it passes the threshold, one block of input, one frame of the manifest.

use lighter_protocol::limits::{NAME_LEN_MAX as OFFER_NAME_LEN_MAX, OFFER_BLOBS_MAX};

/// Bytes gathered before work is done on them: large enough for BLAKE3 and base64 to run at full width.
pub const BLOCK_LEN: usize = 64 * 1024;

/// Bytes in a header block that is read for its structure. The longest seen in practice (trace, ARC and mailing-list
/// fields) are under 64 KiB; behind a longer one the message passes as it is.
pub const HEADER_BLOCK_LEN_MAX: usize = 128 * 1024;
/// Bytes in the header block of a part that may be detached: the block travels in the stub, in base64.
pub const PART_HEADER_LEN_MAX: usize = 16 * 1024;
/// Bytes of one parameter of a structured field, put together from its continuations.
pub const PARAMETER_LEN_MAX: usize = 8 * 1024;
/// Continuations (RFC 2231 §3) of one parameter that are put together.
pub const CONTINUATIONS_MAX: usize = 1_000;

/// Multiparts and enclosed messages within each other. Real mail stays under ten.
pub const DEPTH_MAX: usize = 64;
/// Header blocks read in one message: behind the last, the message passes as it is.
pub const ENTITIES_MAX: usize = 10_000;
/// Parts detached from one message; further ones stay in it.
pub const PARTS_MAX: usize = 500;
/// Octets in a boundary (RFC 2046 §5.1.1). What is longer is read differently by different readers.
pub const BOUNDARY_LEN_MAX: usize = 70;
/// Bytes of a line that are looked at to tell whether it is a delimiter: two dashes, the boundary, two dashes, a line
/// end, and some padding.
pub const DELIMITER_LINE_LEN_MAX: usize = 256;

/// Decoded bytes below which a part stays in the message, unless policy says otherwise: 256 KiB.
pub const MIN_SIZE_DEFAULT: usize = 256 * 1024;
/// The highest threshold: that much of a part is held in memory, once as it came and once decoded.
pub const MIN_SIZE_MAX: usize = 16 * 1024 * 1024;
/// Bytes that a recipe may add verbatim behind the encoded blob: some blank lines, or a mailing list's footer.
pub const TAIL_LEN_MAX: usize = 1024;

/// Bytes in one literal frame of a manifest.
pub const LITERAL_LEN_MAX: usize = 64 * 1024;
/// Bytes in a part's entry in a manifest: its header block, name, type, recipe and fixed fields.
pub const PART_ENTRY_LEN_MAX: usize = 24 * 1024;

/// Bytes in a part's shown name and in its media type: what an offer may carry.
pub const NAME_LEN_MAX: usize = 200;
/// Bytes of a name, subject, address or message id as the message gave it, kept for cards and notices.
pub const FACT_LEN_MAX: usize = 512;

/// Bytes above `Lighter-Message` in a stub: what servers on its way added.
pub const ABOVE_LEN_MAX: usize = 256 * 1024;
/// Bytes in one of the stub's own fields, folded: a part's header block in base64, and some.
pub const FIELD_LEN_MAX: usize = 40 * 1024;
/// Bytes in a placeholder, its header fields included. A root part's placeholder also shows the message's own fields.
pub const PLACEHOLDER_LEN_MAX: usize = PART_HEADER_LEN_MAX + FIELD_LEN_MAX;
/// Octets in the address of a landing page.
pub const LINK_LEN_MAX: usize = 512;

const _: () = assert!(PARTS_MAX < OFFER_BLOBS_MAX);
const _: () = assert!(NAME_LEN_MAX + ".html".len() <= OFFER_NAME_LEN_MAX);
const _: () =
    assert!(PART_HEADER_LEN_MAX + TAIL_LEN_MAX + 3 * OFFER_NAME_LEN_MAX + 256 <= PART_ENTRY_LEN_MAX);
const _: () = assert!((PART_HEADER_LEN_MAX + TAIL_LEN_MAX) * 4 / 3 * 80 / 70 + 1024 <= FIELD_LEN_MAX);
const _: () = assert!(BOUNDARY_LEN_MAX + 6 < DELIMITER_LINE_LEN_MAX);
const _: () = assert!(DELIMITER_LINE_LEN_MAX < BLOCK_LEN && PART_HEADER_LEN_MAX < HEADER_BLOCK_LEN_MAX);
