//! Whether the disk has room for a commit, asked before anything is written.

use crate::error::{Error, Result};
use crate::store::engine::Engine;
use crate::store::resident::bytes_beside;
use crate::store::staged::Op;

/// Bytes of the database's pages.
const PAGE: u64 = 4_096;
/// Bytes that the database uses for itself.
const FILE_MIN: u64 = 256 << 10;
/// Pages that any commit may write: the path to one leaf of each table, and the database's own lists.
const PAGES_A_COMMIT: u64 = 48;
/// Further pages of an operation: a leaf, or two if it splits, in each table that it touches.
const PAGES_AN_OPERATION: u64 = 6;

impl Engine {
    /// Whether the disk has space for these operations. Removals are tried on a full disk too: the database
    /// usually has free pages, and removals are how a full store gets space.
    pub(crate) fn check_space<'a>(&self, ops: impl Iterator<Item = &'a Op>) -> Result<()> {
        let (mut bytes, mut operations, mut adds) = (0, 0, false);
        for op in ops {
            operations += 1;
            let more = match op {
                Op::Head(_, head) => bytes_beside(head) as usize + 512,
                Op::Write { content, .. } | Op::Restore { content, .. } => {
                    content.stored_len() + content.metadata_len() + 256
                }
                Op::RemoveKey(_) | Op::RemoveId(_) | Op::Pin(..) | Op::Expect(_) => continue,
                Op::Inherit(_) | Op::Position(..) | Op::Source(..) => 256,
            };
            bytes += more;
            adds = true;
        }
        if adds { self.check_room(bytes, operations) } else { Ok(()) }
    }

    /// Whether the disk has space for this many bytes in this many operations: the most that the commit may
    /// write. Twice the bytes, because a half-full leaf takes a whole page.
    pub(crate) fn check_room(&self, bytes: usize, operations: u64) -> Result<()> {
        // No page is written twice, however many operations there are. A file that was renamed or removed has
        // no length to ask for; it is written to anyway.
        let pages = (self.backing.len().unwrap_or(u64::MAX) / PAGE)
            .min(PAGES_AN_OPERATION.saturating_mul(operations));
        let needed = 2 * bytes as u64 + (pages + PAGES_A_COMMIT) * PAGE;
        match self.backing.available() {
            // The free space inside the file counts only if the disk has too little.
            Some(available)
                if available < needed && available.saturating_add(self.free_inside()) < needed =>
            {
                Err(Error::NoSpace { needed, available })
            }
            _ => Ok(()),
        }
    }

    /// Bytes inside the file that are certainly free: half of its allocated size beyond three times its
    /// contents. A file in long use takes 1.6 times its contents.
    fn free_inside(&self) -> u64 {
        let contents = self.resident.read().stored() + self.codec_bytes + FILE_MIN;
        self.backing.allocated().map_or(0, |allocated| allocated.saturating_sub(3 * contents) / 2)
    }
}
