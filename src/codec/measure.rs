//! Errors, norms and means, summed in `f64`.

use crate::error::{Error, Result};
use crate::record::Records;

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
    Ok(Records::from_decoded(batch.shape(), batch.mean()))
}
