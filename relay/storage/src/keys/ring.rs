//! The array's keys as its writer has them: the array key, and, while it is being changed, the former one beside it.
//!
//! # Changing the array key
//! 1. A new key is drawn, and the file is replaced by one that has both: from then on everything new is wrapped under the
//!    new key, and both open.
//! 2. Each day key is wrapped again, under the new key, in the header of every copy on every server (`array::rewrap`).
//!    A server that is away gets it when it is back.
//! 3. When every copy of every server has it, the file is replaced by one with the new key alone, and what the old file
//!    held is overwritten. Who has nothing but the former key reads nothing of the array any more.
//!
//! A crash between any two steps leaves a file that opens everything; the relay goes on where it was.
//!
//! # Tickets
//! Links to attachments are made from a secret that is derived from the array key. They stand in mail that was handed over
//! long ago, and a placeholder that is handed over again must have the same link: so with the first change the secret
//! becomes a value of its own, which the file keeps from then on. Whoever has an old copy of the array key can still make
//! links of deliveries whose numbers they know; against that, links are revoked one by one, and expire.
//!
//! # Format
//! One line of text: the array key (see [`ArrayKey::export`]), then, where they are there, `former KEY` and
//! `tickets SECRET`. A file of before the first change is what it always was. Exported is the whole line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use lighter_protocol::Day;
use rand::Rng;
use zeroize::Zeroizing;

use super::{ArrayKey, ArrayKeyError, DayKey, WrappedKey, encode, parse};
use crate::limits::KEY_LEN;

/// The array's keys.
#[derive(Clone, Debug)]
pub struct ArrayKeys {
    /// Wraps all that is new.
    present: ArrayKey,
    /// Opens what has not been wrapped again yet.
    former: Option<ArrayKey>,
    /// What tickets are made from; `None`: derived from the present key, which has never been changed.
    tickets: Option<Secret>,
}

#[derive(Clone)]
struct Secret(Zeroizing<[u8; KEY_LEN]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<ArrayKey> for ArrayKeys {
    fn from(present: ArrayKey) -> Self {
        Self { present, former: None, tickets: None }
    }
}

/// Under which key something was wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    Present,
    Former,
}

impl ArrayKeys {
    /// The keys in the file at `path`; where there is no file, a new key in a new file (mode 0600, synced with its
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
        let keys = Self::from(ArrayKey::draw(chance));
        let beside = path.with_extension(format!("new-{:016x}", chance.next_u64()));
        let written = keys.write(&beside);
        // A link, not a rename: where another process was faster, its key counts.
        let linked = written.and_then(|()| std::fs::hard_link(&beside, path));
        std::fs::remove_file(&beside)?;
        sync_folder(path)?;
        match linked {
            Ok(()) => Ok(keys),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(error.into()),
        }
    }

    /// The keys in the file at `path`.
    ///
    /// # Errors
    /// See [`ArrayKeyError`]; [`io::ErrorKind::NotFound`] in it where there is no file.
    pub fn load(path: &Path) -> Result<Self, ArrayKeyError> {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ArrayKeyError::Mode(mode));
        }
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LEN_MAX));
        file.take(TEXT_LEN_MAX as u64).read_to_string(&mut text)?;
        Self::import(&text)
    }

    /// Writes them in place of those in the file at `path`, durably and in one step, and overwrites what that file held.
    /// (A disk may keep an older copy of a sector; what is promised is what the file system can be told.)
    ///
    /// # Errors
    /// The file's. Either the old file counts then, or the new one: both open everything, as long as nothing was
    /// forgotten that is still needed.
    pub fn replace(&self, path: &Path) -> io::Result<()> {
        let mut old = OpenOptions::new().read(true).write(true).open(path)?;
        let next = path.with_extension("next");
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.write(&next)?;
        std::fs::rename(&next, path)?;
        sync_folder(path)?;
        let len = usize::try_from(old.seek(SeekFrom::End(0))?).unwrap_or(TEXT_LEN_MAX).min(TEXT_LEN_MAX);
        old.rewind()?;
        old.write_all(&vec![0; len])?;
        old.sync_all()
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(format!("{}\n", *self.export()).as_bytes())?;
        file.sync_all()
    }

    /// All of them as one line of text, to keep somewhere safe.
    pub fn export(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LEN_MAX));
        text.push_str(&self.present.export());
        if let Some(former) = &self.former {
            text.push_str(" former ");
            text.push_str(&former.export());
        }
        if let Some(tickets) = &self.tickets {
            text.push_str(" tickets ");
            text.push_str(&encode(&tickets.0, TICKETS_CHECK));
        }
        text
    }

    /// Reads what [`ArrayKeys::export`] gave; blanks, dashes, line ends and upper case do not matter.
    ///
    /// # Errors
    /// [`ArrayKeyError::Malformed`].
    pub fn import(text: &str) -> Result<Self, ArrayKeyError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(ArrayKeyError::Malformed);
        }
        // The key, and behind a word each, what else there is.
        let mut parts = [const { None::<Zeroizing<String>> }; 3];
        parts[0] = Some(Zeroizing::default());
        let mut part = 0;
        for word in text.split_whitespace() {
            let named = NAMES.iter().position(|name| word.eq_ignore_ascii_case(name));
            match named {
                Some(named) if parts[named + 1].is_none() => {
                    part = named + 1;
                    parts[part] = Some(Zeroizing::default());
                }
                Some(_) => return Err(ArrayKeyError::Malformed),
                None => parts[part].get_or_insert_default().push_str(word),
            }
        }
        let [present, former, tickets] = parts;
        let tickets = tickets.map(|text| parse(&text, TICKETS_CHECK)).transpose()?;
        Ok(Self {
            present: ArrayKey::import(&present.unwrap_or_default())?,
            former: former.map(|text| ArrayKey::import(&text)).transpose()?,
            tickets: tickets.map(Secret),
        })
    }

    /// These with a new array key, the one so far being the former. `None` while there is a former one already.
    pub fn rotated(&self, chance: &mut impl Rng) -> Option<Self> {
        if self.former.is_some() {
            return None;
        }
        Some(Self {
            present: ArrayKey::draw(chance),
            former: Some(self.present.clone()),
            tickets: Some(Secret(self.ticket_secret())),
        })
    }

    /// These without the former one: what is wrapped under it cannot be opened any more.
    pub fn settled(&self) -> Self {
        Self { former: None, ..self.clone() }
    }

    /// Whether the array key is being changed.
    pub fn is_rotating(&self) -> bool {
        self.former.is_some()
    }

    /// What tickets are made from: the same before and after a change of the array key.
    pub fn ticket_secret(&self) -> Zeroizing<[u8; KEY_LEN]> {
        self.tickets.as_ref().map_or_else(|| self.present.derive(TICKETS), |secret| secret.0.clone())
    }

    /// Tells these keys from others without telling them: 16 hexadecimal digits. The former key, soon forgotten, is left
    /// out.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::derive_key("lighter array keys fingerprint 1", self.settled().export().as_bytes());
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether they are as they were first drawn: there was no other array key before.
    pub fn is_first(&self) -> bool {
        self.former.is_none() && self.tickets.is_none()
    }

    /// Wraps a day key under the present key.
    pub(crate) fn wrap_day_key(&self, key: &DayKey, chance: &mut impl Rng) -> WrappedKey {
        self.present.wrap_day_key(key, chance)
    }

    /// The day key that was wrapped for `day`, and under which key; `None` where neither opens it.
    pub(crate) fn unwrap_day_key(&self, day: Day, wrapped: &WrappedKey) -> Option<(DayKey, Under)> {
        if let Ok(key) = self.present.unwrap_day_key(day, wrapped) {
            return Some((key, Under::Present));
        }
        let key = self.former.as_ref()?.unwrap_day_key(day, wrapped).ok()?;
        Some((key, Under::Former))
    }
}

/// For what the tickets' secret is made from the first array key.
const TICKETS: &str = "lighter relay tickets 1";
const TICKETS_CHECK: &str = "lighter ticket secret check 1";
/// What stands before each part behind the first.
const NAMES: [&str; 2] = ["former", "tickets"];
/// Three parts of 80 characters, their names, and room to tell that there is more.
const TEXT_LEN_MAX: usize = 512;

fn sync_folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn chance() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    fn text_of(keys: &ArrayKeys) -> String {
        keys.export().to_string()
    }

    #[test]
    fn the_key_file_is_private_kept_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.key");
        let keys = ArrayKeys::load_or_create(&path, &mut chance()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = ArrayKeys::load_or_create(&path, &mut StdRng::seed_from_u64(8)).unwrap();
        assert_eq!(text_of(&again), text_of(&keys));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = ArrayKeys::load_or_create(&path, &mut chance()).unwrap_err();
        assert!(matches!(error, ArrayKeyError::Mode(0o640)), "{error}");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "something else").unwrap();
        let error = ArrayKeys::load_or_create(&path, &mut chance()).unwrap_err();
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
                move || text_of(&ArrayKeys::load_or_create(path, &mut StdRng::seed_from_u64(seed)).unwrap())
            };
            let threads: Vec<_> = (0..8).map(|seed| scope.spawn(draw(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(texts.iter().all(|text| *text == texts[0]));
        // What a crash left beside it is neither used nor in the way.
        std::fs::write(folder.path().join("array.new-0123456789abcdef"), "half a k").unwrap();
        assert_eq!(text_of(&ArrayKeys::load(&path).unwrap()), texts[0]);
    }

    #[test]
    fn a_key_that_is_changed_opens_both_until_the_former_is_forgotten() {
        let chance = &mut chance();
        let first = ArrayKeys::from(ArrayKey::draw(chance));
        let old_day = DayKey::draw(Day(5), chance);
        let old_wrapped = first.wrap_day_key(&old_day, chance);
        let both = first.rotated(chance).unwrap();
        assert!(both.is_rotating() && both.rotated(chance).is_none(), "one change at a time");
        let (found, under) = both.unwrap_day_key(Day(5), &old_wrapped).unwrap();
        assert_eq!((*found.key, under), (*old_day.key, Under::Former));
        let wrapped = both.wrap_day_key(&old_day, chance);
        assert_eq!(both.unwrap_day_key(Day(5), &wrapped).unwrap().1, Under::Present);
        assert!(both.unwrap_day_key(Day(6), &wrapped).is_none(), "for its day only");

        let settled = both.settled();
        assert!(settled.unwrap_day_key(Day(5), &old_wrapped).is_none());
        assert_eq!(*settled.unwrap_day_key(Day(5), &wrapped).unwrap().0.key, *old_day.key);
        assert!(
            first.unwrap_day_key(Day(5), &wrapped).is_none(),
            "who has the former key alone reads nothing"
        );
        let secrets =
            [&first, &both, &settled, &settled.rotated(chance).unwrap()].map(ArrayKeys::ticket_secret);
        assert!(secrets.iter().all(|secret| *secret == secrets[0]), "links go on working");
    }

    #[test]
    fn what_was_exported_at_any_step_comes_back_and_a_mistyped_one_is_told() {
        let chance = &mut chance();
        let first = ArrayKeys::from(ArrayKey::draw(chance));
        let both = first.rotated(chance).unwrap();
        let settled = both.settled();
        assert_eq!(text_of(&first), *first.present.export(), "a file of before is what it was");
        for keys in [&first, &both, &settled, &settled.rotated(chance).unwrap()] {
            let text = text_of(keys);
            for text in [text.clone(), text.to_uppercase(), text.replace(' ', "\n"), text.replace('-', " - ")]
            {
                let again = ArrayKeys::import(&text).unwrap();
                assert_eq!(text_of(&again), text_of(keys));
                assert_eq!(again.ticket_secret(), keys.ticket_secret());
                assert_eq!(again.fingerprint(), keys.fingerprint());
            }
            for at in 0..text.len() {
                let mut wrong = text.clone().into_bytes();
                wrong[at] = if wrong[at] == b'7' { b'8' } else { b'7' };
                let wrong = String::from_utf8(wrong).unwrap();
                assert!(ArrayKeys::import(&wrong).is_err(), "{wrong}");
            }
        }
        let (first, both, settled) = (text_of(&first), text_of(&both), text_of(&settled));
        let twice = format!("{both} former {first}");
        let mixed_up = settled.replace("tickets", "former");
        let tail = both.split_once(' ').unwrap().1;
        for bad in
            ["", "former", "tickets", &twice, &mixed_up, tail, &format!("{first} tickets"), &"7".repeat(600)]
        {
            assert!(ArrayKeys::import(bad).is_err(), "{bad}");
        }
        assert!(first != both && both != settled);
    }

    #[test]
    fn a_replaced_file_is_whole_and_what_it_held_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.key");
        let first = ArrayKeys::load_or_create(&path, &mut chance()).unwrap();
        let mut old = File::open(&path).unwrap();
        std::fs::write(folder.path().join("array.next"), "left by a crash").unwrap();
        let both = first.rotated(&mut chance()).unwrap();
        both.replace(&path).unwrap();
        assert_eq!(text_of(&ArrayKeys::load(&path).unwrap()), text_of(&both));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut held = Vec::new();
        old.read_to_end(&mut held).unwrap();
        assert!(!held.is_empty() && held.iter().all(|byte| *byte == 0));
        both.settled().replace(&path).unwrap();
        assert_eq!(text_of(&ArrayKeys::load(&path).unwrap()), text_of(&both.settled()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
