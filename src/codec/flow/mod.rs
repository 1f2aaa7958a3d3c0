//! The flow codec: rotation, couplings, split, quantizer, and the predictor that undoes the split.
//!
//! ```text
//! record - rotation? - [ coupling - permutation? ] x n - split +- z_comp - quantizer -> code
//!                                                              +- z_aux (measured, then dropped)
//! code - dequantize - predictor - join - inverse chain - inverse rotation -> record
//! ```
//! One chain serves every preset; a preset is a configuration, not a second code path.

pub(crate) mod chain;
mod codec;
mod elementwise;
mod host;
pub(crate) mod network;
pub(crate) mod pairs;
pub(crate) mod parameters;
pub(crate) mod recurrence;
pub(crate) mod restore;

pub use codec::FlowCodec;
pub(crate) use parameters::{FlowParameters, KIND};
