//! The keys under which everything leaves the relay: array key, day keys, blob keys.
//!
//! ```text
//! array key   one, the relay's (two while it is being changed: `ring`): a 0600 file; the only thing to back up
//!    wraps ── day key     one for each segment, and so for its deletion day: in the segment's header block, on every
//!                │        member before the first record; erased there, in place, when the day is over
//!                wraps ── blob key   a fresh one for each write of a blob and for each catalog record: in each record
//! ```
//!
//! Wrapping is AES-256-GCM with a random nonce; what the key is for and its deletion day are associated data, so that
//! no wrapped key can be put in another's place. Without the day key nothing of a segment can be read again, whatever
//! is left of it on a disk.
//!
//! What it is not: a secret from whoever holds the array key. And a disk may keep an older copy of an erased sector;
//! what is promised is what the file system can be told.

mod ring;

use std::fmt;
use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lighter_protocol::Day;
use rand::Rng;
use zeroize::Zeroizing;

pub use ring::ArrayKeys;
pub(crate) use ring::Under;

use crate::limits::{KEY_LEN, NONCE_LEN, TAG_LEN};

/// Bytes of a wrapped key: nonce, key, tag.
pub const WRAPPED_LEN: usize = NONCE_LEN + KEY_LEN + TAG_LEN;
/// A key encrypted under another.
pub type WrappedKey = [u8; WRAPPED_LEN];

/// The array key: who has it can read everything that the array keeps.
#[derive(Clone)]
pub struct ArrayKey(Zeroizing<[u8; KEY_LEN]>);

/// Why there is no array key.
#[derive(Debug, thiserror::Error)]
pub enum ArrayKeyError {
    /// The file cannot be read or made.
    #[error("array key file")]
    File(#[from] io::Error),
    /// The file can be read by others: it must have mode 0600.
    #[error("the array key's file may be read by others (mode {0:o}); it must be 0600")]
    Mode(u32),
    /// Not an exported array key: wrong length, wrong characters, or a digit mistyped (the check sum says so).
    #[error("not an array key")]
    Malformed,
}

impl ArrayKey {
    /// Draws a new key.
    pub fn draw(chance: &mut impl Rng) -> Self {
        Self(draw(chance))
    }

    /// The key as text, to keep somewhere safe: eight groups of eight hexadecimal digits and a check group.
    pub fn export(&self) -> Zeroizing<String> {
        encode(&self.0, ARRAY_KEY_CHECK)
    }

    /// Reads what [`ArrayKey::export`] gave; blanks, dashes and upper case do not matter.
    ///
    /// # Errors
    /// [`ArrayKeyError::Malformed`].
    pub fn import(text: &str) -> Result<Self, ArrayKeyError> {
        parse(text, ARRAY_KEY_CHECK).map(Self)
    }

    /// A key for another purpose, made from this one: `context` says what for, and is the only input
    /// (BLAKE3 derive_key).
    pub fn derive(&self, context: &str) -> Zeroizing<[u8; KEY_LEN]> {
        Zeroizing::new(blake3::derive_key(context, self.0.as_slice()))
    }

    /// Wraps a day key, for a segment's header.
    fn wrap_day_key(&self, key: &DayKey, chance: &mut impl Rng) -> WrappedKey {
        wrap(&self.0, &key.key, &day_context(DAY_KEY, key.day), chance)
    }

    /// The day key that was wrapped for `day`.
    pub(crate) fn unwrap_day_key(&self, day: Day, wrapped: &WrappedKey) -> Result<DayKey, KeyError> {
        Ok(DayKey { key: unwrap(&self.0, wrapped, &day_context(DAY_KEY, day))?, day })
    }
}

impl fmt::Debug for ArrayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArrayKey(..)")
    }
}

/// The key of a segment and its deletion day.
pub struct DayKey {
    key: Zeroizing<[u8; KEY_LEN]>,
    day: Day,
}

impl DayKey {
    /// Draws a new one.
    pub(crate) fn draw(day: Day, chance: &mut impl Rng) -> Self {
        Self { key: draw(chance), day }
    }

    /// Whether it is the same key.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.day == other.day && *self.key == *other.key
    }

    pub(crate) fn wrap_blob_key(&self, key: &BlobKey, chance: &mut impl Rng) -> WrappedKey {
        wrap(&self.key, &key.0, &day_context(BLOB_KEY, self.day), chance)
    }

    pub(crate) fn unwrap_blob_key(&self, wrapped: &WrappedKey) -> Result<BlobKey, KeyError> {
        Ok(BlobKey(unwrap(&self.key, wrapped, &day_context(BLOB_KEY, self.day))?))
    }
}

impl fmt::Debug for DayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DayKey({})", self.day.0)
    }
}

/// The key of one write of a blob, or of one catalog record: never used for another.
pub(crate) struct BlobKey(Zeroizing<[u8; KEY_LEN]>);

impl BlobKey {
    pub(crate) fn draw(chance: &mut impl Rng) -> Self {
        Self(draw(chance))
    }

    /// As the cipher takes it.
    pub(crate) fn cipher(&self) -> LessSafeKey {
        cipher(&self.0)
    }
}

/// A wrapped key that does not open: another array key, another day, or damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a wrapped key does not open")]
pub struct KeyError;

const DAY_KEY: &[u8; 20] = b"lighter: day key  1\0";
const BLOB_KEY: &[u8; 20] = b"lighter: blob key 1\0";
const ARRAY_KEY_CHECK: &str = "lighter array key check 1";
const CHECK_LEN: usize = 4;
/// Nine groups of eight digits, eight dashes.
const EXPORT_LEN: usize = 80;

fn day_context(purpose: &[u8; 20], day: Day) -> [u8; 24] {
    let mut context = [0; 24];
    context[..20].copy_from_slice(purpose);
    context[20..].copy_from_slice(&day.0.to_le_bytes());
    context
}

fn draw(chance: &mut impl Rng) -> Zeroizing<[u8; KEY_LEN]> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    chance.fill_bytes(key.as_mut_slice());
    key
}

/// A key as text: eight groups of eight hexadecimal digits and a check group. `purpose` keeps one kind from being taken
/// for another.
fn encode(key: &[u8; KEY_LEN], purpose: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(EXPORT_LEN));
    for (index, byte) in key.iter().chain(&check(key, purpose)).enumerate() {
        if index > 0 && index % 4 == 0 {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

fn parse(text: &str, purpose: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, ArrayKeyError> {
    let mut bytes = Zeroizing::new([0; KEY_LEN + CHECK_LEN]);
    let mut digits = 0;
    for digit in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let value = digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
        let byte = bytes.get_mut(digits / 2).ok_or(ArrayKeyError::Malformed)?;
        *byte = *byte << 4 | value.ok_or(ArrayKeyError::Malformed)?;
        digits += 1;
    }
    let (key, sum) = bytes.split_first_chunk::<KEY_LEN>().ok_or(ArrayKeyError::Malformed)?;
    if digits != 2 * (KEY_LEN + CHECK_LEN) || sum != check(key, purpose) {
        return Err(ArrayKeyError::Malformed);
    }
    Ok(Zeroizing::new(*key))
}

fn check(key: &[u8; KEY_LEN], purpose: &str) -> [u8; CHECK_LEN] {
    let hash = blake3::derive_key(purpose, key);
    [hash[0], hash[1], hash[2], hash[3]]
}

fn cipher(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256-GCM takes keys of 32 bytes"))
}

fn wrap(under: &[u8; KEY_LEN], key: &[u8; KEY_LEN], context: &[u8], chance: &mut impl Rng) -> WrappedKey {
    let mut wrapped = [0; WRAPPED_LEN];
    let (nonce, rest) = wrapped.split_at_mut(NONCE_LEN);
    let (body, tag_out) = rest.split_at_mut(KEY_LEN);
    chance.fill_bytes(nonce);
    body.copy_from_slice(key);
    let nonce = Nonce::try_assume_unique_for_key(nonce).expect("the nonce is 12 bytes");
    let tag = cipher(under)
        .seal_in_place_separate_tag(nonce, Aad::from(context), body)
        .expect("32 bytes are within what the cipher takes");
    tag_out.copy_from_slice(tag.as_ref());
    wrapped
}

fn unwrap(
    under: &[u8; KEY_LEN],
    wrapped: &WrappedKey,
    context: &[u8],
) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let (nonce, rest) = wrapped.split_at(NONCE_LEN);
    let (body, tag) = rest.split_at(KEY_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    cipher(under)
        .open_separate_gather(nonce, Aad::from(context), body, tag, key.as_mut_slice())
        .map_err(|_| KeyError)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn chance() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    #[test]
    fn an_exported_key_comes_back_and_a_mistyped_one_is_told() {
        let key = ArrayKey::draw(&mut chance());
        let text = key.export();
        assert_eq!(text.len(), 9 * 8 + 8);
        let again = ArrayKey::import(&format!("  {}\n", text.to_uppercase())).unwrap();
        assert_eq!(*again.0, *key.0);
        let wrong = text.replacen(&text[..1], if text.starts_with('0') { "1" } else { "0" }, 1);
        for bad in ["", &wrong, &text[1..], &format!("{}0", *text), "xyz"] {
            assert!(matches!(ArrayKey::import(bad), Err(ArrayKeyError::Malformed)), "{bad}");
        }
    }

    #[test]
    fn a_wrapped_key_opens_only_where_it_belongs() {
        let chance = &mut chance();
        let array = ArrayKey::draw(chance);
        let day = DayKey::draw(Day(5), chance);
        let wrapped = array.wrap_day_key(&day, chance);
        assert_eq!(*array.unwrap_day_key(Day(5), &wrapped).unwrap().key, *day.key);
        assert_eq!(array.unwrap_day_key(Day(6), &wrapped).unwrap_err(), KeyError);
        assert_eq!(ArrayKey::draw(chance).unwrap_day_key(Day(5), &wrapped).unwrap_err(), KeyError);

        let blob = BlobKey::draw(chance);
        let wrapped = day.wrap_blob_key(&blob, chance);
        assert_eq!(*day.unwrap_blob_key(&wrapped).unwrap().0, *blob.0);
        for index in 0..WRAPPED_LEN {
            let mut bad = wrapped;
            bad[index] ^= 1;
            assert!(day.unwrap_blob_key(&bad).is_err(), "byte {index}");
        }
        assert_ne!(day.wrap_blob_key(&blob, chance), wrapped, "a fresh nonce each time");
    }
}
