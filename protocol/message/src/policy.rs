//! Which parts may leave a message. Whatever policy says, a part leaves only when restoring it has been proved.

use crate::header::Header;
use crate::limits::{MIN_SIZE_DEFAULT, MIN_SIZE_MAX};

/// Which parts may be detached (DESIGN §5, 'Left alone by default').
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether anything may be detached at all. Otherwise the manifest holds the whole message, literally.
    pub detach: bool,
    /// Decoded bytes below which a part stays in the message; at least 1, at most
    /// [`MIN_SIZE_MAX`].
    pub min_size: usize,
    /// Also what is at or below `multipart/signed` and `multipart/encrypted`, and PKCS#7 and PGP parts: for a mailbox
    /// that is read only through an agent. Restored, it verifies.
    pub signed_and_encrypted: bool,
    /// Also the text of the message: plain text and HTML that is not called an attachment, and the children of
    /// `multipart/alternative`.
    pub text: bool,
    /// Also parts that others refer to: by `cid:`, or by place in `multipart/related`.
    pub shown_inline: bool,
    /// Also parts that programs read: calendar parts, `message/*`, and what is below `multipart/report` and
    /// `multipart/appledouble`.
    pub structured: bool,
    /// Also where readers differ about the message's structure: one reading is chosen, and what it finds is detached.
    /// Restoring does not depend on the reading.
    pub ambiguous: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            detach: true,
            min_size: MIN_SIZE_DEFAULT,
            signed_and_encrypted: false,
            text: false,
            shown_inline: false,
            structured: false,
            ambiguous: false,
        }
    }
}

impl Policy {
    /// All that is provable, from 1 byte.
    pub fn everything() -> Self {
        Self {
            detach: true,
            min_size: 1,
            signed_and_encrypted: true,
            text: true,
            shown_inline: true,
            structured: true,
            ambiguous: true,
        }
    }

    /// Nothing: for a message whose recipients all get it whole. Its manifest is kept like any other.
    pub fn nothing() -> Self {
        Self { detach: false, ..Self::default() }
    }

    /// The threshold within its bounds.
    pub(crate) fn threshold(&self) -> usize {
        self.min_size.clamp(1, MIN_SIZE_MAX)
    }

    /// Whether a leaf part with this header, standing there, may be detached.
    pub(crate) fn lets_go(&self, header: &Header, standing: Standing) -> bool {
        let Standing { parent, sealed, fixed } = standing;
        self.detach
            && (self.ambiguous || !header.odd)
            && (self.signed_and_encrypted || !(sealed || is_secured(header)))
            && (self.structured || !(fixed || is_structured(header)))
            && (self.text || !(parent == Parent::Alternative || is_text_body(header)))
            && (self.shown_inline || !is_shown_inline(header, parent))
            && !header.has_lighter_field
    }
}

/// Where an entity stands in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) parent: Parent,
    /// At or below something signed or encrypted.
    pub(crate) sealed: bool,
    /// At or below something whose parts programs read.
    pub(crate) fixed: bool,
}

/// What an entity is directly in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Parent {
    /// Nothing: it is the message, or a message enclosed in one.
    #[default]
    Message,
    Alternative,
    Related,
    /// Its children are messages where they do not say otherwise (RFC 2046 §5.1.5).
    Digest,
    /// Any other multipart.
    Mixed,
}

impl Standing {
    /// Where the children of a multipart or message with this media type stand.
    pub(crate) fn below(self, media_type: &str) -> Self {
        let parent = match media_type {
            "multipart/alternative" => Parent::Alternative,
            "multipart/related" => Parent::Related,
            "multipart/digest" => Parent::Digest,
            media_type if media_type.starts_with("multipart/") => Parent::Mixed,
            _ => Parent::Message,
        };
        Self {
            parent,
            sealed: self.sealed || matches!(media_type, "multipart/signed" | "multipart/encrypted"),
            fixed: self.fixed || matches!(media_type, "multipart/report" | "multipart/appledouble"),
        }
    }
}

/// PKCS#7 and PGP, by type or by file name.
fn is_secured(header: &Header) -> bool {
    let by_type = matches!(
        header.media_type(),
        "application/pkcs7-mime"
            | "application/x-pkcs7-mime"
            | "application/pkcs7-signature"
            | "application/x-pkcs7-signature"
            | "application/pgp"
            | "application/pgp-encrypted"
            | "application/pgp-signature"
            | "application/pgp-keys"
    );
    by_type || has_extension(header, &["p7m", "p7s", "p7c", "pgp", "gpg", "asc", "sig"])
}

/// Calendar parts, and messages that are no plain enclosed message.
fn is_structured(header: &Header) -> bool {
    let media_type = header.media_type();
    matches!(media_type, "text/calendar" | "application/ics" | "application/applefile")
        || media_type.starts_with("message/")
        || media_type.starts_with("multipart/")
        || has_extension(header, &["ics"])
}

/// The text that a person reads, rather than a file: plain text or HTML with no name that nobody calls an attachment.
fn is_text_body(header: &Header) -> bool {
    let is_text = matches!(
        header.media_type(),
        "text/plain" | "text/html" | "text/enriched" | "text/richtext" | "text/watch-html"
    );
    is_text && !header.is_attachment() && header.file_name().is_none()
}

/// Parts that another part shows: by `cid:`, by location, or by standing beside it in `multipart/related`.
fn is_shown_inline(header: &Header, parent: Parent) -> bool {
    let has_address = header.content_id.is_some() || header.has_location;
    match parent {
        Parent::Related => has_address || !header.is_attachment(),
        _ => has_address && !header.is_attachment(),
    }
}

fn has_extension(header: &Header, extensions: &[&str]) -> bool {
    let Some(name) = header.file_name() else { return false };
    let Some((_, extension)) = name.trim().rsplit_once('.') else { return false };
    extensions.iter().any(|other| extension.eq_ignore_ascii_case(other))
}

/// Whether what is at hand of a body is PGP's armour (RFC 9580 §6.2): inline PGP is left alone, too.
pub(crate) fn is_armoured(start: &[u8]) -> bool {
    let mut found = memchr::memmem::find_iter(start, b"-----BEGIN PGP ");
    found.any(|at| at == 0 || matches!(start.get(at - 1), Some(b'\n' | b'\r')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets_go(policy: &Policy, fields: &str, standing: Standing) -> bool {
        policy.lets_go(&Header::parse(fields.as_bytes()), standing)
    }

    fn mixed() -> Standing {
        Standing::default().below("multipart/mixed")
    }

    #[test]
    fn files_may_go() {
        for fields in [
            "Content-Type: application/pdf\n",
            "Content-Type: image/jpeg; name=a.jpg\nContent-Disposition: inline\n",
            "Content-Type: text/plain\nContent-Disposition: attachment\n",
            "Content-Type: text/csv; name=a.csv\n",
            "Content-Type: application/ms-tnef; name=winmail.dat\n",
            "Content-Type: application/pdf\nContent-Disposition: attachment\nContent-ID: <1>\n",
        ] {
            assert!(lets_go(&Policy::default(), fields, mixed()), "{fields}");
        }
    }

    #[test]
    fn nothing_goes_where_nothing_may() {
        assert!(!lets_go(&Policy::nothing(), "Content-Type: application/pdf\n", mixed()));
    }

    #[test]
    fn bad_input_29_what_is_left_alone_by_default_goes_only_where_policy_says_so() {
        let related = Standing::default().below("multipart/related");
        let alternative = Standing::default().below("multipart/alternative");
        let signed = Standing::default().below("multipart/signed").below("multipart/mixed");
        let encrypted = Standing::default().below("multipart/encrypted");
        let report = Standing::default().below("multipart/report");
        let double = Standing::default().below("multipart/appledouble");
        for (fields, standing) in [
            ("Content-Type: text/plain\n", mixed()),
            ("Content-Type: text/html\nContent-Disposition: inline\n", mixed()),
            ("\n", Standing::default()),
            ("Content-Type: text/calendar; method=REQUEST\n", mixed()),
            ("Content-Type: application/octet-stream; name=invite.ICS\n", mixed()),
            ("Content-Type: application/pdf\n", alternative),
            ("Content-Type: image/png\nContent-ID: <1@x>\n", related),
            ("Content-Type: image/png\n", related),
            ("Content-Type: image/png\nContent-ID: <1@x>\nContent-Disposition: inline\n", mixed()),
            ("Content-Type: image/png\nContent-Location: http://x/1.png\n", mixed()),
            ("Content-Type: application/pdf\n", signed),
            ("Content-Type: application/octet-stream\n", encrypted),
            ("Content-Type: application/pkcs7-mime; name=smime.p7m\n", Standing::default()),
            ("Content-Type: application/octet-stream; name=file.pdf.pgp\n", mixed()),
            ("Content-Type: application/pdf\n", report),
            ("Content-Type: image/jpeg\n", double),
            ("Content-Type: message/partial\n", Standing::default()),
            ("Content-Type: message/external-body\n", mixed()),
            ("Content-Type: application/pdf\nContent-Type: application/pdf\n", mixed()),
        ] {
            assert!(!lets_go(&Policy::default(), fields, standing), "{fields} {standing:?}");
            assert!(lets_go(&Policy::everything(), fields, standing), "{fields} {standing:?}");
        }
    }

    #[test]
    fn bad_input_22_a_part_with_a_field_of_our_own_never_goes() {
        assert!(!lets_go(
            &Policy::everything(),
            "Content-Type: application/pdf\nLighter-Part: v=1\n",
            mixed()
        ));
    }

    #[test]
    fn armour_is_seen_at_the_beginning_of_a_line_only() {
        assert!(is_armoured(b"-----BEGIN PGP MESSAGE-----\n"));
        assert!(is_armoured(b"Hello\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\n"));
        assert!(!is_armoured(b"He wrote: -----BEGIN PGP MESSAGE-----\n"));
        assert!(!is_armoured(b""));
    }
}
