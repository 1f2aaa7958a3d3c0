//! Every table of the store, and the places of their values.

use apcm_format::{Place, StoreUuid, Table};
use redb::{TableDefinition, TableError};

/// Name to header, state and positions.
pub(crate) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// Codec number and chunk number to at most 64 KiB of a codec's image.
pub(crate) const CODEC: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("codec");
/// Slot to slot record.
pub(crate) const SLOTS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("slots");
/// Chunk number to 250 access counts.
pub(crate) const COUNTERS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("counters");
/// User key to slot. The slot's metadata names the key in return, under a checksum.
pub(crate) const KEYS: TableDefinition<'static, &[u8], u32> = TableDefinition::new("keys");
/// Slot to framed key and values.
pub(crate) const METADATA: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("metadata");

/// Slot to what its fidelity tier adds.
pub(crate) const RESIDUALS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("residuals");

/// Chunk number to 125 words of the policy; only where the policy keeps words.
pub(crate) const USES: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("uses");

/// Slot to the digest of what was moved into it and what that added to the error; only in a partial store of a
/// recode.
pub(crate) const RECODED: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("recoded");

/// Name of a stream to what is kept to append to it; only where there are streams.
pub(crate) const STREAMS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("streams");

/// Name of the header in `meta`.
pub(crate) const HEADER: &str = "header";
/// Name of the state in `meta`.
pub(crate) const STATE: &str = "state";

/// What names of ingest positions begin with in `meta`.
pub(crate) const POSITION_PREFIX: &str = "ingest:";

/// What names of what was ingested up to them begin with.
pub(crate) const SOURCE_PREFIX: &str = "source:";

/// Number of the store's own codec.
pub(crate) const OWN_CODEC: u32 = 0;
/// Number of the sweeper tree that folds streams.
pub(crate) const SWEEPER_TREE: u32 = 1;

/// The key of a chunk of a codec.
pub(crate) fn codec_chunk(codec: u32, chunk: u32) -> u64 {
    u64::from(codec) << 32 | u64::from(chunk)
}

pub(crate) fn slot_place(store: StoreUuid, slot: u32) -> Place {
    Place::numbered(store, Table::Slots, slot.into())
}

pub(crate) fn counter_place(store: StoreUuid, chunk: u32) -> Place {
    Place::numbered(store, Table::Counters, chunk.into())
}

pub(crate) fn use_place(store: StoreUuid, chunk: u32) -> Place {
    Place::numbered(store, Table::Uses, chunk.into())
}

pub(crate) fn stream_place(store: StoreUuid, name: &str) -> Place {
    Place::named(store, Table::Streams, name.as_bytes())
}

pub(crate) fn metadata_place(store: StoreUuid, slot: u32) -> Place {
    Place::numbered(store, Table::Metadata, slot.into())
}

pub(crate) fn residual_place(store: StoreUuid, slot: u32) -> Place {
    Place::numbered(store, Table::Residuals, slot.into())
}

/// A table that older files, and files that need it not, do not have.
pub(crate) fn optional<T>(opened: Result<T, TableError>) -> Result<Option<T>, TableError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn codec_place(store: StoreUuid, key: u64) -> Place {
    Place::numbered(store, Table::Codec, key)
}

pub(crate) fn meta_place(store: StoreUuid, name: &str) -> Place {
    Place::named(store, Table::Meta, name.as_bytes())
}
