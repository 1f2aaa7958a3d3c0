//! Records: validated values with a shape.
//!
//! A [`Record`] or a batch of [`Records`] exists only with finite values of the right number, so nothing behind
//! this door checks for NaN again.

use crate::error::{Error, Result};
use apcm_format::RecordShape;

/// One record: finite `f32` values and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    shape: RecordShape,
    values: Vec<f32>,
}

impl Record {
    /// A record of any shape.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for an impossible shape, [`RecordShape`](Error::RecordShape) when the
    /// number of values differs from it, [`NotFinite`](Error::NotFinite) for NaN or an infinity.
    ///
    /// ```
    /// # fn main() -> apcm::Result<()> {
    /// let record = apcm::Record::new(&[2, 3], vec![0.0; 6])?;
    /// assert_eq!(record.shape().dims(), [2, 3]);
    /// # Ok(()) }
    /// ```
    pub fn new(dims: &[usize], values: Vec<f32>) -> Result<Self> {
        let mut records = Records::with_dims(dims)?;
        records.push_values(&values)?;
        Ok(Self { shape: records.shape, values })
    }

    /// A record with one axis.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn vector(values: Vec<f32>) -> Result<Self> {
        Self::new(&[values.len()], values)
    }

    /// The record's shape.
    pub fn shape(&self) -> RecordShape {
        self.shape
    }

    /// The record's values, the last axis fastest.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The record's values, the last axis fastest.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

/// Records of one shape, one after the other in memory: what a codec takes and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Records {
    shape: RecordShape,
    values: Vec<f32>,
}

impl Records {
    /// The mean of the records, value by value, summed in `f64`; not a number where there are none.
    pub fn mean(&self) -> Vec<f32> {
        column_means(self.values(), self.shape().values())
    }

    /// No records yet, of this shape.
    pub fn new(shape: RecordShape) -> Self {
        Self { shape, values: Vec::new() }
    }

    /// No records yet, of the shape with these axes.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for an impossible shape.
    pub fn with_dims(dims: &[usize]) -> Result<Self> {
        let shape = RecordShape::new(dims)
            .map_err(|error| Error::argument("a record's shape", error.to_string(), format!("{dims:?}")))?;
        Ok(Self::new(shape))
    }

    /// Takes over values that lie one record after the other.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape) when the values are not a whole number of records,
    /// [`NotFinite`](Error::NotFinite) for NaN or an infinity.
    pub fn from_values(shape: RecordShape, values: Vec<f32>) -> Result<Self> {
        if !values.len().is_multiple_of(shape.values()) {
            return Err(Error::RecordShape { expected: shape, found: vec![values.len() % shape.values()] });
        }
        check_finite(&values, shape.values(), 0)?;
        Ok(Self { shape, values })
    }

    /// Values that a codec made: finite by the arithmetic that made them, or reported by the caller.
    pub(crate) fn from_decoded(shape: RecordShape, values: Vec<f32>) -> Self {
        debug_assert_eq!(values.len() % shape.values(), 0);
        Self { shape, values }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape) when its shape is another.
    pub fn push(&mut self, record: &Record) -> Result<()> {
        self.check_shape(record.shape)?;
        self.values.extend_from_slice(&record.values);
        Ok(())
    }

    /// Adds a record given by its values.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape) for a wrong number of values, [`NotFinite`](Error::NotFinite) for
    /// NaN or an infinity; nothing is added then.
    pub fn push_values(&mut self, values: &[f32]) -> Result<()> {
        if values.len() != self.shape.values() {
            return Err(Error::RecordShape { expected: self.shape, found: vec![values.len()] });
        }
        check_finite(values, values.len(), self.len())?;
        self.values.extend_from_slice(values);
        Ok(())
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.shape.values()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The shape of each record.
    pub fn shape(&self) -> RecordShape {
        self.shape
    }

    /// All values, one record after the other.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values of one record.
    ///
    /// # Panics
    /// When there is no such record.
    pub fn row(&self, index: usize) -> &[f32] {
        let width = self.shape.values();
        &self.values[index * width..(index + 1) * width]
    }

    /// One record, to be changed.
    pub(crate) fn row_mut(&mut self, index: usize) -> &mut [f32] {
        let width = self.shape.values();
        &mut self.values[index * width..(index + 1) * width]
    }

    /// A copy of one record.
    ///
    /// # Panics
    /// When there is no such record.
    pub fn get(&self, index: usize) -> Record {
        Record { shape: self.shape, values: self.row(index).to_vec() }
    }

    /// The values of each record in turn.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.shape.values())
    }

    /// Copies of the records in a range.
    ///
    /// # Panics
    /// When the range ends beyond the last record.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let width = self.shape.values();
        Self { shape: self.shape, values: self.values[range.start * width..range.end * width].to_vec() }
    }

    pub(crate) fn check_shape(&self, found: RecordShape) -> Result<()> {
        check_shape(self.shape, found)
    }
}

impl From<Record> for Records {
    fn from(record: Record) -> Self {
        Self { shape: record.shape, values: record.values }
    }
}

impl From<&Record> for Records {
    fn from(record: &Record) -> Self {
        record.clone().into()
    }
}

pub(crate) fn check_shape(expected: RecordShape, found: RecordShape) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::RecordShape { expected, found: found.dims() }) }
}

/// That values which something huge has made are numbers.
pub(crate) fn check_overflow(what: &'static str, values: &[f32]) -> Result<()> {
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(()),
        Some(value) => Err(Error::argument(what, "finite, which takes smaller records", value)),
    }
}

fn check_finite(values: &[f32], width: usize, first: usize) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            Err(Error::NotFinite { record: first + at / width, index: at % width, value: values[at] })
        }
    }
}

/// Means of the columns of `[row, width]`, summed in `f64`.
pub(crate) fn column_means(values: &[f32], width: usize) -> Vec<f32> {
    let rows = (values.len() / width) as f64;
    let mut sums = vec![0.0_f64; width];
    for row in values.chunks_exact(width) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    sums.into_iter().map(|sum| (sum / rows) as f32).collect()
}

/// A vector, checked.
impl TryFrom<Vec<f32>> for Record {
    type Error = Error;

    fn try_from(values: Vec<f32>) -> Result<Self> {
        Self::vector(values)
    }
}

/// A vector, copied and checked.
impl TryFrom<&[f32]> for Record {
    type Error = Error;

    fn try_from(values: &[f32]) -> Result<Self> {
        Self::vector(values.to_vec())
    }
}

/// Vectors of one length, one for each row.
///
/// ```
/// let records = apcm::Records::try_from(vec![vec![1.0, 2.0], vec![3.0, 4.0]])?;
/// assert_eq!((records.len(), records.row(1)), (2, &[3.0, 4.0][..]));
/// assert!(apcm::Records::try_from(vec![vec![1.0], vec![2.0, 3.0]]).is_err());
/// # Ok::<(), apcm::Error>(())
/// ```
impl TryFrom<Vec<Vec<f32>>> for Records {
    type Error = Error;

    fn try_from(rows: Vec<Vec<f32>>) -> Result<Self> {
        let Some(first) = rows.first() else {
            return Err(Error::argument("the rows of records", "at least one, for the shape", "none"));
        };
        let mut records = Self::with_dims(&[first.len()])?;
        rows.iter().try_for_each(|row| records.push_values(row))?;
        Ok(records)
    }
}

/// Shape and values: `{"shape": [2], "values": [1.0, 2.0]}`.
impl serde::Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut record = serializer.serialize_struct("Record", 2)?;
        record.serialize_field("shape", &self.shape())?;
        record.serialize_field("values", self.values())?;
        record.end()
    }
}
