//! Codecs: records into codes and back.
//!
//! A [`Codec`] is batch first and speaks host types only, so a store can keep any codec behind one pointer and a
//! test can write one in a page. What it promises the store:
//! - A code is bytes, of a length of its own, never longer than [`Codec::code_len_max`].
//! - What [`Codec::encode`] measured is what [`Codec::decode`] returns, up to rounding.
//! - Search vectors depend on the code alone, have one length, and can be made again at any time.
//! - Decoding never panics on a code of the wrong length or content: codes come from disk.

mod bound;
mod device;
pub(crate) mod fidelity;
pub mod flow;
mod plain;
pub mod quantizer;
pub mod train;

pub use bound::GaussianBound;
pub use device::Device;
pub use fidelity::Fidelity;
pub use flow::FlowCodec;
pub use plain::PlainCodec;
pub use quantizer::{EntropySpec, QuantizerSpec, Rate, counted_bytes};
pub use train::{
    Autoencoder, EndedBy, LossPoint, Progress, QuantizerChoice, StageReport, TrainReport, Trained, Trainer,
};

use crate::error::{Error, Result};
use crate::record::Records;
use apcm_format::{CodecImage, Fingerprint, RecordShape, Similarity};
use std::fmt::Debug;

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

/// What a codec says about itself.
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

    /// Decodes the weighted mean of codes, one record: what a soft read gives back. Weights are positive and add up to 1.
    ///
    /// The mean of what the codes decode to; a codec with coordinates of its own should take the mean there, as the
    /// papers do.
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

    /// The largest number that decoding adds up, where reconstructions may be small differences of large ones: backends
    /// differ by its rounding.
    fn reconstruction_scale(&self) -> f32 {
        0.0
    }

    /// Length of a search vector.
    fn search_dims(&self, similarity: Similarity) -> usize;

    /// What codes mean in the one global frame: `[code, search_dims]`, one row after the other.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn search_vectors(&self, codes: &[&[u8]], similarity: Similarity) -> Result<Vec<f32>>;

    /// What records would mean if they were stored without loss: `[record, search_dims]`.
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

/// Names a codec by what it is stored as: BLAKE3 of its image.
pub fn fingerprint(image: &[u8]) -> Fingerprint {
    Fingerprint(*blake3::hash(image).as_bytes())
}

/// Loads a codec from the bytes of its image, on a device.
///
/// # Errors
/// [`Format`](Error::Format) for damaged bytes, [`UnknownCodec`](Error::UnknownCodec) for a codec of the user's own.
pub fn load(image: &[u8], device: Device) -> Result<Box<dyn Codec>> {
    let image = CodecImage::decode(image)?;
    match image.kind.as_str() {
        flow::KIND => Ok(Box::new(FlowCodec::from_image(&image, device)?)),
        plain::KIND => Ok(Box::new(PlainCodec::from_image(&image)?)),
        _ => Err(Error::UnknownCodec { kind: image.kind }),
    }
}

/// Mean squared error per element and Euclidean norm, summed in `f64`.
pub(crate) fn error_and_norm(record: &[f32], decoded: &[f32]) -> (f64, f32) {
    let (error, norm) = record.iter().zip(decoded).fold((0.0, 0.0), |(error, norm), (&x, &y)| {
        let (x, difference) = (f64::from(x), f64::from(x) - f64::from(y));
        (error + difference * difference, norm + x * x)
    });
    (error / record.len() as f64, norm.sqrt() as f32)
}

/// The mean of a batch, one record.
pub(crate) fn mean_record(batch: &Records) -> Result<Records> {
    if batch.is_empty() {
        return Err(Error::argument("a batch to average", "at least one record", "none"));
    }
    let mean = column_means(batch.values(), batch.shape().values());
    Ok(Records::from_decoded(batch.shape(), mean))
}

/// Means of the columns of `[row, width]`, summed in `f64`.
pub(crate) fn column_means(values: &[f32], width: usize) -> Vec<f32> {
    let rows = (values.len() / width) as f64;
    let mut sums = vec![0.0_f64; width];
    for row in values.chunks_exact(width) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    sums.into_iter().map(|sum| (sum / rows) as f32).collect()
}
