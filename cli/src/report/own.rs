//! Results for one trained codec.

use super::data::Data;
use apcm::Records;
use apcm::codec::TrainReport;

/// One trained codec of ours.
pub(super) struct Own {
    pub(super) bytes: usize,
    pub(super) report: TrainReport,
    pub(super) errors: Vec<f64>,
    pub(super) decoded: Records,
    pub(super) model_bytes: u64,
    pub(super) slot_bytes: f64,
}

/// How many records it takes until the codec's own bytes are saved.
pub(super) fn break_even(data: &Data, own: &Own) -> Option<u64> {
    let saved = data.record_bytes as f64 - own.slot_bytes;
    (saved > 0.0).then(|| (own.model_bytes as f64 / saved).ceil() as u64)
}
