//! Datasets into stores: batches of one encode and one transaction, resumable, in bounded memory.

mod dataset;
mod idx;
pub mod npy;
mod sidecar;

pub use dataset::{Dataset, RecordReader};
pub use sidecar::Sidecar;

use crate::codec::Fidelity;
use crate::error::{Error, Result};
use crate::store::{Attributes, Store};
use apcm_format::IngestPosition;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of records that are in memory at a time, whatever the dataset's size.
const BATCH_BYTES: usize = 32 << 20;

/// Where the keys of ingested records come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Keys {
    /// No keys.
    #[default]
    None,
    /// The position of each record, from 0, in decimal.
    Row,
    /// A field of the JSONL file beside the data; it stays in the metadata too.
    Field(String),
}

/// How far an ingest is.
#[derive(Debug, Clone, Copy)]
pub struct IngestProgress {
    /// Records that are in the store, durably.
    pub done: u64,
    /// Records of the dataset.
    pub total: u64,
    /// Records this run put in.
    pub ingested: u64,
    /// Time since this run began.
    pub elapsed: Duration,
}

impl IngestProgress {
    /// Records a second, in this run.
    pub fn rate(&self) -> f64 {
        self.ingested as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Time until the end, at this rate.
    pub fn remaining(&self) -> Duration {
        let seconds = (self.total - self.done) as f64 / self.rate().max(1e-9);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// What an ingest did.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct IngestReport {
    /// Where it began: above 0 when it went on from an earlier run.
    pub first: u64,
    /// Records it put in.
    pub ingested: u64,
    /// Memories that made room.
    pub evicted: u64,
    /// Mean squared error per element, averaged over what was put in.
    pub mean_error: f64,
    /// Seconds it took.
    pub seconds: f64,
}

type Callback<'a> = Box<dyn FnMut(&IngestProgress) -> ControlFlow<()> + 'a>;

/// Puts a dataset into a store.
///
/// Each batch is one encoding and one transaction, and the position reached is part of that transaction: after a
/// crash, [`resume`](Self::resume) goes on with the first record that is not in the store, without a gap or a double.
///
/// ```no_run
/// # fn main() -> apcm::Result<()> {
/// use apcm::ingest::{Dataset, Ingest, Keys};
/// let store = apcm::Store::open("memory.apcm")?;
/// let dataset = Dataset::open("embeddings.npy")?;
/// let report = Ingest::new(&store, &dataset).keys(Keys::Row).resume(true).run()?;
/// println!("{} records", report.ingested);
/// # Ok(()) }
/// ```
pub struct Ingest<'a> {
    store: &'a Store,
    dataset: &'a Dataset,
    keys: Keys,
    sidecar: Option<PathBuf>,
    batch: usize,
    resume: bool,
    fidelity: Fidelity,
    progress: Option<Callback<'a>>,
}

impl fmt::Debug for Ingest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest")
            .field("dataset", &self.dataset)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl<'a> Ingest<'a> {
    /// An ingest without keys or metadata, from the beginning.
    pub fn new(store: &'a Store, dataset: &'a Dataset) -> Self {
        Self {
            store,
            dataset,
            keys: Keys::None,
            sidecar: None,
            batch: 1_024,
            resume: false,
            fidelity: Fidelity::Compact,
            progress: None,
        }
    }

    /// Where keys come from.
    pub fn keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// A JSONL file (gzip-packed, if it likes) with one object a record: its fields become metadata.
    pub fn metadata_from(mut self, path: impl Into<PathBuf>) -> Self {
        self.sidecar = Some(path.into());
        self
    }

    /// Records in a batch, at most; 1,024 by default, fewer where records are large.
    pub fn batch(mut self, records: usize) -> Self {
        self.batch = records;
        self
    }

    /// Goes on where an earlier run stopped.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// How well the records are to be kept; by their codes alone, if nothing is said.
    pub fn fidelity(mut self, fidelity: Fidelity) -> Self {
        self.fidelity = fidelity;
        self
    }

    /// Is called after each batch; [`ControlFlow::Break`] ends the ingest, resumably.
    pub fn progress(mut self, callback: impl FnMut(&IngestProgress) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Puts the records in.
    ///
    /// # Errors
    /// [`Dataset`](Error::Dataset), [`RecordShape`](Error::RecordShape), [`Argument`](Error::Argument) when the
    /// position to go on from is another dataset's, [`Cancelled`](Error::Cancelled). Batches before the failure are
    /// in the store, durably.
    pub fn run(mut self) -> Result<IngestReport> {
        let began = Instant::now();
        let expected = self.store.description().shape;
        if self.dataset.shape() != expected {
            return Err(Error::RecordShape { expected, found: self.dataset.shape().dims() });
        }
        if self.batch == 0 {
            return Err(Error::argument("the records of a batch", "at least 1", 0));
        }
        let batch = self.batch.min((BATCH_BYTES / (expected.values() * 4)).max(1));
        let name = position_name(self.dataset.path());
        let total = self.dataset.len();
        let position = |next| IngestPosition { next, total, source_bytes: self.dataset.file_len() };
        let first = if self.resume { self.resume_from(&name)? } else { 0 };
        let mut sidecar = self.open_sidecar()?;
        if let Some(sidecar) = &mut sidecar {
            sidecar.skip(first)?;
        }
        let mut reader = self.dataset.read_from(first)?;
        let mut report = IngestReport { first, ingested: 0, evicted: 0, mean_error: 0.0, seconds: 0.0 };
        while let Some((at, records)) = reader.next_batch(batch)? {
            let attributes = (0..records.len() as u64)
                .map(|offset| {
                    let values = sidecar.as_mut().map(Sidecar::next_object).transpose()?.unwrap_or_default();
                    let key = match &self.keys {
                        Keys::None => None,
                        Keys::Row => Some((at + offset).to_string().into_bytes()),
                        Keys::Field(field) => Some(sidecar::key_of(&values, field, at + offset)?),
                    };
                    Ok((key, Attributes::from(values).with_fidelity(self.fidelity)))
                })
                .collect::<Result<Vec<_>>>()?;
            let mut transaction = self.store.begin_write();
            transaction.write_all(&records, attributes)?;
            let next = at + records.len() as u64;
            transaction.set_ingest_position(&name, position(next));
            let done = transaction.commit()?;
            report.ingested += records.len() as u64;
            report.evicted += done.evicted.len() as u64;
            report.mean_error += done.errors.iter().map(|&error| f64::from(error)).sum::<f64>();
            let progress =
                IngestProgress { done: next, total, ingested: report.ingested, elapsed: began.elapsed() };
            if let Some(callback) = &mut self.progress
                && callback(&progress).is_break()
            {
                return Err(Error::Cancelled);
            }
        }
        report.mean_error /= (report.ingested as f64).max(1.0);
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }

    fn resume_from(&self, name: &str) -> Result<u64> {
        let Some(position) = self.store.ingest_position(name)? else { return Ok(0) };
        let (bytes, records) = (self.dataset.file_len(), self.dataset.len());
        if (position.source_bytes, position.total) != (bytes, records) {
            return Err(Error::argument(
                "a dataset to go on with",
                format!(
                    "{} records in {} bytes, as when it was begun",
                    position.total, position.source_bytes
                ),
                format!("{records} records in {bytes} bytes"),
            ));
        }
        Ok(position.next)
    }

    fn open_sidecar(&self) -> Result<Option<Sidecar>> {
        match (&self.sidecar, &self.keys) {
            (Some(path), _) => Sidecar::open(path).map(Some),
            // Keys from a field need the file beside the data, so it is looked for.
            (None, Keys::Field(field)) => match Sidecar::beside(self.dataset.path()) {
                Some(path) => Sidecar::open(&path).map(Some),
                None => Err(Error::Dataset {
                    path: self.dataset.path().to_owned(),
                    cause: format!(
                        "keys from the field {field:?} need a JSONL file of the same name beside it"
                    ),
                }),
            },
            (None, _) => Ok(None),
        }
    }
}

/// What a dataset's position is filed under: the file's name, without its folder, which may move.
fn position_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "dataset".to_owned(), |name| name.to_string_lossy().into_owned())
}
