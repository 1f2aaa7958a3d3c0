//! Blocks of 64 KiB, each looked at once, before anything of it is believed.

use super::bytes::Bytes;
use crate::error::{Error, Result};
use apcm_format::{DecodeError, PackHeader, PackLayout};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

const UNSEEN: u8 = 0;
const WHOLE: u8 = 1;
const DAMAGED: u8 = 2;

/// The bytes of a pack behind their checksums.
#[derive(Debug)]
pub(super) struct Blocks {
    bytes: Bytes,
    header: PackHeader,
    layout: PackLayout,
    seen: Vec<AtomicU8>,
}

impl Blocks {
    /// Takes bytes as long as the layout says; looks at the checksums of the blocks, and at no block.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt) for damaged checksums.
    pub(super) fn new(bytes: Bytes, header: PackHeader, layout: PackLayout) -> Result<Self> {
        let count = layout.block_count() as usize;
        let blocks =
            Self { bytes, header, layout, seen: (0..count).map(|_| AtomicU8::new(UNSEEN)).collect() };
        let sums = blocks.raw(blocks.layout.blocks.clone());
        if blocks.header.blocks_place().crc(&[sums]) == blocks.header.blocks_crc {
            return Ok(blocks);
        }
        let what = "the checksums of a pack".to_owned();
        Err(Error::Corrupt { what, cause: DecodeError::Checksum { what: "the checksums of blocks" } })
    }

    pub(super) fn header(&self) -> &PackHeader {
        &self.header
    }

    pub(super) fn layout(&self) -> &PackLayout {
        &self.layout
    }

    pub(super) fn is_mapped(&self) -> bool {
        self.bytes.is_mapped()
    }

    /// Bytes of a section, looked at.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt) for a range outside its section, and for damage of the blocks it lies in.
    pub(super) fn get(&self, section: &Range<u64>, range: Range<u64>) -> Result<&[u8]> {
        let start = section.start.saturating_add(range.start);
        let end = section.start.saturating_add(range.end);
        if start > end || end > section.end {
            let cause = DecodeError::Truncated {
                what: "a section of a pack",
                needed: range.end,
                found: section.end - section.start,
            };
            return Err(Error::Corrupt { what: "a place in a pack".to_owned(), cause });
        }
        self.check(start..end)?;
        Ok(self.raw(start..end))
    }

    /// Looks at the blocks that hold these bytes, each once in the life of the pack.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt), which names the block.
    pub(super) fn check(&self, bytes: Range<u64>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        for number in self.layout.blocks_of(bytes) {
            let Some(seen) = self.seen.get(number as usize) else { return Err(damaged(number)) };
            // Two threads may look at the same block at once and find the same.
            let found = match seen.load(Ordering::Relaxed) {
                UNSEEN => {
                    let found = if self.is_whole(number) { WHOLE } else { DAMAGED };
                    seen.store(found, Ordering::Relaxed);
                    found
                }
                found => found,
            };
            if found == DAMAGED {
                return Err(damaged(number));
            }
        }
        Ok(())
    }

    fn is_whole(&self, number: u64) -> bool {
        let sums = self.raw(self.layout.blocks.clone());
        let sum = sums.chunks_exact(4).nth(number as usize).and_then(|sum| sum.try_into().ok());
        let crc = self.header.block_place(number).crc(&[self.raw(self.layout.block(number))]);
        sum.map(u32::from_le_bytes) == Some(crc)
    }

    /// Numbers of a section where they lie, not looked at.
    pub(super) fn numbers<T: bytemuck::AnyBitPattern>(&self, section: &Range<u64>) -> &[T] {
        // Sections begin at multiples of 64 of bytes that begin at a multiple of 8 at least: they are aligned.
        bytemuck::try_cast_slice(self.raw(section.clone())).unwrap_or_default()
    }

    pub(super) fn raw(&self, range: Range<u64>) -> &[u8] {
        self.bytes.all().get(range.start as usize..range.end as usize).unwrap_or_default()
    }
}

fn damaged(number: u64) -> Error {
    Error::Corrupt {
        what: format!("block {number} of the pack"),
        cause: DecodeError::Checksum { what: "64 KiB of a pack" },
    }
}
