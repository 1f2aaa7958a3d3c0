//! Nearest memories by cosine: an exact scan over search vectors.
//!
//! Pure and deterministic: sums run in one fixed order, so the same vectors give the same bits on every machine and
//! thread count, and ties go to the lowest slot. A vector of length zero has similarity 0 to everything, never NaN.

mod matrix;
mod ranking;

pub(crate) use matrix::ScanMatrix;
pub(crate) use ranking::Ranked;
