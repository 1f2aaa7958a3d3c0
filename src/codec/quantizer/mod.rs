//! Kept coordinates into bytes and back.
//!
//! At equal bytes the quantizer is worth more than any network, so it is fitted first and the predictor learns
//! on what it gives back. Decoding runs on the host and in a fixed order: a code decodes to the same floats on
//! every machine. Nothing outside this folder assumes that codes have one length.
//!
//! `spec` what can be asked for, `fitted` a quantizer of any kind; `scalar`, `allocated`, `residual`,
//! `entropy/` the kinds; `range_coder`, `bits` how indices become bytes; `k_means`, `lloyd_max` how levels are
//! fitted.

mod allocated;
mod bits;
mod entropy;
mod fitted;
mod k_means;
mod lloyd_max;
pub(crate) mod range_coder;
mod residual;
mod scalar;
mod spec;

pub use allocated::Allocated;
pub use entropy::Entropy;
pub use fitted::Quantizer;
pub use residual::Residual;
pub use scalar::Scalar;
pub use spec::{EntropySpec, QuantizerSpec, Rate, counted_bytes};

pub(crate) use entropy::{Data, water};
