//! Kept coordinates into bytes and back.
//!
//! At equal bytes the quantizer is worth more than any network, so it is fitted first and the predictor learns on
//! what it gives back. Everything here runs on the host and in a fixed order: a code decodes to the same floats on
//! every machine. Nothing outside this folder assumes that codes have one length.

mod allocated;
mod bits;
mod lloyd_max;
mod scalar;

pub use allocated::Allocated;

use crate::error::{Error, Result};
use apcm_format::{CodecImage, DecodeError, QuantizerKind};
use scalar::Scalar;

/// Which quantizer, and how much it may spend on a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuantizerSpec {
    /// This many coordinates, four bytes each.
    F32(usize),
    /// This many coordinates, two bytes each.
    F16(usize),
    /// This many coordinates, one byte each.
    I8(usize),
    /// This many bytes, shared out by greedy water-filling over Lloyd-Max quantizers.
    Allocated(usize),
}

impl QuantizerSpec {
    /// Bytes of a code.
    pub fn code_len(self) -> usize {
        match self {
            Self::F32(values) => values.saturating_mul(4),
            Self::F16(values) => values.saturating_mul(2),
            Self::I8(values) | Self::Allocated(values) => values,
        }
    }

    /// The number of code values, where the quantizer fixes it in advance.
    pub fn values(self) -> Option<usize> {
        match self {
            Self::F32(values) | Self::F16(values) | Self::I8(values) => Some(values),
            Self::Allocated(_) => None,
        }
    }
}

/// A fitted quantizer.
#[derive(Debug, Clone, PartialEq)]
pub enum Quantizer {
    /// One fixed width for all coordinates.
    Scalar(Scalar),
    /// Bits where the variance is.
    Allocated(Allocated),
}

impl Quantizer {
    /// Fits a quantizer to coordinates in order of falling variance.
    ///
    /// # Shapes
    /// - `latent`: `[record, coordinate]`, one row after the other, `width` coordinates a row
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) when more code values are asked for than there are coordinates, or more bytes
    /// than they can use.
    pub(crate) fn fit(spec: QuantizerSpec, latent: &[f32], width: usize) -> Result<Self> {
        match spec {
            QuantizerSpec::Allocated(bytes) => Allocated::fit(bytes, latent, width).map(Self::Allocated),
            _ => Scalar::fit(spec, latent, width).map(Self::Scalar),
        }
    }

    /// How many leading coordinates are kept.
    pub fn kept(&self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.kept(),
            Self::Allocated(allocated) => allocated.kept(),
        }
    }

    /// Bytes of a code.
    pub fn code_len(&self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.code_len(),
            Self::Allocated(allocated) => allocated.code_len(),
        }
    }

    /// Encodes the kept coordinates of one record.
    pub fn encode(&self, kept: &[f32]) -> Vec<u8> {
        debug_assert_eq!(kept.len(), self.kept());
        match self {
            Self::Scalar(scalar) => scalar.encode(kept),
            Self::Allocated(allocated) => allocated.encode(kept),
        }
    }

    /// Decodes a code into the kept coordinates of one record.
    ///
    /// # Errors
    /// [`Format`](Error::Format) for a code of the wrong length.
    pub fn decode(&self, code: &[u8], kept: &mut [f32]) -> Result<()> {
        if code.len() != self.code_len() {
            return Err(Error::Format(DecodeError::Invalid {
                what: "the length of a code",
                found: code.len() as u64,
            }));
        }
        match self {
            Self::Scalar(scalar) => scalar.decode(code, kept),
            Self::Allocated(allocated) => allocated.decode(code, kept),
        }
        Ok(())
    }

    pub(crate) fn kind(&self) -> QuantizerKind {
        match self {
            Self::Scalar(scalar) => scalar.kind(),
            Self::Allocated(_) => QuantizerKind::Allocated,
        }
    }

    pub(crate) fn store(&self, image: &mut CodecImage) {
        match self {
            Self::Scalar(scalar) => scalar.store(image),
            Self::Allocated(allocated) => allocated.store(image),
        }
    }

    pub(crate) fn load(
        kind: QuantizerKind,
        kept: usize,
        code_len: usize,
        image: &CodecImage,
    ) -> Result<Self> {
        match kind {
            QuantizerKind::Allocated => Allocated::load(kept, code_len, image).map(Self::Allocated),
            _ => Scalar::load(kind, kept, code_len, image).map(Self::Scalar),
        }
    }
}
