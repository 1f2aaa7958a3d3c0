//! Placement and eviction: where the next memory goes, and which one leaves (`planner.rs`). Pure, integers
//! only, deterministic.
//!
//! The same bank, counts and operations yield the same placements on every machine, so a replay agrees with
//! what it replays. Knows nothing of files, tensors or clocks: "now" is an argument.
//!
//! Invariants
//! - A slot is free because it holds no memory, never because its access count is zero.
//! - Free slots first, the lowest of them. Then the memory with the lowest rank, the oldest among equals. The
//!   policy defines the rank (`rule.rs`).
//! - A pinned or damaged slot is never evicted.
//! - What a transaction has written is evicted only when nothing else is left.
//! - A part of a stream that was just appended to leaves only after everything that was there before.
//! - Over a byte budget residuals leave before memories.

mod bank;
mod hot;
mod planner;
mod rule;
mod victims;

pub(crate) use bank::{Bank, Occupant};
pub(crate) use hot::Hot;
pub(crate) use planner::{AllPinned, Placement, Planned, Planner, Usage};
pub(crate) use rule::Rule;
pub(crate) use victims::Victims;
