//! One ingest: options, progress, and the run.

use super::dataset::{Dataset, RecordReader};
use super::sidecar::Sidecar;
use super::{pipeline, sidecar};
use crate::codec::Fidelity;
use crate::error::{Error, Result};
use crate::progress::{Progress, Reporter};
use crate::record::Records;
use crate::store::{Attributes, Store, Transaction};
use apcm_format::{IngestPosition, IngestSource, Metadata};
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes of the records of a batch; a few batches are in memory at a time, whatever the dataset's size.
const BATCH_BYTES: usize = 8 << 20;

/// Where the keys of ingested records come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Keys {
    /// No keys.
    #[default]
    None,
    /// The position of each record, from 0, in decimal.
    Row,
    /// A field of the JSONL file beside the data; it stays in the metadata too.
    Field(String),
}

/// What an ingest did.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct IngestReport {
    /// Where it began: above 0 when it went on from an earlier run.
    pub first: u64,
    /// Records it put in.
    pub ingested: u64,
    /// Memories that were evicted.
    pub evicted: u64,
    /// Mean squared error per element, averaged over what was put in.
    pub mean_error: f64,
    /// Seconds it took.
    pub seconds: f64,
}

/// Puts a dataset into a store.
///
/// While one batch is committed the next is encoded, and the one after that is read. Each batch is one encoding
/// and one transaction, and the position reached is part of that transaction: after a crash,
/// [`resume`](Self::resume) goes on with the first record that is not in the store, without a gap or a double.
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
#[must_use = "a builder does nothing by itself"]
pub struct Ingest<'a> {
    store: &'a Store,
    dataset: &'a Dataset,
    keys: Keys,
    sidecar: Option<PathBuf>,
    batch: usize,
    resume: bool,
    fidelity: Fidelity,
    progress: Reporter<'a>,
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
            progress: Reporter::new("ingest"),
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

    /// Goes on where an earlier run stopped, if this is the dataset that it was of: what was ingested until
    /// then is read once more, and compared with what was noted of it.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Fidelity of the records; compact by default.
    pub fn fidelity(mut self, fidelity: Fidelity) -> Self {
        self.fidelity = fidelity;
        self
    }

    /// Is called after each batch, on the thread that runs the ingest; [`ControlFlow::Break`] ends it,
    /// resumably.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress.set(callback);
        self
    }

    /// Puts the records in.
    ///
    /// # Errors
    /// [`Dataset`](Error::Dataset), [`RecordShape`](Error::RecordShape), [`Argument`](Error::Argument) when the
    /// position to go on from is another dataset's, [`Cancelled`](Error::Cancelled). Batches before the failure
    /// are in the store, durably.
    pub fn run(mut self) -> Result<IngestReport> {
        let began = Instant::now();
        self.progress.begin();
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
        let mut sidecar = self.open_sidecar()?;
        let mut consumed = Consumed { reader: self.dataset.read_from(0)?, hasher: blake3::Hasher::new() };
        let first = match self.resume {
            true => self.resume_from(&name, batch, &mut consumed, sidecar.as_mut())?,
            false => 0,
        };
        let path = self.dataset.path().display().to_string();
        self.progress.skip(first);
        let mut report = IngestReport { first, ingested: 0, evicted: 0, mean_error: 0.0, seconds: 0.0 };
        let (store, keys, fidelity, progress) = (self.store, &self.keys, self.fidelity, &mut self.progress);
        let read = || {
            let Some((at, records)) = consumed.next(batch)? else { return Ok(None) };
            let next = at + records.len() as u64;
            let described =
                (at..next).map(|row| describe(row, keys, sidecar.as_mut())).collect::<Result<Vec<_>>>()?;
            let lines = lines_of(sidecar.as_ref());
            let source = IngestSource { next, records: consumed.digest(), lines, path: path.clone() };
            Ok(Some((records, described, source)))
        };
        let encode = |(records, described, source): (Records, Vec<Described>, IngestSource)| {
            let mut transaction = store.begin_write();
            let attributes = described
                .into_iter()
                .map(|(key, values)| (key, Attributes::from(values).with_fidelity(fidelity)));
            transaction.write_all(&records, attributes)?;
            let next = source.next;
            transaction.set_ingest_position(&name, position(next));
            transaction.set_ingest_source(&name, source);
            Ok((next, records.len() as u64, transaction))
        };
        let commit = |(next, count, transaction): (u64, u64, Transaction<'_>)| {
            let done = transaction.commit()?;
            report.ingested += count;
            report.evicted += done.evicted.len() as u64;
            report.mean_error += done.errors.iter().map(|&error| f64::from(error)).sum::<f64>();
            match progress.report(next, total) {
                ControlFlow::Break(()) => Err(Error::Cancelled),
                ControlFlow::Continue(()) => Ok(()),
            }
        };
        pipeline::run(read, encode, commit)?;
        report.mean_error /= (report.ingested as f64).max(1.0);
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }

    /// The record to resume at, after reading everything before it again.
    fn resume_from(
        &self,
        name: &str,
        batch: usize,
        consumed: &mut Consumed<'_>,
        sidecar: Option<&mut Sidecar>,
    ) -> Result<u64> {
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
        let next = position.next;
        let source = self.store.ingest_source(name)?.filter(|source| source.next == next);
        let Some(source) = source else {
            let expected = format!("one that says which {next} records were put in");
            return Err(Error::argument(
                "a position to go on from",
                expected,
                "one of an older version, which does not; ingest without resuming (with keys that replaces what is there)",
            ));
        };
        while consumed.position() < next {
            let left = usize::try_from(next - consumed.position()).unwrap_or(usize::MAX);
            if consumed.next(batch.min(left))?.is_none() {
                break;
            }
        }
        // Without metadata there are none to compare.
        let mut lines = source.lines;
        if let Some(sidecar) = sidecar {
            sidecar.skip(next)?;
            lines = sidecar.digest();
        }
        let differs = match (consumed.digest() == source.records, lines == source.lines) {
            (true, true) => return Ok(next),
            (false, _) => "records",
            (true, false) => "lines of metadata",
        };
        Err(Error::argument(
            "a dataset to go on with",
            format!("the one whose first {next} records were ingested from {}", source.path),
            format!("other {differs} in {}", self.dataset.path().display()),
        ))
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

/// Records on their way into a store, and a name for all that went before.
struct Consumed<'a> {
    reader: RecordReader<'a>,
    hasher: blake3::Hasher,
}

impl Consumed<'_> {
    fn position(&self) -> u64 {
        self.reader.position()
    }

    fn next(&mut self, most: usize) -> Result<Option<(u64, Records)>> {
        let batch = self.reader.next_batch(most)?;
        if let Some((_, records)) = &batch {
            let bytes: Vec<u8> = records.values().iter().flat_map(|value| value.to_le_bytes()).collect();
            self.hasher.update(&bytes);
        }
        Ok(batch)
    }

    fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// Names the lines of metadata that were read; none, where there are none.
fn lines_of(sidecar: Option<&Sidecar>) -> [u8; 32] {
    sidecar.map_or_else(|| *blake3::hash(&[]).as_bytes(), Sidecar::digest)
}

/// Key and values of a record.
type Described = (Option<Vec<u8>>, Metadata);

fn describe(row: u64, keys: &Keys, sidecar: Option<&mut Sidecar>) -> Result<Described> {
    let values = sidecar.map(Sidecar::next_object).transpose()?.unwrap_or_default();
    let key = match keys {
        Keys::None => None,
        Keys::Row => Some(row.to_string().into_bytes()),
        Keys::Field(field) => Some(sidecar::key_of(&values, field, row)?),
    };
    Ok((key, values))
}

/// The name of a dataset's position: the file's name without its folder, which may move.
fn position_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "dataset".to_owned(), |name| name.to_string_lossy().into_owned())
}
