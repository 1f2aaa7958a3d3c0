//! A fitted quantizer of any kind.

use super::allocated::Allocated;
use super::entropy::{Data, Entropy};
use super::residual::Residual;
use super::scalar::Scalar;
use super::spec::{QuantizerSpec, counted_bytes};
use crate::error::{Error, Result};
use apcm_format::{CodecImage, DecodeError, QuantizerKind};
use rayon::prelude::*;

/// A fitted quantizer.
#[derive(Debug, Clone)]
pub enum Quantizer {
    /// One fixed width for all coordinates.
    Scalar(Scalar),
    /// Bits where the variance is.
    Allocated(Allocated),
    /// Codebooks, each on what the ones before it left.
    Residual(Residual),
    /// Trellis quantization in charts, entropy coded.
    Entropy(Box<Entropy>),
}

impl Quantizer {
    /// Fits a quantizer to coordinates in order of falling variance.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) when more code values are asked for than there are coordinates, more bytes
    /// than they can use, or a smaller error than they allow.
    pub(crate) fn fit(spec: QuantizerSpec, data: &mut Data<'_>) -> Result<Self> {
        match spec {
            QuantizerSpec::Allocated(bytes) => {
                Allocated::fit(bytes, data.training, data.width).map(Self::Allocated)
            }
            QuantizerSpec::Residual(bytes) => Residual::fit(bytes, data).map(Self::Residual),
            QuantizerSpec::Entropy(spec) => {
                Entropy::fit(spec, data).map(|fitted| Self::Entropy(Box::new(fitted)))
            }
            _ => Scalar::fit(spec, data.training, data.width).map(Self::Scalar),
        }
    }

    /// How many leading coordinates are kept.
    pub fn kept(&self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.kept(),
            Self::Allocated(allocated) => allocated.kept(),
            Self::Residual(residual) => residual.kept(),
            Self::Entropy(entropy) => entropy.kept(),
        }
    }

    /// Bytes of the longest code.
    pub fn code_len_max(&self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.code_len(),
            Self::Allocated(allocated) => allocated.code_len(),
            Self::Residual(residual) => residual.code_len(),
            Self::Entropy(entropy) => entropy.code_len_max(),
        }
    }

    /// Whether codes differ in length.
    pub fn is_variable(&self) -> bool {
        matches!(self, Self::Entropy(entropy) if entropy.is_variable())
    }

    /// Bytes of a code with what it needs beside it: its length and a flag, where lengths vary.
    pub fn counted_bytes(&self, code_len: usize) -> f64 {
        if self.is_variable() { counted_bytes(code_len) } else { code_len as f64 }
    }

    /// Encodes rows of kept coordinates, on all cores.
    ///
    /// # Shapes
    /// - `rows`: `[record, kept]`
    pub fn encode_all(&self, rows: &[f32]) -> Vec<Vec<u8>> {
        let each = |encode: &(dyn Fn(&[f32]) -> Vec<u8> + Sync)| {
            rows.par_chunks_exact(self.kept()).map(encode).collect()
        };
        match self {
            Self::Scalar(scalar) => each(&|row| scalar.encode(row)),
            Self::Allocated(allocated) => each(&|row| allocated.encode(row)),
            Self::Residual(residual) => residual.encode_all(rows),
            Self::Entropy(entropy) => entropy.encode_all(rows),
        }
    }

    /// Decodes a code into the kept coordinates of one record.
    ///
    /// # Errors
    /// [`Format`](Error::Format) for a code that no encoder writes.
    pub fn decode(&self, code: &[u8], kept: &mut [f32]) -> Result<()> {
        let most = self.code_len_max();
        if code.len() > most || (code.len() < most && !self.is_variable()) {
            return Err(Error::Format(DecodeError::Invalid {
                what: "the length of a code",
                found: code.len() as u64,
            }));
        }
        match self {
            Self::Scalar(scalar) => scalar.decode(code, kept),
            Self::Allocated(allocated) => allocated.decode(code, kept),
            Self::Residual(residual) => residual.decode(code, kept),
            Self::Entropy(entropy) => entropy.decode(code, kept).ok_or_else(|| {
                Error::Format(DecodeError::Malformed {
                    what: "a code",
                    cause: "its symbols are none that an encoder writes".to_owned(),
                })
            })?,
        }
        Ok(())
    }

    /// Encodes rows and decodes them again, in place.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub(crate) fn pass(&self, rows: &mut [f32]) -> Result<()> {
        let codes = self.encode_all(rows);
        rows.par_chunks_exact_mut(self.kept()).zip(codes).try_for_each(|(row, code)| self.decode(&code, row))
    }

    pub(crate) fn kind(&self) -> QuantizerKind {
        match self {
            Self::Scalar(scalar) => scalar.kind(),
            Self::Allocated(_) => QuantizerKind::Allocated,
            Self::Residual(_) => QuantizerKind::Residual,
            Self::Entropy(_) => QuantizerKind::Entropy,
        }
    }

    pub(crate) fn store(&self, image: &mut CodecImage) {
        match self {
            Self::Scalar(scalar) => scalar.store(image),
            Self::Allocated(allocated) => allocated.store(image),
            Self::Residual(residual) => residual.store(image),
            Self::Entropy(entropy) => entropy.store(image),
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
            QuantizerKind::Residual => Residual::load(kept, code_len, image).map(Self::Residual),
            QuantizerKind::Entropy => {
                Entropy::load(kept, code_len, image).map(|entropy| Self::Entropy(Box::new(entropy)))
            }
            _ => Scalar::load(kind, kept, code_len, image).map(Self::Scalar),
        }
    }
}
