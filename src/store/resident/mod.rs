//! What is kept in RAM while a store is open. All of it can be rebuilt from the file; nothing here writes.

mod batch;
mod counts;
mod dirty;
mod load;
mod signal;
mod sizes;
mod slots;
mod trees;
mod uses;

pub(crate) use counts::TakenCounts;
pub(crate) use load::load;
pub(crate) use signal::{BUMPS_MAX, Signal, Wake};
pub(crate) use sizes::{SlotSize, bytes_beside, row_bytes};
pub(crate) use slots::Resident;
pub(crate) use trees::{Kept, Trees};
pub(crate) use uses::{TakenUses, Uses};
