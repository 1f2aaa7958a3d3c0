//! Training: from records to a codec, and a report of what was tried and kept.
//!
//! Order is everything here. The quantizer is fitted first and then stays; the predictor is trained on
//! dequantized codes, and this training has not diverged so far; the couplings come last, at a small learning
//! rate. Every stage is a candidate beside "leave it out", and is kept only if a validation split *taken from
//! the training records* improves, at the precision that is stored, by more than two standard errors of the
//! paired difference and by half a percent.

mod autoencoder;
mod basis;
mod fit;
mod gate;
mod options;
mod ordered;
mod paper;
mod progress;
pub(crate) mod recurrence;
mod report;
mod request;
mod session;
mod trainer;

pub use autoencoder::Autoencoder;
pub use report::{EndedBy, LossPoint, QuantizerChoice, StageReport, TrainReport, Trained};
pub use trainer::Trainer;
