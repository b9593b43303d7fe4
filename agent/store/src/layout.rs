//! Names of files in the store's folder.
//!
//! | name | what |
//! |---|---|
//! | `lock` | locked by the process that uses the store |
//! | `index.redb` | the index |
//! | `blobs/HEX`, `blobs/HEX.tree` | a complete blob and its outboard (none for one of a single group) |
//! | `partial/HEX-SIZE`, `partial/HEX-SIZE.tree` | a blob on its way in. The size is in the name: one that was lied about never gets in the way of the true one |
//! | `partial/import-N`, `partial/import-N.tree` | a file of the user's on its way in |
//! | `packs/N` | complete small blobs, many to a file ([`crate::packs`]) |
//! | `damaged/HEX`, `damaged/HEX.tree` | what was found not to be what its hash says |

use lighter_protocol::BlobId;

pub(crate) const BLOBS: &str = "blobs";
pub(crate) const PARTIAL: &str = "partial";
pub(crate) const PACKS: &str = "packs";
pub(crate) const DAMAGED: &str = "damaged";

/// A data file and the outboard beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) data: String,
    pub(crate) tree: String,
}

impl Pair {
    fn named(data: String) -> Self {
        let tree = format!("{data}.tree");
        Self { data, tree }
    }

    /// Where a complete blob lies.
    pub(crate) fn complete(blob: BlobId) -> Self {
        Self::named(format!("{BLOBS}/{blob}"))
    }

    /// Where a blob on its way in lies.
    pub(crate) fn partial(blob: BlobId, size: u64) -> Self {
        Self::named(format!("{PARTIAL}/{blob}-{size}"))
    }

    /// Where a file of the user's is copied to.
    pub(crate) fn import(number: u64) -> Self {
        Self::named(format!("{PARTIAL}/import-{number}"))
    }

    /// Where a damaged blob is set aside.
    pub(crate) fn damaged(blob: BlobId) -> Self {
        Self::named(format!("{DAMAGED}/{blob}"))
    }
}

/// A file of small blobs.
pub(crate) fn pack(number: u64) -> String {
    format!("{PACKS}/{number:016x}")
}

/// Which number a name in `packs/` has.
pub(crate) fn pack_from_name(name: &str) -> Option<u64> {
    u64::from_str_radix(name, 16).ok()
}

/// Which blob a name in `blobs/` belongs to.
pub(crate) fn complete_from_name(name: &str) -> Option<BlobId> {
    name.strip_suffix(".tree").unwrap_or(name).parse().ok()
}

/// Which blob and size a name in `partial/` belongs to; none for an import.
pub(crate) fn partial_from_name(name: &str) -> Option<(BlobId, u64)> {
    let (blob, size) = name.strip_suffix(".tree").unwrap_or(name).split_once('-')?;
    Some((blob.parse().ok()?, size.parse().ok()?))
}
