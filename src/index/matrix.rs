//! Search vectors of all slots, one contiguous matrix.

use super::ranking::{Best, Ranked};

/// Numbers a thread scans before another is worth starting.
const GRAIN: usize = 1 << 19;
/// Partial sums of a dot product: enough to fill two vector registers, and the same everywhere.
const LANES: usize = 16;

/// Search vectors by slot. Rows of free slots are there but inert.
#[derive(Debug, Clone)]
pub(crate) struct ScanMatrix {
    dims: usize,
    rows: Vec<f32>,
    /// One over the length of each row; 0 for a free slot or a vector of length zero.
    inverse_norms: Vec<f32>,
    /// Whether a row may be found at all.
    present: Vec<bool>,
}

impl ScanMatrix {
    pub(crate) fn new(dims: usize) -> Self {
        Self { dims, rows: Vec::new(), inverse_norms: Vec::new(), present: Vec::new() }
    }

    /// Bytes a slot takes, free or not.
    pub(crate) fn bytes_per_slot(dims: usize) -> u64 {
        (dims * size_of::<f32>() + size_of::<f32>() + size_of::<bool>()) as u64
    }

    /// Makes room for slots below this one, once and exactly.
    pub(crate) fn reserve(&mut self, slots: u32) {
        let more = (slots as usize).saturating_sub(self.present.len());
        self.rows.reserve_exact(more * self.dims);
        self.inverse_norms.reserve_exact(more);
        self.present.reserve_exact(more);
    }

    pub(crate) fn dims(&self) -> usize {
        self.dims
    }

    /// Sets the vector of a slot.
    pub(crate) fn set(&mut self, slot: u32, vector: &[f32]) {
        debug_assert_eq!(vector.len(), self.dims);
        let index = slot as usize;
        if index >= self.present.len() {
            self.rows.resize((index + 1) * self.dims, 0.0);
            self.inverse_norms.resize(index + 1, 0.0);
            self.present.resize(index + 1, false);
        }
        self.rows[index * self.dims..(index + 1) * self.dims].copy_from_slice(vector);
        self.inverse_norms[index] = inverse_norm(vector);
        self.present[index] = true;
    }

    /// Makes a slot unfindable.
    pub(crate) fn clear(&mut self, slot: u32) {
        if let Some(present) = self.present.get_mut(slot as usize) {
            *present = false;
        }
    }

    /// The `k` nearest slots among those that `admit` lets through, nearest first, none below `floor`.
    ///
    /// Cost: one pass over all rows; all cores from about half a million numbers on. The threads are its own: a scan
    /// runs under the store's lock, where a shared pool could hand this thread work that waits for that lock.
    pub(crate) fn nearest(
        &self,
        query: &[f32],
        k: usize,
        floor: f32,
        admit: impl Fn(u32) -> bool + Sync,
    ) -> Vec<Ranked> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.nearest_on(cores.min(self.rows.len() / GRAIN), query, k, floor, admit)
    }

    fn nearest_on(
        &self,
        threads: usize,
        query: &[f32],
        k: usize,
        floor: f32,
        admit: impl Fn(u32) -> bool + Sync,
    ) -> Vec<Ranked> {
        if k == 0 {
            return Vec::new();
        }
        let query_inverse = inverse_norm(query);
        let scan = |first: usize, rows: &[f32]| {
            let mut best = Best::new(k);
            for (offset, row) in rows.chunks_exact(self.dims).enumerate() {
                let index = first + offset;
                if !self.present[index] || !admit(index as u32) {
                    continue;
                }
                let similarity = dot(query, row) * self.inverse_norms[index] * query_inverse;
                // A product of finite vectors can overflow on its way; 0 keeps the order total and the answer sane.
                let similarity = if similarity.is_finite() { similarity.clamp(-1.0, 1.0) } else { 0.0 };
                if similarity >= floor {
                    best.show(Ranked { slot: index as u32, similarity });
                }
            }
            best
        };
        if threads <= 1 {
            return scan(0, &self.rows).into_sorted();
        }
        let share = self.present.len().div_ceil(threads);
        let best = std::thread::scope(|scope| {
            let scan = &scan;
            let parts: Vec<_> = self
                .rows
                .chunks(share * self.dims)
                .enumerate()
                .map(|(part, rows)| scope.spawn(move || scan(part * share, rows)))
                .collect();
            parts.into_iter().fold(Best::new(k), |best, part| match part.join() {
                Ok(found) => best.merge(found),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        });
        best.into_sorted()
    }
}

/// One over the Euclidean length, 0 for a vector whose length is zero or beyond counting.
fn inverse_norm(vector: &[f32]) -> f32 {
    // Summed in f64: squares of large values overflow f32, squares of small ones vanish in it.
    let squared: f64 = vector.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    let inverse = (1.0 / squared.sqrt()) as f32;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Dot product in a fixed order: `LANES` partial sums, then those from first to last. No fused multiply-add, which
/// rounds differently where the machine has it.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn free_and_zero_rows_never_win() {
        let mut matrix = ScanMatrix::new(2);
        matrix.set(0, &[-1.0, 0.0]);
        matrix.set(2, &[0.0, 0.0]);
        matrix.set(3, &[1.0, 0.0]);
        matrix.clear(3);
        let found = matrix.nearest(&[1.0, 0.0], 9, -1.0, |_| true);
        assert_eq!(found, [Ranked { slot: 2, similarity: 0.0 }, Ranked { slot: 0, similarity: -1.0 }]);
        assert!(
            matrix.nearest(&[0.0, 0.0], 9, f32::NEG_INFINITY, |_| true).iter().all(|r| r.similarity == 0.0)
        );
    }

    proptest! {
        #[test]
        fn agrees_with_sorting_everything(
            rows in prop::collection::vec(prop::collection::vec(-1_i8..=1, 5), 1..40),
            query in prop::collection::vec(-1_i8..=1, 5), k in 0_usize..12,
        ) {
            let float = |row: &[i8]| -> Vec<f32> { row.iter().map(|&value| f32::from(value)).collect() };
            let mut matrix = ScanMatrix::new(5);
            for (slot, row) in rows.iter().enumerate() {
                matrix.set(slot as u32, &float(row));
            }
            let query = float(&query);
            let mut all = matrix.nearest(&query, rows.len(), -2.0, |_| true);
            prop_assert_eq!(all.len(), rows.len());
            prop_assert!(all.is_sorted_by(|a, b| (b.similarity, a.slot) <= (a.similarity, b.slot)));
            all.truncate(k);
            prop_assert_eq!(matrix.nearest(&query, k, -2.0, |_| true), all);
        }

        #[test]
        fn many_threads_find_what_one_finds(seed in 0_u64..4) {
            use rand::{RngExt, SeedableRng};
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut matrix = ScanMatrix::new(64);
            for slot in 0..9_000 {
                let row: Vec<f32> = (0..64).map(|_| rng.random_range(-1.0..1.0)).collect();
                matrix.set(slot, &row);
            }
            let query: Vec<f32> = (0..64).map(|_| rng.random_range(-1.0..1.0)).collect();
            let with = |threads| matrix.nearest_on(threads, &query, 20, -1.0, |slot| slot % 3 > 0);
            prop_assert_eq!(with(1), with(4));
        }
    }
}
