//! Search vectors of all slots: as numbers of four bytes, and as integers of one.

use super::kernel;
use super::view::{FREE, Placed, View};
use crate::claim::{Refused, reserve};
use crate::paged::Paged;
use std::num::NonZeroU32;

/// Largest magnitude of a row's integers.
const INTEGER_MAX: f32 = 127.0;

/// Search vectors of the slots that have one, each of length 1, row by row without gaps: a slot that is emptied
/// leaves its row to the next that is filled.
#[derive(Debug, Clone)]
pub(crate) struct ScanMatrix {
    dims: usize,
    /// Rows `[row, dims]` of length 1; zeros for a vector of length zero.
    rows: Vec<f32>,
    /// The same rows as integers, each in steps of its own.
    integers: Vec<i8>,
    /// The step of each row.
    scales: Vec<f32>,
    /// Length of what each row's integers leave out, rounded up.
    residuals: Vec<f32>,
    /// The slot of each row.
    slots: Vec<u32>,
    /// One more than the row of each slot.
    places: Paged<Option<NonZeroU32>>,
    /// Rows that belong to no slot.
    free: Vec<u32>,
}

impl ScanMatrix {
    pub(crate) fn new(dims: usize) -> Self {
        Self {
            dims,
            rows: Vec::new(),
            integers: Vec::new(),
            scales: Vec::new(),
            residuals: Vec::new(),
            slots: Vec::new(),
            places: Paged::default(),
            free: Vec::new(),
        }
    }

    /// Bytes of a row.
    fn row_bytes(dims: usize) -> usize {
        dims * (size_of::<f32>() + size_of::<i8>()) + 2 * size_of::<f32>() + size_of::<u32>()
    }

    /// Bytes that a slot takes, with others beside it.
    pub(crate) fn bytes_per_slot(dims: usize) -> usize {
        Self::row_bytes(dims) + Paged::<Option<NonZeroU32>>::BYTES_PER_SLOT
    }

    /// Bytes that it takes, used or not.
    pub(crate) fn memory(&self) -> u64 {
        let rows =
            size_of::<f32>() * (self.rows.capacity() + self.scales.capacity() + self.residuals.capacity());
        let slots = size_of::<u32>() * (self.slots.capacity() + self.free.capacity());
        (rows + self.integers.capacity() + slots) as u64 + self.places.memory()
    }

    /// How many rows there are, free ones too.
    pub(crate) fn rows(&self) -> usize {
        self.slots.len()
    }

    /// Takes memory for so many rows, exactly.
    pub(crate) fn reserve_rows(&mut self, rows: usize) -> Result<(), Refused> {
        reserve(&mut self.rows, rows.saturating_mul(self.dims))?;
        reserve(&mut self.integers, rows.saturating_mul(self.dims))?;
        reserve(&mut self.scales, rows)?;
        reserve(&mut self.residuals, rows)?;
        reserve(&mut self.slots, rows)
    }

    /// Takes the memory of a slot beside its row.
    pub(crate) fn reserve(&mut self, slot: u32) -> Result<(), Refused> {
        self.places.reserve(slot)
    }

    pub(crate) fn dims(&self) -> usize {
        self.dims
    }

    /// The matrix as a scan goes over it.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            dims: self.dims,
            rows: &self.rows,
            integers: &self.integers,
            scales: &self.scales,
            residuals: &self.residuals,
            placed: Some(Placed { slots: &self.slots, places: &self.places }),
            checked: None,
        }
    }

    /// Sets the vector of a slot.
    pub(crate) fn set(&mut self, slot: u32, vector: &[f32]) {
        debug_assert_eq!(vector.len(), self.dims);
        let index = self.row_for(slot);
        let range = index * self.dims..(index + 1) * self.dims;
        let row = &mut self.rows[range.clone()];
        let integers = &mut self.integers[range];
        row.copy_from_slice(vector);
        (self.scales[index], self.residuals[index]) = kernel::vectorized(Fit { row, integers });
    }

    /// The row of a slot: its own, one that is free, or a new one.
    fn row_for(&mut self, slot: u32) -> usize {
        let place = self.places.entry(slot);
        if let Some(place) = *place {
            return place.get() as usize - 1;
        }
        let row = self.free.pop().unwrap_or(self.slots.len() as u32);
        *place = NonZeroU32::new(row + 1);
        let row = row as usize;
        if row == self.slots.len() {
            self.rows.resize((row + 1) * self.dims, 0.0);
            self.integers.resize((row + 1) * self.dims, 0);
            self.scales.push(0.0);
            self.residuals.push(0.0);
            self.slots.push(FREE);
        }
        self.slots[row] = slot;
        row
    }

    /// Makes a slot unfindable.
    pub(crate) fn clear(&mut self, slot: u32) {
        if let Some(place) = self.places.get_mut(slot).and_then(Option::take) {
            self.slots[place.get() as usize - 1] = FREE;
            self.free.push(place.get() - 1);
        }
    }
}

/// A row brought to length 1, and rounded. Not a closure: one as large as this is not inlined where the vector
/// instructions are, and does without them.
struct Fit<'a> {
    row: &'a mut [f32],
    integers: &'a mut [i8],
}

impl pulp::NullaryFnOnce for Fit<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn call(self) -> (f32, f32) {
        normalize(self.row);
        round(self.row, self.integers)
    }
}

/// Brings a vector to length 1; one whose length is zero or beyond counting becomes zeros.
#[inline(always)]
pub(super) fn normalize(vector: &mut [f32]) {
    // Summed in f64: squares of large values overflow f32, squares of small ones vanish in it.
    let chunks = vector.chunks(kernel::F64_LANES).map(|chunk| {
        let mut values = [0.0; kernel::F64_LANES];
        values.iter_mut().zip(chunk).for_each(|(wide, &value)| *wide = f64::from(value));
        values
    });
    let squared = kernel::squares(chunks);
    let inverse = 1.0 / squared.sqrt();
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) * inverse) as f32);
}

/// Rounds a row to integers; gives their step and the length of what they leave out.
#[inline(always)]
fn round(row: &[f32], integers: &mut [i8]) -> (f32, f32) {
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / INTEGER_MAX;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (value, integer) in row.iter().zip(&mut *integers) {
        *integer = (value * inverse).round_ties_even() as i8;
    }
    let both = row.chunks(kernel::F64_LANES).zip(integers.chunks(kernel::F64_LANES));
    let left = both.map(|(values, integers)| {
        let mut left = [0.0; kernel::F64_LANES];
        for ((left, &value), &integer) in left.iter_mut().zip(values).zip(integers) {
            *left = f64::from(value) - f64::from(scale) * f64::from(integer);
        }
        left
    });
    (scale, kernel::up(kernel::squares(left).sqrt()))
}

/// A query as integers, in steps small enough to lose next to nothing and large enough that no sum with a row
/// of integers leaves 32 bits.
#[derive(Debug)]
pub(super) struct IntegerQuery {
    pub(super) integers: Vec<i16>,
    pub(super) scale: f32,
    /// Length of the rounded query, rounded up.
    pub(super) length: f32,
    /// Most that the rounding of the query and of sums can change of a similarity.
    pub(super) slack: f32,
}

impl IntegerQuery {
    /// Of a query of length 1.
    pub(super) fn of(query: &[f32]) -> Self {
        let largest = query.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let sum: f64 = query.iter().map(|value| f64::from(value.abs())).sum();
        // With integers of at most `most`, 127 times the sum of their magnitudes stays below 2^31; half a step
        // each is what rounding adds.
        let budget = (f64::from(i32::MAX) / f64::from(INTEGER_MAX) - query.len() as f64).max(1.0);
        let most = (budget * f64::from(largest) / sum.max(f64::MIN_POSITIVE)).min(f64::from(i16::MAX));
        let scale = if largest > 0.0 { (f64::from(largest) / most) as f32 } else { 0.0 };
        let inverse = if scale > 0.0 { 1.0 / f64::from(scale) } else { 0.0 };
        let mut integers = Vec::with_capacity(query.len());
        let (mut length, mut left) = (0.0, 0.0);
        for &value in query {
            let integer = (f64::from(value) * inverse).trunc();
            let kept = integer * f64::from(scale);
            integers.push(integer as i16);
            length += kept * kept;
            left += (f64::from(value) - kept).powi(2);
        }
        let slack = kernel::up(left.sqrt()) + kernel::rounding(query.len());
        Self { integers, scale, length: kernel::up(length.sqrt()), slack }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What the bounds rest on: the integers are within their stated distance, and no sum leaves 32 bits.
        #[test]
        fn integers_are_as_near_as_they_say(
            values in prop::collection::vec(-1.0_f32..1.0, 1..80), sharp in any::<bool>(),
                repeat in 1_usize..60,
        ) {
            let mut row = values.repeat(repeat);
            if sharp {
                row[0] = 1e6;
            }
            normalize(&mut row);
            let mut integers = vec![0; row.len()];
            let (scale, residual) = round(&row, &mut integers);
            let left: f64 = row
                .iter()
                .zip(&integers)
                .map(|(&x, &i)| (f64::from(x) - f64::from(scale) * f64::from(i)).powi(2))
                .sum();
            prop_assert!(left.sqrt() <= f64::from(residual));
            let query = IntegerQuery::of(&row);
            let most: i64 = query.integers.iter().map(|&q| i64::from(q).abs() * 127).sum();
            prop_assert!(most <= i64::from(i32::MAX), "{most}");
            let left: f64 = row
                .iter()
                .zip(&query.integers)
                .map(|(&x, &i)| (f64::from(x) - f64::from(query.scale) * f64::from(i)).powi(2))
                .sum();
            prop_assert!(left.sqrt() <= f64::from(query.slack));
        }
    }
}
