//! The shape of a record: one to three axes.

use crate::DecodeError;
use crate::limits::{RANK_MAX, RECORD_VALUES_MAX};
use std::fmt;

/// How a record's values are arranged: `[dim]`, `[tokens, features]`, `[height, width]`,
/// `[channels, height, width]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordShape {
    dims: [u32; RANK_MAX],
    rank: u8,
}

/// The shape is empty, has too many axes, or too many values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError {
    dims: Vec<u64>,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a record has 1 to {RANK_MAX} axes, none of them 0, and at most {RECORD_VALUES_MAX} values; found {:?}",
            self.dims
        )
    }
}

impl std::error::Error for ShapeError {}

impl RecordShape {
    /// A shape with these axes.
    ///
    /// # Errors
    /// No axis or more than three, an axis of 0, or more than [`RECORD_VALUES_MAX`] values.
    pub fn new(dims: &[usize]) -> Result<Self, ShapeError> {
        let error = || ShapeError { dims: dims.iter().map(|&dim| dim as u64).collect() };
        if dims.is_empty() || dims.len() > RANK_MAX || dims.contains(&0) {
            return Err(error());
        }
        let values = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        if values.is_none_or(|values| values as u64 > u64::from(RECORD_VALUES_MAX)) {
            return Err(error());
        }
        let mut stored = [1; RANK_MAX];
        for (axis, &dim) in stored.iter_mut().zip(dims) {
            *axis = u32::try_from(dim).map_err(|_| error())?;
        }
        Ok(Self { dims: stored, rank: dims.len() as u8 })
    }

    /// The axes.
    pub fn dims(&self) -> Vec<usize> {
        self.dims.iter().take(usize::from(self.rank)).map(|&dim| dim as usize).collect()
    }

    /// How many values a record of this shape has.
    pub fn values(&self) -> usize {
        // Holds because `new` bounds the product; axes beyond the rank are 1.
        self.dims.iter().map(|&dim| dim as usize).product()
    }

    /// As headers keep it.
    pub(crate) fn stored(&self) -> (u8, [u32; RANK_MAX]) {
        (self.rank, self.dims)
    }

    /// One shape, one form: axes beyond the rank are 1.
    pub(crate) fn from_stored(rank: u8, dims: [u32; RANK_MAX]) -> Result<Self, DecodeError> {
        let axes: Vec<usize> = dims.iter().take(usize::from(rank)).map(|&dim| dim as usize).collect();
        Self::new(&axes)
            .ok()
            .filter(|shape| shape.stored() == (rank, dims))
            .ok_or(DecodeError::Invalid { what: "the record shape", found: rank.into() })
    }
}

impl fmt::Display for RecordShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for RecordShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordShape{:?}", self.dims())
    }
}

/// As its axes.
impl serde::Serialize for RecordShape {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.dims())
    }
}
