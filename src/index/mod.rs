//! Nearest memories by cosine: exact scans over search vectors, by more than one way.
//!
//! Pure and deterministic: sums run in one fixed order, so the same vectors give the same bits on every machine
//! and thread count, and ties go to the lowest slot. A vector of length zero has similarity 0 to everything,
//! never NaN.

mod kernel;
mod matrix;
mod ranking;
mod scan;
mod view;

pub(crate) use matrix::ScanMatrix;
pub(crate) use ranking::Ranked;
pub use scan::Scan;
pub(crate) use scan::ScanOptions;
pub(crate) use view::{Checked, Part, View};
