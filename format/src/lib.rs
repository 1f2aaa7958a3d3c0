//! The bytes of an apcm store, and nothing else.
//!
//! This crate turns bytes into values and values into bytes. It opens no file, reads no clock and knows
//! neither the database that carries the values nor the network that made the codes.
//!
//! # Contract of every decoder
//! - Total: any input gives a value or a [`DecodeError`]; no input panics.
//! - Proportional: a decoder allocates at most a constant times the length of its input. Lengths found in
//!   the input are checked against what is really there *before* anything is allocated.
//! - Keyed: a value's CRC-32 is seeded with the store, the table and the key it belongs to, so a value that
//!   is intact but in the wrong place is found out like a damaged one.
//! - Exact: a decoder consumes its whole input; left-over bytes are an error.
//!
//! # The layouts
//! | value | type | made by |
//! | --- | --- | --- |
//! | what the store is | [`StoreHeader`] | hand-laid, 128 bytes |
//! | what a slot keeps | [`SlotRecord`] | hand-laid, code + 20 or 24 bytes |
//! | what a fidelity tier adds to a slot | [`ResidualRecord`] | hand-laid, payload + 13 bytes |
//! | access counts | [`CounterChunk`] | hand-laid, 250 counts a chunk |
//! | what the policy keeps of uses | [`UseChunk`] | hand-laid, 125 words a chunk |
//! | a part of a stream, its head | [`StreamPart`], [`StreamHead`] | hand-laid |
//! | counters of the store, keys and metadata, positions | [`frame`] | bincode behind a length and a limit |
//! | a pack's header and rows | [`PackHeader`], [`PackRow`] | hand-laid, 192 bytes and 40 a memory |
//! | a codec with its weights | [`CodecImage`] | hand-laid tensors behind a framed configuration |
//!
//! All integers are little-endian on every machine. `docs/format.md` in the repository draws the bytes.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used
    )
)]

mod bytes;
mod checksum;
mod chunk;
mod codec_image;
mod config;
mod counter;
mod error;
pub mod frame;
mod header;
mod id;
pub mod limits;
mod metadata;
mod name;
pub mod pack;
mod policy;
mod preamble;
mod residual;
mod shape;
mod slot;
mod state;
pub mod stream;
mod uses;

pub use checksum::{Place, Table};
pub use codec_image::{CodecImage, ElementType, NamedTensor};
pub use config::{
    FlowConfig, PlainConfig, Preset, QuantizerKind, RecurrenceConfig, TreeConfig, WeightPrecision,
};
pub use counter::CounterChunk;
pub use error::DecodeError;
pub use header::{Features, Similarity, StoreHeader};
pub use id::{Fingerprint, MemoryId, ParseIdError, StoreUuid};
pub use metadata::{Metadata, SlotMetadata, Value};
pub use name::UnknownName;
pub use pack::{PackHeader, PackLayout, PackRow};
pub use policy::{Policy, UnknownPolicy};
pub use residual::{ResidualForm, ResidualRecord};
pub use shape::{RecordShape, ShapeError};
pub use slot::{SlotFlags, SlotKind, SlotRecord, StoredReal};
pub use state::{IngestPosition, IngestSource, StoreState};
pub use stream::{Original, StreamHead, StreamPart};
pub use uses::UseChunk;
