//! Entropy-coded trellis quantization in charts: the fewest bytes at a given error.
//!
//! ```text
//! kept coordinates - chart (a local frame) - trellis (indices on one grid) - range coder -> code
//! code = level, chart, then one index an axis of the chart
//! ```
//! The length of a code varies: records that are easy to predict take fewer bytes. Nearly all records of a
//! codec share one step, chosen so that the *mean* length, or the mean error, is what was asked for; the
//! `level` says by how many quarter octaves a record's step differs, where a cap or a fixed length demands it.

mod charts;
mod context;
mod cost;
mod counts;
mod fit;
mod image;
mod mixture;
mod quantizer;
mod states;
mod tables;
mod trellis;
pub(crate) mod water;

pub(crate) use fit::Data;
pub use quantizer::Entropy;
