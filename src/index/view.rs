//! Search vectors as a scan goes over them: in memory that a store keeps, or where a pack lies.

use crate::paged::Paged;
use std::num::NonZeroU32;
use std::ops::Range;

/// Marks a row that belongs to no slot.
pub(super) const FREE: u32 = u32::MAX;

/// The mapping between rows and slots, where rows are not in the order of the slots.
#[derive(Clone, Copy)]
pub(crate) struct Placed<'a> {
    /// The slot of each row.
    pub(super) slots: &'a [u32],
    /// One more than the row of each slot.
    pub(super) places: &'a Paged<Option<NonZeroU32>>,
}

/// Search vectors as a scan goes over them, wherever they lie.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) dims: usize,
    /// Rows `[row, dims]` of length 1, or zeros.
    pub(crate) rows: &'a [f32],
    /// The same rows as integers, each in steps of its own.
    pub(crate) integers: &'a [i8],
    /// The step of each row.
    pub(crate) scales: &'a [f32],
    /// Length of what each row's integers leave out, rounded up.
    pub(crate) residuals: &'a [f32],
    /// Which slot each row belongs to. `None`: row `i` belongs to slot `i`.
    pub(crate) placed: Option<Placed<'a>>,
    /// Asked before rows are read, where that needs asking.
    pub(crate) checked: Option<&'a dyn Checked>,
}

/// What is about to be read of some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The rows themselves.
    Rows,
    /// Their integers, steps and what those leave out.
    Integers,
}

/// Rows that are looked at before they are believed.
pub(crate) trait Checked: Sync {
    /// Whether these rows may be read. Rows that may not are no hits; the caller must turn that into an error.
    fn may_read(&self, part: Part, rows: Range<usize>) -> bool;
}

impl View<'_> {
    pub(super) fn len(&self) -> usize {
        self.scales.len()
    }

    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.rows[index * self.dims..(index + 1) * self.dims]
    }

    /// The slot of a row, if it has one.
    pub(super) fn slot(&self, row: usize) -> Option<u32> {
        match self.placed {
            Some(placed) => Some(placed.slots[row]).filter(|&slot| slot != FREE),
            None => u32::try_from(row).ok(),
        }
    }

    /// The row of a slot, if it has one.
    pub(super) fn place(&self, slot: u32) -> Option<usize> {
        match self.placed {
            Some(placed) => (*placed.places.get(slot)?).map(|place| place.get() as usize - 1),
            None => Some(slot as usize).filter(|&row| row < self.len()),
        }
    }

    pub(super) fn may_read(&self, part: Part, rows: Range<usize>) -> bool {
        self.checked.is_none_or(|checked| checked.may_read(part, rows))
    }
}
