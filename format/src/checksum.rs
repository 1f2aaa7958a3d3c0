//! One checksum, one place: CRC-32 (IEEE), keyed by where the value lives.
//!
//! A plain CRC says "these bytes are intact". Keyed, it also says "and they belong here": a page that a disk
//! wrote to the wrong place carries a perfect plain CRC. The key is fed to the CRC before the value.
//! CRC-32 finds accidents, not attackers; nothing here claims to resist forgery.

use crate::bytes::split_crc;
use crate::{DecodeError, StoreUuid};

/// The table a value is stored in. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// What the store is, and its counters.
    Meta = 1,
    /// The codec's configuration and weights.
    Codec = 2,
    /// One record a slot.
    Slots = 3,
    /// Access counts, 250 a chunk.
    Counters = 4,
    /// User key to slot.
    Keys = 5,
    /// Key and values of a slot.
    Metadata = 6,
    /// What fidelity tiers add to a slot.
    Residuals = 7,
    /// Head of each stream.
    Streams = 8,
    /// No table: a block of a pack.
    Pack = 9,
    /// What the policy keeps of each slot, 125 a chunk.
    Uses = 10,
}

/// Where a value lives: what its checksum is keyed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The store the value belongs to.
    pub store: StoreUuid,
    /// The table it is in.
    pub table: Table,
    /// Its key in that table; for text keys, [`Place::named`] derives one.
    pub key: u64,
}

impl Place {
    /// A place whose key is a number.
    pub fn numbered(store: StoreUuid, table: Table, key: u64) -> Self {
        Self { store, table, key }
    }

    /// A place whose key is text or bytes: the key is folded to its length and CRC.
    pub fn named(store: StoreUuid, table: Table, name: &[u8]) -> Self {
        let key = (name.len() as u64) << 32 | u64::from(crc32fast::hash(name));
        Self { store, table, key }
    }

    /// CRC-32 of `parts`, one after the other, keyed by this place.
    pub fn crc(&self, parts: &[&[u8]]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.store.0);
        hasher.update(&[self.table as u8]);
        hasher.update(&self.key.to_le_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }

    /// The body of a value that ends with its CRC.
    ///
    /// # Errors
    /// [`Checksum`](DecodeError::Checksum) for damage or a value of another place.
    pub fn body<'a>(&self, what: &'static str, value: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        let (body, crc) = split_crc(what, value)?;
        if self.crc(&[body]) == crc { Ok(body) } else { Err(DecodeError::Checksum { what }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_check_differently_in_every_other_place() {
        let here = Place::numbered(StoreUuid([7; 16]), Table::Slots, 3);
        let crc = here.crc(&[b"payload"]);
        assert_eq!(crc, here.crc(&[b"pay", b"load"]));
        for elsewhere in [
            Place { store: StoreUuid([8; 16]), ..here },
            Place { table: Table::Counters, ..here },
            Place { key: 4, ..here },
        ] {
            assert_ne!(crc, elsewhere.crc(&[b"payload"]), "{elsewhere:?}");
        }
    }
}
