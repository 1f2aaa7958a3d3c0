//! What a training did: stages, quantizers, loss curves.

use crate::codec::FlowCodec;

/// What ended a stage of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EndedBy {
    /// The step budget.
    Steps,
    /// The time budget.
    Time,
    /// No improvement on the validation split for a while.
    EarlyStop,
    /// The progress callback.
    Cancelled,
    /// A loss that was no longer finite; the best weights before it were kept.
    Diverged,
}

apcm_format::named!(
    EndedBy, "an end of a training",
    Steps => "steps", Time => "time", EarlyStop => "early-stop", Cancelled => "cancelled", Diverged => "diverged"
);

/// One point of a loss curve.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct LossPoint {
    /// Step; 0 is before the first.
    pub step: usize,
    /// Loss of the batches since the point before, averaged. In the ordered preset 1 is the error of the code
    /// alone; in the paper preset it is the paper's joint loss.
    pub training: f64,
    /// Mean squared error per element on the validation records that choose the weights, where it was measured;
    /// of the part that the latent carries, 98 % of the variance.
    pub validation: Option<f64>,
}

/// How one stage of training went.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct StageReport {
    /// `predictor`, `couplings` or `paper`.
    pub name: &'static str,
    /// Steps taken.
    pub steps: usize,
    /// Why it ended.
    pub ended_by: EndedBy,
    /// The loss curve.
    pub history: Vec<LossPoint>,
    /// Mean squared error per element on the validation split without this stage, at stored precision; none
    /// where there is no codec without it.
    pub error_before: Option<f64>,
    /// The same with this stage; none without a validation split.
    pub error_after: Option<f64>,
    /// Standard error of the paired difference.
    pub standard_error: Option<f64>,
    /// Whether the stage is part of the codec.
    pub accepted: bool,
}

/// How one quantizer did before any network was trained.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct QuantizerChoice {
    /// Its name, as in [`CodecInfo`](crate::CodecInfo).
    pub quantizer: &'static str,
    /// How many charts it has, if it has charts.
    pub charts: Option<usize>,
    /// Mean bytes of a code on the validation records, with what a code of varying length needs beside it.
    pub bytes: Option<f64>,
    /// Mean squared error per element on the validation records that choose; none without such records.
    pub error: Option<f64>,
    /// Whether the codec has it.
    pub chosen: bool,
}

/// What a training did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct TrainReport {
    /// Records the codec was fitted to.
    pub training_records: usize,
    /// Records that decided what was kept.
    pub validation_records: usize,
    /// The quantizers that were tried; the one of least error on the validation records was chosen.
    pub quantizers: Vec<QuantizerChoice>,
    /// The stages that were tried.
    pub stages: Vec<StageReport>,
    /// Seconds it took.
    pub seconds: f64,
}

/// A trained codec and how it came about.
#[derive(Debug)]
pub struct Trained {
    /// The codec, as it will be stored.
    pub codec: FlowCodec,
    /// What was tried and kept.
    pub report: TrainReport,
}
