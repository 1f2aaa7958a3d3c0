//! Reads: rank in memory, look up in a snapshot, check that both speak of the same write, decode outside all
//! locks. Nothing here writes to the file.

mod frequency;
mod get;
mod hot_first;
mod iter;
mod lookup;
mod part;
mod positions;
mod search;
mod soft;
mod stats;

pub use frequency::{AccessFrequency, MemoryFrequency};
pub(crate) use get::check_key;
pub use iter::{Entries, Entry};
pub(crate) use lookup::vanished;
pub(crate) use part::misfit;
pub use soft::{SoftMemory, SoftRead, SoftShare};
