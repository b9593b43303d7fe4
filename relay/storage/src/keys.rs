//! The keys under which everything leaves the relay: array key, day keys, blob keys.
//!
//! ```text
//! array key   one, the relay's: a 0600 file; the only thing to back up
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

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lighter_protocol::Day;
use rand::Rng;
use zeroize::Zeroizing;

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

    /// The key in the file at `path`; where there is no file, a new key in a new file (mode 0600, synced with its
    /// directory entry). A crash leaves the whole file or none.
    ///
    /// # Errors
    /// [`ArrayKeyError::Mode`] where others could read it; [`ArrayKeyError::Malformed`] where it holds something else:
    /// it is never overwritten.
    pub fn load_or_create(path: &Path, chance: &mut impl Rng) -> Result<Self, ArrayKeyError> {
        match Self::load(path) {
            Err(ArrayKeyError::File(error)) if error.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        let beside = path.with_extension(format!("new-{:016x}", chance.next_u64()));
        let key = Self::draw(chance);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let written =
            file.write_all(format!("{}\n", *key.export()).as_bytes()).and_then(|()| file.sync_all());
        // A link, not a rename: where another process was faster, its key counts.
        let linked = written.and_then(|()| std::fs::hard_link(&beside, path));
        std::fs::remove_file(&beside)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        match linked {
            Ok(()) => Ok(key),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(error.into()),
        }
    }

    /// The key in the file at `path`.
    ///
    /// # Errors
    /// See [`ArrayKeyError`]; [`io::ErrorKind::NotFound`] in it where there is no file.
    pub fn load(path: &Path) -> Result<Self, ArrayKeyError> {
        let file = std::fs::File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ArrayKeyError::Mode(mode));
        }
        let mut text = Zeroizing::new(String::with_capacity(EXPORT_LEN_MAX));
        file.take(EXPORT_LEN_MAX as u64).read_to_string(&mut text)?;
        Self::import(&text)
    }

    /// The key as text, to keep somewhere safe: eight groups of eight hexadecimal digits and a check group.
    pub fn export(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(EXPORT_LEN_MAX));
        for (index, byte) in self.0.iter().chain(&check(&self.0)).enumerate() {
            if index > 0 && index % 4 == 0 {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        text
    }

    /// Reads what [`ArrayKey::export`] gave; blanks, dashes and upper case do not matter.
    ///
    /// # Errors
    /// [`ArrayKeyError::Malformed`].
    pub fn import(text: &str) -> Result<Self, ArrayKeyError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN + CHECK_LEN]);
        let mut digits = 0;
        for digit in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let value = digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
            let byte = bytes.get_mut(digits / 2).ok_or(ArrayKeyError::Malformed)?;
            *byte = *byte << 4 | value.ok_or(ArrayKeyError::Malformed)?;
            digits += 1;
        }
        let (key, sum) = bytes.split_first_chunk::<KEY_LEN>().ok_or(ArrayKeyError::Malformed)?;
        if digits != 2 * (KEY_LEN + CHECK_LEN) || sum != check(key) {
            return Err(ArrayKeyError::Malformed);
        }
        Ok(Self(Zeroizing::new(*key)))
    }

    /// A key for another purpose, made from this one: `context` says what for, and is the only input
    /// (BLAKE3 derive_key).
    pub fn derive(&self, context: &str) -> Zeroizing<[u8; KEY_LEN]> {
        Zeroizing::new(blake3::derive_key(context, self.0.as_slice()))
    }

    /// Draws a day key and gives it with its wrapped form, for a segment's header.
    pub(crate) fn draw_day_key(&self, day: Day, chance: &mut impl Rng) -> (DayKey, WrappedKey) {
        let key = draw(chance);
        let wrapped = wrap(&self.0, &key, &day_context(DAY_KEY, day), chance);
        (DayKey { key, day }, wrapped)
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
const CHECK_LEN: usize = 4;
/// Nine groups of eight digits, eight dashes, a line end, and room to tell that there is more.
const EXPORT_LEN_MAX: usize = 128;

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

fn check(key: &[u8; KEY_LEN]) -> [u8; CHECK_LEN] {
    let hash = blake3::derive_key("lighter array key check 1", key);
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
    fn the_key_file_is_private_kept_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.key");
        let key = ArrayKey::load_or_create(&path, &mut chance()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = ArrayKey::load_or_create(&path, &mut StdRng::seed_from_u64(8)).unwrap();
        assert_eq!(*again.0, *key.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = ArrayKey::load_or_create(&path, &mut chance()).unwrap_err();
        assert!(matches!(error, ArrayKeyError::Mode(0o640)), "{error}");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "something else").unwrap();
        let error = ArrayKey::load_or_create(&path, &mut chance()).unwrap_err();
        assert!(matches!(error, ArrayKeyError::Malformed), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "something else");
    }

    #[test]
    fn array_keys_drawn_at_once_for_one_file_end_in_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.key");
        let texts: Vec<String> = std::thread::scope(|scope| {
            let draw = |seed| {
                let path = &path;
                move || {
                    let key = ArrayKey::load_or_create(path, &mut StdRng::seed_from_u64(seed)).unwrap();
                    key.export().to_string()
                }
            };
            let threads: Vec<_> = (0..8).map(|seed| scope.spawn(draw(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(texts.iter().all(|text| *text == texts[0]));
        // What a crash left beside it is neither used nor in the way.
        std::fs::write(folder.path().join("array.new-0123456789abcdef"), "half a k").unwrap();
        let again = ArrayKey::load(&path).unwrap();
        assert_eq!(*again.export(), texts[0]);
    }

    #[test]
    fn a_wrapped_key_opens_only_where_it_belongs() {
        let chance = &mut chance();
        let array = ArrayKey::draw(chance);
        let (day, wrapped) = array.draw_day_key(Day(5), chance);
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
