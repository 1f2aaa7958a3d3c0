//! An embedded store for memories.
//!
//! One file holds a fixed number of **slots**. A slot keeps the **code** of one **record** (an embedding, an
//! image, a block of hidden states): its leading coordinates, quantized. The dropped coordinates are predicted
//! from the code, so a read returns the whole record, approximately, with an error that was measured when the
//! record was written. When the store is full, a write evicts a memory, in the same durable transaction.
#![doc = include_str!("../README.md")]
//!
//! # Where to look
//! - [`Store`]: create, open, read, write, search. [`Transaction`] for many operations in one commit.
//! - [`Pack`]: an immutable copy of a store, mapped and searched in place.
//! - [`FlowCodec`] and its [`Trainer`]; [`PlainCodec`] where nothing is to be compressed; the trait [`Codec`]
//!   for your own.
//! - [`Stream`]: sequences under a name, folded into few slots by a [`SweeperTree`].
//! - [`Policy`]: which memory a full store evicts.
//! - [`ingest`]: datasets into stores. [`report`]: figures and pictures.
//! - [`Filter`]: the language of conditions on metadata.
//! - [`Error`]: what each failure leaves behind.
#![deny(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod claim;
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
mod progress;
mod record;
pub mod report;
mod search;
pub mod sequence;
mod storage;
mod store;
mod stored;
mod summary;
#[doc(hidden)]
pub mod whole_file;

pub use apcm_format::{
    CodecImage, DecodeError, ElementType, Fingerprint, FlowConfig, IngestPosition, MemoryId, Metadata,
    NamedTensor, ParseIdError, Policy, Preset, QuantizerKind, RecordShape, ShapeError, Similarity,
    UnknownName, UnknownPolicy, Value, WeightPrecision,
};
pub use codec::{
    Codec, CodecInfo, Device, Encoded, EntropySpec, Fidelity, FlowCodec, PlainCodec, QuantizerSpec, Rate,
    StoredCode, Trained, Trainer, counted_bytes,
};
pub use error::{Error, Result};
pub use filter::Filter;
pub use index::Scan;
pub use memory::{Hit, Memory};
pub use pack::{Loading, Pack, PackBuilder, PackEntries, PackEntry, PackVerification};
pub use progress::Progress;
pub use record::{Record, Records};
pub use search::{HotFirst, Search};
pub use sequence::SweeperTree;
pub use storage::{BackendError, InMemoryBackend, StorageBackend};
pub use store::{
    AccessFrequency, Appended, Attributes, Backup, BackupReport, CodecStats, Committed, CompactReport,
    Description, Entries, Entry, Evicted, ExportPack, ExportReport, Finding, HotFirstReport, Import,
    ImportReport, MemoryFrequency, Recalled, Recode, RecodeReport, Repair, RepairPlan, RepairStep, Salvage,
    SalvageReport, SoftMemory, SoftRead, SoftShare, Stats, Store, StoreBuilder, Stream, StreamInfo,
    Transaction, Unpack, Verify, VerifyReport, Written, panic_becomes_error,
};
pub use summary::ErrorSummary;

/// The documents of the repository.
#[cfg(all(doc, not(doctest)))]
pub mod docs {
    #[doc = include_str!("../docs/design.md")]
    pub mod design {}
    #[doc = include_str!("../docs/format.md")]
    pub mod format {}
    #[doc = include_str!("../docs/terms.md")]
    pub mod terms {}
    #[doc = include_str!("../docs/reliability.md")]
    pub mod reliability {}
}
