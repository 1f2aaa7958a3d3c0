//! Fidelity tiers: what is stored of a record beside its code. `tiers` the tiers and their choice, `bounded`
//! and `lossless` the payloads, `f16_copy` copies of a stream's records in two bytes a value.

mod bounded;
pub(crate) mod f16_copy;
mod lossless;
mod malformed;
mod tiers;

pub use tiers::Fidelity;
pub(crate) use tiers::{Correction, corrections, restore};
