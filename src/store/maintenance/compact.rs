//! Giving back what a file no longer needs.

use crate::error::{Error, Result};
use crate::store::file::{Handle, open_writable};
use crate::store::guard::{guarded, storage};
use crate::store::medium::Medium;
use redb::Database;
use std::path::Path;

/// Most passes over a file.
const PASSES_MAX: usize = 8;

/// What a compaction gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CompactReport {
    /// Bytes of the file before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
}

pub(crate) fn compact(path: &Path) -> Result<CompactReport> {
    let medium = Medium::File(path.to_owned());
    let bytes_before = medium.len()?;
    let (mut handle, _) = open_writable(&medium)?;
    guarded("compact the file", || {
        let Handle::Writable(database) = &mut handle else { return Err(Error::ReadOnly) };
        shrink(database)
    })?;
    drop(handle);
    Ok(CompactReport { bytes_before, bytes_after: medium.len()? })
}

/// Moves pages to the front until no more can be moved.
pub(super) fn shrink(database: &mut Database) -> Result<()> {
    for _ in 0..PASSES_MAX {
        if !database.compact().map_err(storage("compact the file"))? {
            break;
        }
    }
    Ok(())
}
