//! Search vectors as a scan goes over them: in memory that a store keeps, or where a pack lies.

use std::ops::Range;

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
    /// Which rows may be found; all, where nothing is said.
    pub(crate) present: Option<&'a [bool]>,
    /// Asked before rows are read, where that needs asking.
    pub(crate) checked: Option<&'a dyn Checked>,
}

/// What of some rows is about to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The rows themselves.
    Rows,
    /// Their integers, steps and what those leave out.
    Integers,
}

/// Rows that are looked at before they are believed.
pub(crate) trait Checked: Sync {
    /// Whether these may be read. Rows that may not are no hits; who says so has to tell that to whoever asked.
    fn may_read(&self, part: Part, rows: Range<usize>) -> bool;
}

impl View<'_> {
    pub(super) fn len(&self) -> usize {
        self.scales.len()
    }

    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.rows[index * self.dims..(index + 1) * self.dims]
    }

    pub(super) fn has(&self, row: usize) -> bool {
        self.present.is_none_or(|present| present[row])
    }

    pub(super) fn may_read(&self, part: Part, rows: Range<usize>) -> bool {
        self.checked.is_none_or(|checked| checked.may_read(part, rows))
    }
}
