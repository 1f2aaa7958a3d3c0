//! The JSONL file beside the data: one object a record, in the same order.

use crate::error::{Error, Result};
use apcm_format::{Metadata, Value, limits};
use flate2::read::MultiGzDecoder;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line that is read.
const LINE_LEN_MAX: u64 = 4 * limits::METADATA_LEN_MAX as u64;

/// Reads metadata, one line at a time.
pub struct Sidecar {
    path: PathBuf,
    lines: Box<dyn BufRead + Send>,
    /// Lines read so far.
    line: u64,
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sidecar").field("path", &self.path).field("line", &self.line).finish_non_exhaustive()
    }
}

impl Sidecar {
    /// Opens a JSONL file, packed with gzip or not.
    ///
    /// # Errors
    /// [`Io`](Error::Io).
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
        let packed = file.fill_buf().map_err(Error::io(path))?.starts_with(&[0x1f, 0x8b]);
        let lines: Box<dyn BufRead + Send> =
            if packed { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
        Ok(Self { path: path.to_owned(), lines, line: 0 })
    }

    /// The JSONL file of the same name beside a dataset, if there is one.
    pub fn beside(dataset: &Path) -> Option<PathBuf> {
        let name = dataset.file_name()?.to_str()?;
        let stem =
            [".npy", ".idx.gz", ".idx", ".gz"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        [".jsonl", ".jsonl.gz"]
            .iter()
            .map(|end| dataset.with_file_name(format!("{stem}{end}")))
            .find(|path| path.exists())
    }

    /// Passes over lines.
    ///
    /// # Errors
    /// [`Dataset`](Error::Dataset) when there are fewer.
    pub fn skip(&mut self, lines: u64) -> Result<()> {
        (0..lines).try_for_each(|_| self.next_line().map(drop))
    }

    /// The next line's object.
    ///
    /// # Errors
    /// [`Dataset`](Error::Dataset) at the end, and for a line that is not an object, with its number.
    pub fn next_object(&mut self) -> Result<Metadata> {
        let line = self.next_line()?;
        serde_json::from_slice(&line)
            .map_err(|error| self.fail(format!("line {}: a JSON object was expected: {error}", self.line)))
    }

    fn next_line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        let read = self.lines.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| self.fail(format!("after line {}: {error}", self.line)))?;
        if line.is_empty() {
            return Err(self.fail(format!("it ends after {} lines, before the records do", self.line)));
        }
        if line.len() as u64 == LINE_LEN_MAX {
            return Err(self.fail(format!("line {} is longer than {LINE_LEN_MAX} bytes", self.line + 1)));
        }
        self.line += 1;
        Ok(line)
    }

    fn fail(&self, cause: String) -> Error {
        Error::Dataset { path: self.path.clone(), cause }
    }
}

/// The key that a field holds: text as it is, a whole number in decimal.
pub(super) fn key_of(values: &Metadata, field: &str, row: u64) -> Result<Vec<u8>> {
    match values.get(field) {
        Some(Value::Text(text)) => Ok(text.clone().into_bytes()),
        Some(Value::Int(number)) => Ok(number.to_string().into_bytes()),
        other => Err(Error::argument(
            "the key of a record",
            format!("text or a whole number in the field {field:?} of record {row}"),
            other.map_or("nothing".to_owned(), |value| format!("{value:?}")),
        )),
    }
}
