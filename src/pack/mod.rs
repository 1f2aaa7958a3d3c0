//! Packs: immutable copies of stores, searched where they lie.
//!
//! A pack is one file that [`Store::export_pack`](crate::Store::export_pack) writes and that never changes:
//! codec, codes, search vectors, keys and metadata, in sections that are mapped and read in place. Opening one
//! looks at its header and its codec, whatever its size; each other block of 64 KiB is verified when it is
//! first read. Any number of processes may have one open at once, and share its pages.

mod blocks;
mod bytes;
mod handle;
mod lookup;
mod search;
mod write;

pub use bytes::Loading;
pub use handle::{Pack, PackBuilder};
pub use lookup::{PackEntries, PackEntry, PackVerification};
pub(crate) use write::{Packed, Writer};
