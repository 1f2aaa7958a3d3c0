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
    /// Of all of them.
    hasher: blake3::Hasher,
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
        Ok(Self { path: path.to_owned(), lines, line: 0, hasher: blake3::Hasher::new() })
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
        parsed(&line)
            .map_err(|cause| self.fail(format!("line {}: a JSON object was expected: {cause}", self.line)))
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
        self.hasher.update(&line);
        Ok(line)
    }

    /// Names the lines that were read.
    pub(super) fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    fn fail(&self, cause: String) -> Error {
        Error::Dataset { path: self.path.clone(), cause }
    }
}

/// Metadata from a JSON object.
///
/// # Errors
/// [`Argument`](Error::Argument) for what is no JSON object, and for whole numbers beyond 64 bits, which would
/// lose digits.
pub fn metadata_from_json(json: &[u8]) -> Result<Metadata> {
    parsed(json).map_err(|cause| Error::argument("metadata", "a JSON object", cause))
}

/// Metadata from a JSON object. A whole number that cannot be kept to the digit is refused: JSON readers make a
/// float of one that is longer than their integers, and say nothing.
pub(crate) fn parsed(json: &[u8]) -> Result<Metadata, String> {
    let metadata = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    match overlong_integer(json) {
        None => Ok(metadata),
        Some(number) => Err(format!(
            "whole numbers from {} to {} are kept, found {number}; write it as text",
            i64::MIN,
            i64::MAX
        )),
    }
}

/// The first whole number of a JSON text that is none of 64 bits.
fn overlong_integer(json: &[u8]) -> Option<String> {
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while json.get(at).is_some_and(|&byte| byte != b'"') {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let number = json[at..].iter().take_while(|byte| b"+-.eE0123456789".contains(byte));
                let number = String::from_utf8_lossy(&json[at..at + number.count()]).into_owned();
                if !number.contains(['.', 'e', 'E']) && number.parse::<i64>().is_err() {
                    return Some(number);
                }
                at += number.len();
            }
            _ => at += 1,
        }
    }
    None
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
