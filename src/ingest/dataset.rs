//! Datasets: files of many records, read in order and a batch at a time.

use super::header::Header;
use super::{idx, npy};
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::record::{Record, Records};
use apcm_format::RecordShape;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// A file of records of one shape: `.npy`, idx, or idx packed with gzip.
///
/// The first axis counts the records; the others are a record's shape. An array of one axis is one record.
/// Files are mapped or streamed, never loaded, so a dataset may be larger than memory.
#[derive(Debug)]
pub struct Dataset {
    path: PathBuf,
    header: Header,
    shape: RecordShape,
    len: u64,
    file_len: u64,
    mapping: Option<Mapping>,
}

impl Dataset {
    /// Opens a dataset whose first axis counts the records.
    ///
    /// # Errors
    /// [`Dataset`](Error::Dataset) for a file of another format, of unsupported numbers, or of the wrong
    /// length.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path.as_ref(), None)
    }

    /// Opens a dataset of records of a known shape; an array of exactly that shape is one record.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`RecordShape`](Error::RecordShape) when the records are of another shape.
    pub fn open_as(path: impl AsRef<Path>, shape: RecordShape) -> Result<Self> {
        Self::open_with(path.as_ref(), Some(shape))
    }

    fn open_with(path: &Path, expected: Option<RecordShape>) -> Result<Self> {
        let fail = |cause: String| Error::Dataset { path: path.to_owned(), cause };
        let mapping = Mapping::open(path)?;
        let file_len = mapping.bytes().len() as u64;
        let packed = mapping.bytes().starts_with(&[0x1f, 0x8b]);
        let header = if packed {
            let mut head = Vec::new();
            gunzip(path)?
                .take(idx::HEADER_LEN_MAX as u64)
                .read_to_end(&mut head)
                .map_err(|cause| fail(format!("the gzip stream is damaged: {cause}")))?;
            idx::header(&head).map_err(fail)?
        } else if mapping.bytes().starts_with(npy::MAGIC) {
            npy::header(mapping.bytes()).map_err(fail)?
        } else {
            idx::header(mapping.bytes()).map_err(|cause| {
                fail(format!("neither npy, nor idx, nor gzip-packed idx ({cause}); expected one of these"))
            })?
        };
        let one = header.dims.len() == 1 || expected.is_some_and(|shape| shape.dims() == header.dims);
        let (count, axes) = match header.dims.split_first() {
            Some((&count, axes)) if !one => (count as u64, axes),
            _ => (1, &header.dims[..]),
        };
        let shape = RecordShape::new(axes)
            .map_err(|error| fail(format!("the array is {:?}: {error}", header.dims)))?;
        if let Some(expected) = expected.filter(|&expected| expected != shape) {
            return Err(Error::RecordShape { expected, found: shape.dims() });
        }
        if !packed {
            let promised = (shape.values() as u64)
                .checked_mul(count)
                .and_then(|values| values.checked_mul(header.element.len() as u64))
                .and_then(|bytes| bytes.checked_add(header.data as u64));
            if promised != Some(file_len) {
                return Err(fail(format!(
                    "its header promises {:?} numbers of {} bytes, so {} bytes in all; the file has {file_len}",
                    header.dims,
                    header.element.len(),
                    promised.map_or("too many".to_owned(), |promised| promised.to_string()),
                )));
            }
        }
        let mapping = (!packed).then_some(mapping);
        Ok(Self { path: path.to_owned(), header, shape, len: count, file_len, mapping })
    }

    /// Where the dataset is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many records it has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The shape of each record.
    pub fn shape(&self) -> RecordShape {
        self.shape
    }

    /// Bytes of one record as the file stores it, unpacked.
    pub fn record_bytes(&self) -> usize {
        self.shape.values() * self.header.element.len()
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Starts reading at a position, from 0.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) beyond the end, [`Dataset`](Error::Dataset) when a packed file ends too
    /// early.
    pub fn read_from(&self, position: u64) -> Result<RecordReader<'_>> {
        if position > self.len {
            return Err(Error::argument(
                "the position in a dataset",
                format!("at most {}", self.len),
                position,
            ));
        }
        let record_len = self.shape.values() * self.header.element.len();
        let stream = match &self.mapping {
            Some(_) => None,
            None => {
                let mut stream = gunzip(&self.path)?;
                let skip = self.header.data as u64 + position * record_len as u64;
                let skipped = std::io::copy(&mut Read::by_ref(&mut stream).take(skip), &mut std::io::sink());
                if skipped.map_err(|cause| self.damaged(&cause))? < skip {
                    return Err(self.fail(format!("the packed file ends before record {position}")));
                }
                Some(stream)
            }
        };
        Ok(RecordReader { dataset: self, position, record_len, stream })
    }

    /// All records at once.
    ///
    /// # Errors
    /// As [`RecordReader::next_batch`].
    pub fn load(&self) -> Result<Records> {
        self.load_range(0..self.len)
    }

    /// A range of the records at once; it is cut at the end of the dataset.
    ///
    /// # Errors
    /// As [`RecordReader::next_batch`].
    pub fn load_range(&self, range: std::ops::Range<u64>) -> Result<Records> {
        let mut reader = self.read_from(range.start.min(self.len))?;
        let wanted = range.end.min(self.len).saturating_sub(reader.position);
        match reader.next_batch(usize::try_from(wanted).unwrap_or(usize::MAX))? {
            Some((_, records)) => Ok(records),
            None => Ok(Records::new(self.shape)),
        }
    }

    fn fail(&self, cause: String) -> Error {
        Error::Dataset { path: self.path.clone(), cause }
    }

    fn damaged(&self, cause: &std::io::Error) -> Error {
        self.fail(format!("the gzip stream is damaged: {cause}"))
    }
}

/// Reads a dataset's records in order.
///
/// As an iterator it gives each record with its position.
pub struct RecordReader<'a> {
    dataset: &'a Dataset,
    position: u64,
    record_len: usize,
    stream: Option<MultiGzDecoder<BufReader<File>>>,
}

impl std::fmt::Debug for RecordReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordReader")
            .field("path", &self.dataset.path)
            .field("position", &self.position)
            .finish()
    }
}

impl RecordReader<'_> {
    /// The next record's position.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next records, at most `most` of them, with the position of the first; `None` at the end.
    ///
    /// # Errors
    /// [`Dataset`](Error::Dataset) for a file that ends too early or holds NaN or infinities, naming the
    /// record.
    pub fn next_batch(&mut self, most: usize) -> Result<Option<(u64, Records)>> {
        let first = self.position;
        let left = self.dataset.len - first;
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(most);
        if count == 0 {
            return Ok(None);
        }
        let bytes_len = count
            .checked_mul(self.record_len)
            .ok_or_else(|| self.dataset.fail(format!("{count} records do not fit in memory")))?;
        let mut values = Vec::new();
        match (&self.dataset.mapping, &mut self.stream) {
            (Some(mapping), _) => {
                // Holds because `open` compared the header's promise with the file's length.
                let from = self.dataset.header.data + first as usize * self.record_len;
                self.dataset.header.element.decode(&mapping.bytes()[from..from + bytes_len], &mut values);
            }
            (None, Some(stream)) => {
                let mut bytes = Vec::new();
                stream
                    .take(bytes_len as u64)
                    .read_to_end(&mut bytes)
                    .map_err(|cause| self.dataset.damaged(&cause))?;
                if bytes.len() < bytes_len {
                    let whole = first + (bytes.len() / self.record_len) as u64;
                    return Err(self.dataset.fail(format!(
                        "its header promises {} records, the data ends after {whole}",
                        self.dataset.len
                    )));
                }
                self.dataset.header.element.decode(&bytes, &mut values);
            }
            (None, None) => return Ok(None),
        }
        self.position += count as u64;
        let records = Records::from_values(self.dataset.shape, values).map_err(|error| match error {
            Error::NotFinite { record, index, value } => self.dataset.fail(format!(
                "record {} holds {value} at position {index}; all values must be finite",
                first + record as u64
            )),
            other => other,
        })?;
        Ok(Some((first, records)))
    }
}

impl Iterator for RecordReader<'_> {
    type Item = Result<(u64, Record)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch(1)
            .map(|batch| batch.map(|(position, records)| (position, records.get(0))))
            .transpose()
    }
}

fn gunzip(path: &Path) -> Result<MultiGzDecoder<BufReader<File>>> {
    Ok(MultiGzDecoder::new(BufReader::new(File::open(path).map_err(Error::io(path))?)))
}
