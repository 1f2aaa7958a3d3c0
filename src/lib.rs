//! An embedded store for memories.
//!
//! One file holds a fixed number of **slots**. A slot keeps the **code** of one **record** (an embedding, an image,
//! a block of hidden states): the short half of what an invertible network makes of it. The other half is thrown
//! away and predicted again on the way out, so a read gives the whole record back, approximately, with an error that
//! is *known*, because it was measured when the record went in. When the store is full, the least used memory makes
//! room, durably, in one transaction.
#![doc = include_str!("../README.md")]
//!
//! # Where to look
//! - [`Store`]: create, open, read, write, search. [`Transaction`] for many operations in one commit.
//! - [`Pack`]: an immutable copy of a store, mapped and searched in place.
//! - [`FlowCodec`] and its [`Trainer`]; [`PlainCodec`] where nothing is to be compressed; the trait [`Codec`] for
//!   your own.
//! - [`Stream`]: sequences under a name, folded into few slots by a [`SweeperTree`].
//! - [`Policy`]: who makes room.
//! - [`ingest`]: datasets into stores. [`report`]: figures and pictures.
//! - [`Filter`]: the language of conditions on metadata.
//! - [`Error`]: what each failure leaves behind.
#![deny(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod claim;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod clock;
pub mod codec;
mod error;
mod filter;
mod index;
pub mod ingest;
mod mapping;
mod memory;
mod pack;
mod paged;
mod policy;
mod record;
pub mod report;
mod search;
pub mod sequence;
mod store;
mod stored;
mod summary;
mod whole_file;

pub use apcm_format::{
    Fingerprint, MemoryId, Metadata, Policy, Preset, RecordShape, Similarity, UnknownPolicy, Value,
    WeightPrecision,
};
pub use codec::{
    Codec, CodecInfo, Device, Encoded, EntropySpec, Fidelity, FlowCodec, PlainCodec, QuantizerSpec, Rate,
    StoredCode, Trained, Trainer, counted_bytes,
};
pub use error::{Error, Result};
pub use filter::Filter;
pub use index::Scan;
pub use memory::{Hit, Memory};
pub use pack::{Loading, Pack, PackBuilder, PackEntries, PackEntry, PackReport};
pub use record::{Record, Records};
pub use search::{HotFirst, Search};
pub use sequence::SweeperTree;
pub use store::{
    AccessFrequency, Appended, Attributes, BackendError, Backup, BackupReport, CodecStats, Committed,
    CompactReport, Damage, Description, Entries, Entry, Evicted, ExportPack, ExportReport, HotFirstReport,
    Import, ImportReport, InMemoryBackend, MemoryFrequency, Put, Recalled, Recode, RecodeReport, RepairPlan,
    RepairStep, SalvageReport, SoftMemory, SoftRead, SoftShare, Stats, StorageBackend, Store, StoreBuilder,
    Stream, StreamInfo, Transaction, Verify, VerifyReport,
};
pub use summary::ErrorSummary;
