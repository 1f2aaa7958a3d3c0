//! Options that several commands share.

use apcm::whole_file::Taken;
use apcm::{Fidelity, Preset, Similarity};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Groups of records.
#[derive(Debug, Clone, Args)]
pub(crate) struct Groups {
    /// Every N records, one after the other, belong together (tokens of a sequence, frames of a clip): they are
    /// set aside together
    #[arg(long = "group", value_name = "N", conflicts_with = "group_field")]
    pub(crate) every: Option<usize>,
    /// Records with the same value in this field of the JSONL file beside the data belong together
    #[arg(long = "group-field", value_name = "FIELD")]
    pub(crate) group_field: Option<String>,
}

/// What to do with an existing file.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Force {
    /// Replace an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

impl From<Force> for Taken {
    fn from(force: Force) -> Self {
        if force.force { Self::Replace } else { Self::Refuse }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Quantizer {
    /// Whichever loses least on records set aside
    Auto,
    /// Entropy coded: codes of any length, these bytes on average
    Entropy,
    /// Entropy coded, every code of these bytes
    EntropyFixed,
    /// Residual codebooks, every code of these bytes
    Residual,
    /// Bits where the variance is
    Allocated,
    /// One byte a value
    I8,
    /// Two bytes a value
    F16,
    /// Four bytes a value
    F32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PresetName {
    /// Principal axes first; every stage kept only if it pays
    Ordered,
    /// The ApCM network as published
    Paper,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Ordered => Self::Ordered,
            PresetName::Paper => Self::Paper,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SimilarityName {
    /// Cosine of the records
    Cosine,
    /// Cosine about the mean of the training data: better for images
    CentredCosine,
}

impl From<SimilarityName> for Similarity {
    fn from(name: SimilarityName) -> Self {
        match name {
            SimilarityName::Cosine => Self::Cosine,
            SimilarityName::CentredCosine => Self::CentredCosine,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Attributes {
    /// Metadata, a JSON object
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Pin it: it is never evicted
    #[arg(long)]
    pub(crate) pin: bool,
    /// Time to live in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<u64>,
    #[command(flatten)]
    pub(crate) tier: Tier,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Tier {
    /// Store it with at most this error (mean squared per element), with as many bytes as that needs
    #[arg(long, value_name = "ERROR", conflicts_with = "lossless")]
    pub(crate) max_error: Option<f32>,
    /// Store it losslessly
    #[arg(long)]
    pub(crate) lossless: bool,
}

impl From<Tier> for Fidelity {
    fn from(tier: Tier) -> Self {
        match tier.max_error {
            Some(error) => Self::Bounded(error),
            None if tier.lossless => Self::Lossless,
            None => Self::Compact,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CopyTo {
    /// The store
    pub(crate) store: PathBuf,
    /// File for the copy; it must not exist
    #[arg(long)]
    pub(crate) out: PathBuf,
}
