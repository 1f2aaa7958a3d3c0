//! An embedded store for memories.
#![deny(unsafe_code)]

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod codec;
mod error;
mod filter;
mod index;
pub mod ingest;
mod mapping;
mod policy;
mod record;
pub mod report;
mod store;

pub use apcm_format::{
    Fingerprint, MemoryId, Metadata, Preset, RecordShape, Similarity, Value, WeightPrecision,
};
pub use codec::{
    Codec, CodecInfo, Device, Encoded, FlowCodec, PlainCodec, QuantizerSpec, StoredCode, Trained, Trainer,
};
pub use error::{Error, Result};
pub use filter::Filter;
pub use record::{Record, Records};
pub use store::{
    Attributes, CodecStats, Committed, Description, Entries, Entry, Evicted, Hit, Memory, Put, Search, Stats,
    Store, StoreBuilder, Transaction,
};
