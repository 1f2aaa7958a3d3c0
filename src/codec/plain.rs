//! A codec without a network: keeps the first values of a record as they are.
//!
//! For tests, fuzzing and examples, and for stores without compression.

use super::{Codec, CodecInfo, Encoded, StoredCode, error_and_norm};
use crate::error::{Error, Result};
use crate::record::{Records, check_shape};
use apcm_format::{CodecImage, DecodeError, PlainConfig, RecordShape, Similarity, limits};

pub(super) const KIND: &str = "plain";

/// Keeps the first `kept` values of each record as `f32` and returns zeros for the rest.
#[derive(Debug, Clone)]
pub struct PlainCodec {
    shape: RecordShape,
    kept: usize,
}

impl PlainCodec {
    /// A codec for records with these axes that keeps their first `kept` values.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for an impossible shape, or when more is kept than a record has or a code
    /// may hold.
    pub fn new(dims: &[usize], kept: usize) -> Result<Self> {
        let shape = Records::with_dims(dims)?.shape();
        let most = shape.values().min(limits::CODE_LEN_MAX / 4);
        if kept == 0 || kept > most {
            return Err(Error::argument("the number of kept values", format!("1 to {most}"), kept));
        }
        Ok(Self { shape, kept })
    }

    pub(super) fn from_image(image: &CodecImage) -> Result<Self> {
        let config: PlainConfig = image.config()?;
        let shape = config.record_shape()?;
        Self::new(&shape.dims(), config.kept as usize)
    }

    fn values<'a>(&self, code: &'a [u8]) -> Result<impl Iterator<Item = f32> + use<'a>> {
        if code.len() != self.kept * 4 {
            return Err(DecodeError::Invalid {
                what: "the length of a plain code",
                found: code.len() as u64,
            }
            .into());
        }
        Ok(code.chunks_exact(4).map(|bytes| {
            // A code from a foreign writer may hold NaN behind a good checksum; records are finite.
            let value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if value.is_finite() { value } else { 0.0 }
        }))
    }
}

impl Codec for PlainCodec {
    fn shape(&self) -> RecordShape {
        self.shape
    }

    fn code_len_max(&self) -> usize {
        self.kept * 4
    }

    fn encode(&self, records: &Records) -> Result<Vec<Encoded>> {
        check_shape(self.shape, records.shape())?;
        let encode = |row: &[f32]| {
            let mut decoded = row.to_vec();
            decoded[self.kept..].fill(0.0);
            let (error, norm) = error_and_norm(row, &decoded);
            let code = row[..self.kept].iter().flat_map(|value| value.to_le_bytes()).collect();
            Encoded { code, error: error as f32, norm, without_predictor: false }
        };
        Ok(records.rows().map(encode).collect())
    }

    fn decode(&self, codes: &[StoredCode<'_>]) -> Result<Records> {
        let width = self.shape.values();
        let mut values = Vec::with_capacity(codes.len() * width);
        for code in codes {
            values.extend(self.values(code.bytes)?);
            values.resize(values.len() + width - self.kept, 0.0);
        }
        Ok(Records::from_decoded(self.shape, values))
    }

    fn search_dims(&self, _: Similarity) -> usize {
        self.kept
    }

    fn search_vectors(&self, codes: &[&[u8]], _: Similarity) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(codes.len() * self.kept);
        for code in codes {
            out.extend(self.values(code)?);
        }
        Ok(out)
    }

    fn query_vectors(&self, records: &Records, _: Similarity) -> Result<Vec<f32>> {
        check_shape(self.shape, records.shape())?;
        Ok(records.rows().flat_map(|row| &row[..self.kept]).copied().collect())
    }

    fn image(&self) -> Result<CodecImage> {
        let (rank, shape) = self.shape.to_stored();
        Ok(CodecImage::new(KIND, &PlainConfig { shape, rank, kept: self.kept as u32 })?)
    }

    fn info(&self) -> CodecInfo {
        CodecInfo { preset: KIND.to_owned(), quantizer: "f32".to_owned(), parameters: 0 }
    }
}
