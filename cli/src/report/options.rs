//! Arguments of the command.

use crate::options::{Force, Groups, SimilarityName};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Records to train on (.npy, idx, idx.gz)
    #[arg(long)]
    pub(crate) train: PathBuf,
    /// Held-out records; without them every tenth training record is set aside
    #[arg(long)]
    pub(crate) heldout: Option<PathBuf>,
    /// Bytes a record, one or several
    #[arg(long, value_delimiter = ',', default_value = "16,32,64")]
    pub(crate) bytes: Vec<usize>,
    /// Folder for report.html, report.json and the pictures
    #[arg(long, default_value = "apcm-report")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) force: Force,
    /// Use the first N training records only
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Time limit in minutes for each size
    #[arg(long, default_value_t = 5.0)]
    pub(crate) minutes: f64,
    /// Most steps of each stage; 0 trains no network
    #[arg(long, default_value_t = 2_000)]
    pub(crate) steps: usize,
    /// Seed of the split, the weights and the batches
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) groups: Groups,
    /// Which similarity a search uses
    #[arg(long, value_enum, default_value = "cosine")]
    pub(crate) similarity: SimilarityName,
    /// Skip the autoencoder, which takes a minute for each size
    #[arg(long)]
    pub(crate) no_autoencoder: bool,
}
