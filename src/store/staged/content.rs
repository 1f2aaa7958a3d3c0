//! The contents of one slot, encoded and measured, before it has a place.

use crate::codec::Encoded;
use crate::codec::fidelity::Correction;
use apcm_format::frame::FrameBody;
use apcm_format::{DecodeError, SlotKind, SlotMetadata, limits};
use std::sync::Arc;

/// Margin for reads in another batch size, which may differ in the last bits.
pub(crate) const ROUNDING_MARGIN: f32 = 1.0001;

/// The contents of a slot, with the errors to store.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) encoded: Encoded,
    pub(crate) residual: Option<Correction>,
    pub(crate) search: SearchVector,
    pub(crate) key: Option<Vec<u8>>,
    /// Key and values, encoded once; none where there are neither.
    pub(crate) metadata: Option<FrameBody>,
    pub(crate) kind: SlotKind,
}

/// One row of the search vectors of a batch, which all contents of the batch share.
#[derive(Debug, Clone)]
pub(crate) struct SearchVector {
    batch: Arc<Vec<f32>>,
    start: usize,
    len: usize,
}

impl SearchVector {
    /// The rows of a batch, `[row, dims]`.
    pub(crate) fn rows(batch: Vec<f32>, dims: usize) -> impl Iterator<Item = Self> {
        let rows = batch.len() / dims.max(1);
        let batch = Arc::new(batch);
        (0..rows).map(move |row| Self { batch: Arc::clone(&batch), start: row * dims, len: dims })
    }

    pub(crate) fn one(values: Vec<f32>) -> Self {
        Self { start: 0, len: values.len(), batch: Arc::new(values) }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.batch[self.start..self.start + self.len]
    }
}

impl Content {
    /// Stored bytes of its code and residual.
    pub(crate) fn stored_len(&self) -> usize {
        let residual = self.residual.as_ref().map_or(0, |residual| residual.payload.len());
        self.encoded.code.len() + limits::SLOT_OVERHEAD_MAX + residual
    }

    /// Bytes of its metadata.
    pub(crate) fn metadata_len(&self) -> usize {
        self.metadata.as_ref().map_or(0, FrameBody::sealed_len)
    }

    /// Encodes key and values.
    ///
    /// # Errors
    /// Those of [`FrameBody::of`].
    pub(crate) fn framed(metadata: &SlotMetadata) -> Result<Option<FrameBody>, DecodeError> {
        if *metadata == SlotMetadata::default() { Ok(None) } else { FrameBody::of(metadata).map(Some) }
    }

    /// From codes and errors that were just measured.
    pub(crate) fn measured(
        encoded: Encoded,
        residual: Option<Correction>,
        search: SearchVector,
        key: Option<Vec<u8>>,
        metadata: Option<FrameBody>,
    ) -> Box<Self> {
        let encoded = Encoded { error: encoded.error * ROUNDING_MARGIN, ..encoded };
        let margin =
            |residual: Correction| Correction { error: residual.error * ROUNDING_MARGIN, ..residual };
        let residual = residual.map(margin);
        Box::new(Self { encoded, residual, search, key, metadata, kind: SlotKind::Record })
    }
}
