//! The trait of all codecs, and what it speaks: host types only.

use super::measure::mean_record;
use crate::error::{Error, Result};
use crate::record::Records;
use apcm_format::{CodecImage, Fingerprint, RecordShape, Similarity};
use std::fmt::Debug;
use std::sync::Arc;

/// One encoded record.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// What a slot stores.
    pub code: Vec<u8>,
    /// Mean squared error per element of what decoding this code returns.
    pub error: f32,
    /// Euclidean norm of the record.
    pub norm: f32,
    /// Decode without the predictor: measured to be better for this record.
    pub without_predictor: bool,
}

/// A stored code, as a codec needs it to decode.
#[derive(Debug, Clone, Copy)]
pub struct StoredCode<'a> {
    /// The bytes of the code.
    pub bytes: &'a [u8],
    /// As it was in [`Encoded`].
    pub without_predictor: bool,
}

/// A codec's description of itself.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CodecInfo {
    /// Name of the preset: `ordered`, `paper`, `plain`, or a codec's own.
    pub preset: String,
    /// Name of the quantizer.
    pub quantizer: String,
    /// Trained weights.
    pub parameters: u64,
}

/// Turns records into codes and back. Batch first: a call costs a device round trip.
pub trait Codec: Debug + Send + Sync + 'static {
    /// Shape of the records it takes and gives.
    fn shape(&self) -> RecordShape;

    /// The longest code it makes, in bytes.
    fn code_len_max(&self) -> usize;

    /// Encodes records and measures what decoding will return.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape) for records of another shape.
    fn encode(&self, records: &Records) -> Result<Vec<Encoded>>;

    /// Encodes the mean of a batch: what the ApCM paper's write stores.
    ///
    /// The measured error is against the mean of the records. A codec whose coordinates are not linear in the
    /// record should override this and average its coordinates, as the paper does.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and [`Argument`](Error::Argument) for an empty batch.
    fn encode_mean(&self, batch: &Records) -> Result<Encoded> {
        let encoded = self.encode(&mean_record(batch)?)?;
        encoded.into_iter().next().ok_or_else(|| Error::argument("the codes of a record", "1", 0))
    }

    /// Decodes codes, approximately: the discarded half is predicted.
    ///
    /// # Errors
    /// [`Format`](Error::Format) for bytes that this codec cannot have written.
    fn decode(&self, codes: &[StoredCode<'_>]) -> Result<Records>;

    /// Decodes the weighted mean of codes, one record: what a soft read gives back. Weights are positive and
    /// add up to 1.
    ///
    /// The mean of what the codes decode to; a codec with coordinates of its own should take the mean there, as
    /// the papers do.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn blend(&self, codes: &[StoredCode<'_>], weights: &[f32]) -> Result<Records> {
        let decoded = self.decode(codes)?;
        let mut sums = vec![0.0_f64; self.shape().values()];
        for (row, &weight) in decoded.rows().zip(weights) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(weight) * f64::from(value));
        }
        let mean = sums.into_iter().map(|sum| sum as f32).collect();
        Ok(Records::from_decoded(self.shape(), mean))
    }

    /// The largest number that decoding adds up, where reconstructions may be small differences of large ones:
    /// backends differ by its rounding.
    fn reconstruction_scale(&self) -> f32 {
        0.0
    }

    /// Length of a search vector.
    fn search_dims(&self, similarity: Similarity) -> usize;

    /// Search vectors of codes in the global frame, `[code, search_dims]`, one row after the other.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn search_vectors(&self, codes: &[&[u8]], similarity: Similarity) -> Result<Vec<f32>>;

    /// Encodes records and gives the search vectors of the codes: [`encode`](Self::encode) and
    /// [`search_vectors`](Self::search_vectors) in one call. A codec that dequantizes to measure its errors
    /// should override this, to dequantize once for both; the results must be the same to the bit.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_for_search(
        &self,
        records: &Records,
        similarity: Similarity,
    ) -> Result<(Vec<Encoded>, Vec<f32>)> {
        let encoded = self.encode(records)?;
        let codes: Vec<&[u8]> = encoded.iter().map(|encoded| encoded.code.as_slice()).collect();
        let vectors = self.search_vectors(&codes, similarity)?;
        Ok((encoded, vectors))
    }

    /// Search vectors of unquantized records, `[record, search_dims]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn query_vectors(&self, records: &Records, similarity: Similarity) -> Result<Vec<f32>>;

    /// The codec as bytes: what lives in the store file.
    ///
    /// # Errors
    /// When it is larger than the format allows.
    fn image(&self) -> Result<CodecImage>;

    /// What the codec says about itself.
    fn info(&self) -> CodecInfo;
}

// A codec behind a pointer is a codec: what `load` returns goes wherever a codec goes.
macro_rules! behind_a_pointer {
    ($pointer:ident) => {
        impl<C: Codec + ?Sized> Codec for $pointer<C> {
            fn shape(&self) -> RecordShape {
                (**self).shape()
            }

            fn code_len_max(&self) -> usize {
                (**self).code_len_max()
            }

            fn encode(&self, records: &Records) -> Result<Vec<Encoded>> {
                (**self).encode(records)
            }

            fn encode_for_search(
                &self,
                records: &Records,
                similarity: Similarity,
            ) -> Result<(Vec<Encoded>, Vec<f32>)> {
                (**self).encode_for_search(records, similarity)
            }

            fn encode_mean(&self, batch: &Records) -> Result<Encoded> {
                (**self).encode_mean(batch)
            }

            fn decode(&self, codes: &[StoredCode<'_>]) -> Result<Records> {
                (**self).decode(codes)
            }

            fn blend(&self, codes: &[StoredCode<'_>], weights: &[f32]) -> Result<Records> {
                (**self).blend(codes, weights)
            }

            fn reconstruction_scale(&self) -> f32 {
                (**self).reconstruction_scale()
            }

            fn search_dims(&self, similarity: Similarity) -> usize {
                (**self).search_dims(similarity)
            }

            fn search_vectors(&self, codes: &[&[u8]], similarity: Similarity) -> Result<Vec<f32>> {
                (**self).search_vectors(codes, similarity)
            }

            fn query_vectors(&self, records: &Records, similarity: Similarity) -> Result<Vec<f32>> {
                (**self).query_vectors(records, similarity)
            }

            fn image(&self) -> Result<CodecImage> {
                (**self).image()
            }

            fn info(&self) -> CodecInfo {
                (**self).info()
            }
        }
    };
}

behind_a_pointer!(Box);
behind_a_pointer!(Arc);

/// Names a codec by what it is stored as: BLAKE3 of its image.
pub fn fingerprint(image: &[u8]) -> Fingerprint {
    Fingerprint(*blake3::hash(image).as_bytes())
}
