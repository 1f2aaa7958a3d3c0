//! Every table of the store, and the places of their values.

use apcm_format::{Place, StoreUuid, Table};
use redb::{TableDefinition, TableError};

/// Name to header, state and positions.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// Codec number and chunk number to at most 64 KiB of a codec's image.
pub(super) const CODEC: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("codec");
/// Slot to slot record.
pub(super) const SLOTS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("slots");
/// Chunk number to 250 access counts.
pub(super) const COUNTERS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("counters");
/// User key to slot. The slot's metadata names the key in return, under a checksum.
pub(super) const KEYS: TableDefinition<'static, &[u8], u32> = TableDefinition::new("keys");
/// Slot to framed key and values.
pub(super) const METADATA: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("metadata");

/// Slot to what its fidelity tier adds.
pub(super) const RESIDUALS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("residuals");

/// Chunk number to 125 words of the policy; only where the policy keeps words.
pub(super) const USES: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("uses");

/// Slot to the digest of what was moved into it and what that added to the error; only in a partial store of a recode.
pub(super) const RECODED: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("recoded");

/// Name of a stream to what is kept to append to it; only where there are streams.
pub(super) const STREAMS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("streams");

/// Name of the header in `meta`.
pub(super) const HEADER: &str = "header";
/// Name of the state in `meta`.
pub(super) const STATE: &str = "state";

/// Number of the store's own codec.
pub(super) const OWN_CODEC: u32 = 0;
/// Number of the sweeper tree that folds streams.
pub(super) const SWEEPER_TREE: u32 = 1;

/// The key of a chunk of a codec.
pub(super) fn codec_chunk(codec: u32, chunk: u32) -> u64 {
    u64::from(codec) << 32 | u64::from(chunk)
}

pub(super) fn slot_place(store: StoreUuid, slot: u32) -> Place {
    Place::numbered(store, Table::Slots, slot.into())
}

pub(super) fn counter_place(store: StoreUuid, chunk: u32) -> Place {
    Place::numbered(store, Table::Counters, chunk.into())
}

pub(super) fn use_place(store: StoreUuid, chunk: u32) -> Place {
    Place::numbered(store, Table::Uses, chunk.into())
}

pub(super) fn stream_place(store: StoreUuid, name: &str) -> Place {
    Place::named(store, Table::Streams, name.as_bytes())
}

pub(super) fn metadata_place(store: StoreUuid, slot: u32) -> Place {
    Place::numbered(store, Table::Metadata, slot.into())
}

pub(super) fn residual_place(store: StoreUuid, slot: u32) -> Place {
    Place::numbered(store, Table::Residuals, slot.into())
}

/// A table that older files, and files that need it not, do not have.
pub(super) fn optional<T>(opened: Result<T, TableError>) -> Result<Option<T>, TableError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn codec_place(store: StoreUuid, key: u64) -> Place {
    Place::numbered(store, Table::Codec, key)
}

pub(super) fn meta_place(store: StoreUuid, name: &str) -> Place {
    Place::named(store, Table::Meta, name.as_bytes())
}
