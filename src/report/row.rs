//! How one method did, in numbers.

/// How one method did at one size, on records that it was not fitted to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Row {
    /// Its name; ours begin with `apcm`.
    pub method: String,
    /// Mean bytes of a code, with what a decoder needs beside it.
    pub bytes: f64,
    /// The bytes that were asked for.
    pub nominal_bytes: usize,
    /// Everything a slot of a store keeps for such a record, where a store can keep it.
    pub slot_bytes: Option<f64>,
    /// Bytes of a store's file for each record in it, codec and all.
    pub file_bytes_per_slot: Option<f64>,
    /// Bytes of the codec itself.
    pub model_bytes: Option<u64>,
    /// Mean squared error per element.
    pub mse: f64,
    /// Mean absolute error per element.
    pub mae: Option<f64>,
    /// PSNR of the mean error, for a peak of 1.
    pub psnr_db: f64,
    /// Mean of the records' own PSNR.
    pub mean_psnr_db: Option<f64>,
    /// Error over the records' variance.
    pub relative_error: Option<f64>,
    /// Structural similarity, for pictures.
    pub ssim: Option<f64>,
    /// Share of the ten nearest by the originals that a search of the codes finds.
    pub recall_at_10: Option<f64>,
    /// Records encoded a second, the error measured.
    pub encode_per_s: Option<f64>,
    /// Records decoded a second.
    pub decode_per_s: Option<f64>,
}
