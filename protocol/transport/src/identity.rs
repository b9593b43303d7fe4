//! A peer's key: who it is, to everybody (DESIGN §4).
//!
//! One Ed25519 key for each peer. An agent's lives in the OS keyring, which gives 32 secret bytes
//! ([`Identity::from_secret_bytes`]); a server's, and that of an agent without a keyring, in a file that only its owner
//! can read.
//!
//! # Format
//! One line of text: `lighter-key-1`, a blank, the 32 secret bytes (RFC 8032 §5.1.5) as hexadecimal digits, a line end.
//!
//! # Sync
//! A new key is durable, with its directory entry, before [`Identity::load_or_create`] returns: a PeerId that was told to
//! anybody is never lost to a crash.
//!
//! # Recovery
//! The file appears under its name whole or not at all (a hard link to a synced file). Two processes that create it at
//! once end up with the same key. A crash before that leaves at most a file with a key that nobody ever used, named
//! `.NAME.new-RANDOM`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use lighter_protocol::{Keypair, PeerId};
use zeroize::{Zeroize, Zeroizing};

use crate::limits::KEY_FILE_LEN_MAX;

/// What a key file's line begins with.
const FILE_MAGIC: &str = "lighter-key-1";
/// Permission bits that nobody but the owner may have on a key file.
const OTHERS_BITS: u32 = 0o077;

/// An Ed25519 key and the PeerId that it makes.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    peer: PeerId,
}

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key is not an Ed25519 key.
    #[error("not an Ed25519 key")]
    NotEd25519,
    /// Group or others have rights on the file: what they may have read is no secret any more.
    #[error("{} can be read or changed by others than its owner (mode {mode:03o}): chmod 600 it, or make a new key", path.display())]
    OthersCanRead {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else than a key, or a part of one.
    #[error("{} is not a key file", path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// The disk or the system refused.
    #[error("key file {}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Identity {
    /// A new key from the system's generator.
    pub fn generate() -> Self {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        Self { keypair, peer }
    }

    /// The identity that `keypair` makes.
    ///
    /// # Errors
    /// [`IdentityError::NotEd25519`] for keys of another kind.
    pub fn from_keypair(keypair: Keypair) -> Result<Self, IdentityError> {
        if keypair.key_type() != libp2p_identity::KeyType::Ed25519 {
            return Err(IdentityError::NotEd25519);
        }
        let peer = keypair.public().to_peer_id();
        Ok(Self { keypair, peer })
    }

    /// The identity whose 32 secret bytes (RFC 8032 §5.1.5) a keyring gave. The copy that is passed in is wiped.
    pub fn from_secret_bytes(mut secret: Zeroizing<[u8; 32]>) -> Result<Self, IdentityError> {
        let keypair = Keypair::ed25519_from_bytes(&mut secret[..]).map_err(|_| IdentityError::NotEd25519)?;
        Self::from_keypair(keypair)
    }

    /// The 32 secret bytes, for a keyring to keep.
    pub fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0; 32]);
        // Never fails: every constructor made sure that it is an Ed25519 key.
        if let Ok(keypair) = self.keypair.clone().try_into_ed25519() {
            let mut both = keypair.to_bytes();
            secret.copy_from_slice(&both[..32]);
            both.zeroize();
        }
        secret
    }

    /// Reads the key from `path`.
    ///
    /// # Errors
    /// [`IdentityError::OthersCanRead`], [`IdentityError::Malformed`], or [`IdentityError::Io`] (no such file, too).
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let io_error = |source| IdentityError::Io { path: path.to_owned(), source };
        let malformed = || IdentityError::Malformed { path: path.to_owned() };

        let file = File::open(path).map_err(io_error)?;
        let metadata = file.metadata().map_err(io_error)?;
        if !metadata.is_file() {
            return Err(malformed());
        }
        let mode = metadata.mode() & 0o777;
        if mode & OTHERS_BITS != 0 {
            return Err(IdentityError::OthersCanRead { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        match file.take(KEY_FILE_LEN_MAX).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(malformed()),
            Err(error) => return Err(io_error(error)),
        }
        let secret = parse_key_line(&text).ok_or_else(malformed)?;
        Self::from_secret_bytes(secret)
    }

    /// Reads the key from `path`; where there is no file, makes a new key and writes it there, durable, with mode 0600.
    ///
    /// # Errors
    /// As [`Identity::load`]; a file that is there and cannot be used is never replaced.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match Self::load(path) {
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            loaded_or_refused => return loaded_or_refused,
        }
        let fresh = Self::generate();
        match fresh.create_file(path) {
            Ok(()) => Ok(fresh),
            // Another process was quicker: its key is the one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(source) => Err(IdentityError::Io { path: path.to_owned(), source }),
        }
    }

    /// Writes the key to `path`, where there must be no file yet: durable, with mode 0600, when this returns.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn create(&self, path: &Path) -> Result<(), IdentityError> {
        self.create_file(path).map_err(|source| IdentityError::Io { path: path.to_owned(), source })
    }

    /// Who this key makes its holder.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The key, to sign statements with.
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// Writes the key to `path`, which must not exist yet: a synced file, linked under its name, then the directory
    /// synced.
    fn create_file(&self, path: &Path) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut new_name = std::ffi::OsString::from(".");
        new_name.push(name);
        new_name.push(format!(".new-{:016x}", rand::random::<u64>()));
        let new_path = directory.join(new_name);

        let written = self.write_new_file(&new_path).and_then(|()| fs::hard_link(&new_path, path));
        let removed = fs::remove_file(&new_path);
        written?;
        removed?;
        File::open(directory)?.sync_all()
    }

    fn write_new_file(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut line = Zeroizing::new(String::with_capacity(FILE_MAGIC.len() + 66));
        line.push_str(FILE_MAGIC);
        line.push(' ');
        HEXLOWER_PERMISSIVE.encode_append(&self.secret_bytes()[..], &mut line);
        line.push('\n');
        file.write_all(line.as_bytes())?;
        file.sync_all()
    }
}

/// Shows the PeerId only: keys never reach a log.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.peer).finish()
    }
}

fn parse_key_line(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.trim_end().strip_prefix(FILE_MAGIC)?.strip_prefix(' ')?.trim_start_matches(' ');
    let mut secret = Zeroizing::new([0; 32]);
    if HEXLOWER_PERMISSIVE.decode_len(digits.len()) != Ok(secret.len()) {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode_mut(digits.as_bytes(), &mut secret[..]).ok()?;
    Some(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_created_key_is_the_one_that_is_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let created = Identity::load_or_create(&path).unwrap();
        let loaded = Identity::load_or_create(&path).unwrap();
        assert_eq!(created.peer(), loaded.peer());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file is left");
    }

    #[test]
    fn creating_at_once_ends_in_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let peers: Vec<PeerId> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Identity::load_or_create(&path).unwrap().peer())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(peers.iter().all(|peer| *peer == peers[0]));
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        Identity::load_or_create(&path).unwrap();
        let before = fs::read(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert!(
                matches!(error, IdentityError::OthersCanRead { mode: told, .. } if told == mode),
                "{error}"
            );
        }
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn what_is_no_key_file_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let long = format!("lighter-key-1 {}", "0".repeat(100_000));
        let not_text = "lighter-key-1 \u{e9}\u{e9}".to_string();
        for text in
            ["", "x", "lighter-key-1", "lighter-key-1 00", "lighter-key-2 00", long.as_str(), &not_text]
        {
            let _ = fs::remove_file(&path);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Malformed { .. }), "{text:.40}: {error}");
            assert_eq!(fs::read(&path).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn secret_bytes_make_the_same_identity_and_debug_hides_them() {
        let identity = Identity::generate();
        let again = Identity::from_secret_bytes(identity.secret_bytes()).unwrap();
        assert_eq!(identity.peer(), again.peer());
        let shown = format!("{identity:?}");
        assert!(!shown.contains(&HEXLOWER_PERMISSIVE.encode(&identity.secret_bytes()[..8])));
    }

    #[test]
    fn the_format_of_a_key_file_stays_readable() {
        // RFC 8032 §7.1, test 1: this secret has this public key, in libp2p's PeerId form.
        let secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        writeln!(file, "lighter-key-1 {secret}").unwrap();
        let peer = Identity::load(&path).unwrap().peer();
        assert_eq!(HEXLOWER_PERMISSIVE.encode(&peer.to_bytes()), format!("002408011220{public}"));
    }
}
