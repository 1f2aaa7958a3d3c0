//! What can go wrong, one enum for the whole crate.

use crate::claim::Refused;
use apcm_format::{DecodeError, Fingerprint, MemoryId, RecordShape};
use std::fmt;
use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation did not happen.
///
/// Unless a variant says otherwise nothing was changed and the store stays usable. After
/// [`Storage`](Self::Storage), [`OutcomeUnknown`](Self::OutcomeUnknown) and [`Poisoned`](Self::Poisoned), drop
/// the store and open it again.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A record has another shape than the codec or the store expects.
    RecordShape {
        /// The shape expected.
        expected: RecordShape,
        /// The axes found.
        found: Vec<usize>,
    },
    /// A record holds NaN or an infinity.
    NotFinite {
        /// Which record of the batch, from 0.
        record: usize,
        /// Which of its values, from 0.
        index: usize,
        /// The value.
        value: f32,
    },
    /// An argument is outside its range, or missing.
    Argument {
        /// What it is.
        what: &'static str,
        /// What would have been right.
        expected: String,
        /// What was given.
        found: String,
    },
    /// There are too few records to train what was asked for.
    TooLittleData {
        /// Records given.
        records: usize,
        /// Records needed.
        needed: usize,
        /// What they are needed for.
        purpose: String,
    },
    /// A filter does not follow the grammar.
    Filter {
        /// Where, in characters from 1.
        column: usize,
        /// What was expected and found there.
        message: String,
    },
    /// No memory with this id: it was removed, replaced, evicted, or it expired.
    NotFound {
        /// The id asked for.
        id: MemoryId,
    },
    /// The part of the stream that held this record was evicted.
    Forgotten {
        /// The stream's name.
        stream: String,
        /// The record's index.
        index: u64,
    },
    /// Every slot is occupied and pinned, so nothing can be evicted.
    AllPinned {
        /// The store's slots.
        capacity: u32,
    },
    /// The file is not an apcm store. It was not touched.
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it is instead, as far as that can be told.
        cause: String,
    },
    /// The file is not a pack, or was cut short.
    NotAPack {
        /// The file.
        path: PathBuf,
        /// What it is instead, as far as that can be told.
        cause: String,
    },
    /// The file was written by a newer version. It was not touched.
    TooNew {
        /// The file.
        path: PathBuf,
        /// What is newer.
        cause: DecodeError,
    },
    /// The file is in use by another handle or process.
    Locked {
        /// The file.
        path: PathBuf,
        /// The process that has it open, where the system tells (Linux does).
        holder: Option<u32>,
    },
    /// The file was not closed cleanly; opening it once for writing repairs it.
    NeedsRecovery {
        /// The file.
        path: PathBuf,
    },
    /// A file or folder that would be created is there already.
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A stored value failed its checks. Other values stay readable.
    Corrupt {
        /// What was damaged.
        what: String,
        /// How.
        cause: DecodeError,
    },
    /// The codec given is not the one that wrote this store.
    CodecMismatch {
        /// The store's.
        in_file: Fingerprint,
        /// The one given.
        given: Fingerprint,
    },
    /// The store's codec is of a kind this crate cannot load by itself; open the store with it.
    UnknownCodec {
        /// The kind's name.
        kind: String,
    },
    /// A codec, a key or metadata broke a rule of the format.
    Format(DecodeError),
    /// The store was opened for reading.
    ReadOnly,
    /// There is too little room on the disk. Nothing was written.
    NoSpace {
        /// Bytes needed, with a margin.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// What must be stored is more than the store's byte budget, whatever leaves. Nothing was written.
    OverBudget {
        /// Bytes that would be stored at least.
        needed: u64,
        /// The budget.
        budget: u64,
    },
    /// Opening the file would take more memory than was allowed.
    MemoryLimit {
        /// What takes it.
        what: &'static str,
        /// Bytes needed at least: reading stops where the limit is passed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The system has no memory left for what a file holds. Nothing was changed.
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// Bytes that were asked for.
        needed: u64,
    },
    /// A recode could not keep up with the store's writers, or an append with those of others to the same
    /// stream. What a recode moved stays, and another run goes on with it; nothing was appended.
    Busy {
        /// How often it began again because of what had changed meanwhile.
        passes: u32,
    },
    /// An earlier storage error made this handle unusable. Drop it and open the store again.
    Poisoned,
    /// A commit failed in a way that leaves open whether it is durable. Open the store again and look.
    OutcomeUnknown {
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database refused or failed an operation.
    Storage {
        /// What was being done.
        during: &'static str,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system refused or failed an operation on a file.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A dataset is not what its name or header says.
    Dataset {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        cause: String,
    },
    /// The computing device cannot be used.
    Device {
        /// Its name.
        device: &'static str,
        /// Why.
        cause: String,
    },
    /// A progress callback asked to stop.
    Cancelled,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecordShape { expected, found } => {
                write!(f, "a record of shape {expected} was expected, found {found:?}")
            }
            Self::NotFinite { record, index, value } => {
                write!(f, "record {record} holds {value} at position {index}; all values must be finite")
            }
            Self::Argument { what, expected, found } => write!(f, "{what} must be {expected}, found {found}"),
            Self::TooLittleData { records, needed, purpose } => {
                write!(f, "{purpose} needs at least {needed} records, found {records}")
            }
            Self::Filter { column, message } => {
                write!(f, "the filter is malformed at column {column}: {message}")
            }
            Self::NotFound { id } => {
                write!(f, "there is no memory {id}: it was removed, replaced or evicted")
            }
            Self::Forgotten { stream, index } => {
                write!(f, "record {index} of the stream {stream:?} is gone: its part was evicted")
            }
            Self::AllPinned { capacity } => {
                write!(f, "all {capacity} slots are occupied and pinned; unpin or remove a memory first")
            }
            Self::NotAStore { path, cause } => {
                write!(f, "{} is not an apcm store ({cause}); it was left untouched", path.display())
            }
            Self::NotAPack { path, cause } => {
                write!(f, "{} is not an apcm pack ({cause})", path.display())
            }
            Self::TooNew { path, cause } => {
                write!(f, "{} needs a newer apcm ({cause}); it was left untouched", path.display())
            }
            Self::Locked { path, holder: Some(process) } => {
                write!(f, "{} is in use by process {process}", path.display())
            }
            Self::Locked { path, holder: None } => {
                write!(f, "{} is in use by another process or handle", path.display())
            }
            Self::NeedsRecovery { path } => {
                write!(f, "{} was not closed cleanly; open it once for writing to recover it", path.display())
            }
            Self::Exists { path } => write!(f, "{} is there already; it was left untouched", path.display()),
            Self::Corrupt { what, cause } => write!(f, "{what} is damaged: {cause}"),
            Self::CodecMismatch { in_file, given } => {
                write!(f, "the store was written with codec {in_file}, the one given is {given}")
            }
            Self::UnknownCodec { kind } => {
                write!(
                    f,
                    "the store's codec is of the kind {kind:?}; open the store together with that codec"
                )
            }
            Self::Format(cause) => cause.fmt(f),
            Self::ReadOnly => f.write_str("the store was opened for reading only"),
            Self::NoSpace { needed, available } => {
                write!(
                    f,
                    "writing needs {needed} bytes of disk space, {available} are free; nothing was written"
                )
            }
            Self::OverBudget { needed, budget } => write!(
                f,
                "the store's budget is {budget} bytes and at least {needed} would have to be stored; nothing was \
                 written"
            ),
            Self::MemoryLimit { what, needed, limit } => {
                write!(f, "{what} would take at least {needed} bytes of memory, {limit} are allowed")
            }
            Self::OutOfMemory { what, needed } => {
                write!(f, "{what} takes {needed} bytes of memory, which the system refuses")
            }
            Self::Busy { passes } => write!(
                f,
                "others kept writing to the store, so that this began again {passes} times; pause its writers and try again"
            ),
            Self::Poisoned => {
                f.write_str("an earlier storage error made this handle unusable; open the store again")
            }
            Self::OutcomeUnknown { source } => {
                write!(f, "the commit failed and may or may not be durable; open the store again ({source})")
            }
            Self::Storage { during, source } => write!(f, "the database failed to {during}: {source}"),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Dataset { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Device { device, cause } => write!(f, "the device {device} cannot be used: {cause}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// The message has that of the cause; `source` is what is behind the cause, so that a printed chain repeats
/// nothing.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::OutcomeUnknown { source } | Self::Storage { source, .. } => source.source(),
            Self::Io { source, .. } => source.source(),
            _ => None,
        }
    }
}

impl From<apcm_format::ShapeError> for Error {
    fn from(error: apcm_format::ShapeError) -> Self {
        Self::argument("a record's shape", error.to_string(), "another")
    }
}

impl From<DecodeError> for Error {
    fn from(cause: DecodeError) -> Self {
        Self::Format(cause)
    }
}

impl Error {
    /// An argument outside its range: what it is, what would have been right, what was given.
    pub fn argument(what: &'static str, expected: impl Into<String>, found: impl fmt::Display) -> Self {
        Self::Argument { what, expected: expected.into(), found: found.to_string() }
    }

    pub(crate) fn memory(what: &'static str) -> impl FnOnce(Refused) -> Self {
        move |Refused { bytes }| Self::OutOfMemory { what, needed: bytes }
    }

    /// What the system said about a file: for `map_err`.
    pub fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
