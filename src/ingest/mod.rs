//! Datasets into stores: batches of one encode and one transaction, resumable, in bounded memory.

mod dataset;
mod header;
mod idx;
pub mod npy;
mod pipeline;
mod run;
mod sidecar;

pub use dataset::{Dataset, RecordReader};
pub use run::{Ingest, IngestReport, Keys};
pub use sidecar::{Sidecar, metadata_from_json};
