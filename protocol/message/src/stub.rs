//! From a manifest to one recipient's stub: the same message with a placeholder where each detached part stood.

use lighter_protocol::{DeliveryId, UnixTime};

use crate::fields::{MessageField, PartField};
use crate::header::split_field;
use crate::limits::LINK_LEN_MAX;
use crate::line_end::LineEnd;
use crate::manifest::{Entry, ManifestError, ManifestReader, PartEntry, Totals};
use crate::placeholder::Placeholder;

/// What a stub says to its recipient, beyond what is in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StubContext {
    /// The recipient's delivery.
    pub delivery: DeliveryId,
    /// The address of the delivery's landing page, ending in `/`; the n-th attachment is at `{landing}{n}/{name}`.
    /// `None` for a stub made by a sending agent: its attachments are in the recipient's store only.
    pub landing: Option<String>,
    /// Until when they can be fetched from there.
    pub expires: Option<UnixTime>,
}

/// Makes a stub from a manifest, in pieces. The manifest says only at its end what the stub has to say at its
/// beginning: the totals come from whoever kept the [`Summary`](crate::Summary), and are checked.
#[derive(Debug)]
pub struct StubWriter {
    context: StubContext,
    totals: Totals,
    reader: ManifestReader,
    line_end: LineEnd,
    begun: bool,
    /// Parts written so far.
    parts: u32,
}

impl StubWriter {
    /// A stub for that delivery, of the message with those totals. A message of which nothing was detached is written
    /// unchanged.
    pub fn new(context: StubContext, totals: Totals) -> Self {
        let context = StubContext { landing: context.landing.filter(|landing| is_link(landing)), ..context };
        let line_end = totals.line_ends.written();
        Self { context, totals, reader: ManifestReader::new(), line_end, begun: false, parts: 0 }
    }

    /// Takes the manifest's next bytes and appends what they become.
    pub fn push(&mut self, manifest: &[u8], stub: &mut Vec<u8>) -> Result<(), ManifestError> {
        self.reader.push(manifest);
        while let Some(entry) = self.reader.next_entry()? {
            let is_first = !std::mem::replace(&mut self.begun, true);
            if is_first && self.totals.parts > 0 {
                let field = MessageField { delivery: self.context.delivery, totals: self.totals };
                field.write(self.line_end, stub);
            }
            match entry {
                Entry::Literal(bytes) => stub.extend_from_slice(&bytes),
                Entry::Part(part) => self.part(&part, is_first, stub),
                Entry::End(totals) if totals == self.totals => {}
                Entry::End(_) => return Err(ManifestError::Totals),
            }
        }
        Ok(())
    }

    /// The manifest has ended: was that all of it?
    pub fn finish(&self) -> Result<(), ManifestError> {
        self.reader.finish()
    }

    fn part(&mut self, part: &PartEntry, is_root: bool, stub: &mut Vec<u8>) {
        PartField::write(self.context.delivery, part, self.line_end, stub);
        // Of a message that is one part, its own fields stay for all to see, and only those that spoke of the body go.
        // The same holds for a message within the message.
        shown_fields(&part.header, stub);
        Placeholder { part, number: self.parts, context: &self.context, is_root }.write(self.line_end, stub);
        self.parts += 1;
    }
}

/// Appends the fields of `header` that do not speak of the body, as they stand.
fn shown_fields(header: &[u8], stub: &mut Vec<u8>) {
    let mut shown = false;
    for line in header.split_inclusive(|byte| *byte == b'\n') {
        if matches!(line, b"\n" | b"\r\n") {
            break;
        }
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            shown = split_field(line).is_some_and(|(name, _)| {
                let name = name.to_ascii_lowercase();
                !name.starts_with(b"content-") && !name.starts_with(b"lighter-") && name != b"mime-version"
            });
        }
        if shown && line.ends_with(b"\n") {
            stub.extend_from_slice(line);
        }
    }
}

/// An address that may stand in a header field and in a page: http or https, visible ASCII, bounded.
fn is_link(address: &str) -> bool {
    let is_web = address.starts_with("https://") || address.starts_with("http://");
    let harmless = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|};'".contains(&byte);
    is_web && address.len() <= LINK_LEN_MAX && address.ends_with('/') && address.bytes().all(harmless)
}
