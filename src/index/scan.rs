//! Ways over the matrix that give the same answer: all rows as they are, integers first, many queries at once.
//!
//! The integers of a row say how near it is to within a margin that is known (Cauchy and Schwarz): with
//! `x = x' + r`, `|q x - q' x'| <= |q'| |r| + |q - q'| |x|`. A row whose similarity is at most below the k-th
//! best of what others are at least cannot be among the nearest, whatever was rounded. The rest, a few hundred
//! of a million, are looked at exactly. So the first pass reads a quarter of the memory, and the result is that
//! of the exact scan, bit for bit. The same holds for many queries at once, whose products a matrix
//! multiplication sums in an order of its own.

use super::kernel::{self, dot, dots, integer_dots, upper_bounds};
use super::matrix::{IntegerQuery, normalize};
use super::ranking::{Best, Ranked};
use super::view::{Part, View};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use std::ops::Range;
use std::thread::ScopedJoinHandle;

/// Rows whose similarities are computed before any is looked at, at most; and bytes of theirs, for the nearest
/// cache.
const BLOCK: usize = 256;
const BLOCK_BYTES: usize = 1 << 15;
/// Rows of a block of a matrix product, in values: as many as fit the second cache.
const PRODUCT_VALUES: usize = 1 << 16;
/// Numbers from which on the integers are worth their second pass, and for which another thread is worth
/// starting.
const TWO_STAGE_FROM: usize = 1 << 17;
const GRAIN: usize = 1 << 20;
/// Most threads for each core, whatever is asked for.
const THREADS_A_CORE: usize = 4;
/// Queries from which on a matrix product is faster than one after the other.
const PRODUCT_FROM: usize = 4;

/// How a search goes over the search vectors. The answer is the same, bit for bit; only the time differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Scan {
    /// Whatever is fastest for this many memories and queries.
    #[default]
    Auto,
    /// Every vector as it is.
    Exact,
    /// Integers of one byte first, then exactly those that may be among the nearest.
    TwoStage,
}

apcm_format::named!(Scan, "a scan", Auto => "auto", Exact => "exact", TwoStage => "two-stage");

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanOptions {
    /// How many at most.
    pub(crate) k: usize,
    /// Least similarity.
    pub(crate) floor: f32,
    pub(crate) scan: Scan,
    /// Most threads; by default the number of cores.
    pub(crate) threads: Option<usize>,
}

/// A row that may be among the nearest, and what its similarity is at most.
struct Candidate {
    row: usize,
    slot: u32,
    upper: f32,
}

/// The result of a first pass: rows that may be among the nearest, and a similarity that at least `k` of them
/// reach.
struct Candidates {
    rows: Vec<Candidate>,
    least: Best,
}

impl Candidates {
    fn new(wanted: &ScanOptions) -> Self {
        Self { rows: Vec::new(), least: Best::new(wanted.k, wanted.floor) }
    }

    /// The similarity to reach.
    fn threshold(&self) -> f32 {
        self.least.threshold()
    }

    fn merge(mut self, other: Self) -> Self {
        self.rows.extend(other.rows);
        self.least = self.least.merge(other.least);
        self
    }
}

impl View<'_> {
    /// The `k` nearest slots among those that `admit` lets through, nearest first, equals by slot, none below
    /// the floor; for each of several queries `[query, dims]`.
    ///
    /// Cost: one pass over all rows, on all cores from about a million numbers on. The threads are its own: a
    /// scan runs under the store's lock, where a shared pool could hand this thread work that waits for that
    /// lock.
    pub(crate) fn nearest(
        &self,
        queries: &[f32],
        wanted: &ScanOptions,
        admit: impl Fn(u32) -> bool + Sync,
    ) -> Vec<Vec<Ranked>> {
        let mut queries = queries.to_vec();
        queries.chunks_exact_mut(self.dims).for_each(normalize);
        let count = queries.len() / self.dims;
        if wanted.k == 0 {
            return vec![Vec::new(); count];
        }
        // The slot of a row that may be found.
        let admit = |row: usize| self.slot(row).filter(|&slot| admit(slot));
        if count >= PRODUCT_FROM && wanted.scan == Scan::Auto {
            return self.product(&queries, wanted, &admit);
        }
        let exact = match wanted.scan {
            Scan::Auto => self.rows.len() < TWO_STAGE_FROM,
            scan => scan == Scan::Exact,
        };
        let one = |query: &[f32]| {
            if exact { self.exact(query, wanted, &admit) } else { self.two_stage(query, wanted, &admit) }
        };
        queries.chunks_exact(self.dims).map(one).collect()
    }

    /// The `k` nearest of some slots, exactly: as [`nearest`](Self::nearest), for one query `[dims]`.
    pub(crate) fn nearest_among(
        &self,
        query: &[f32],
        wanted: &ScanOptions,
        slots: &[u32],
        admit: impl Fn(u32) -> bool,
    ) -> Vec<Ranked> {
        let mut query = query.to_vec();
        normalize(&mut query);
        let mut best = Best::new(wanted.k, wanted.floor);
        for &slot in slots {
            if let Some(row) = self.place(slot)
                && admit(slot)
            {
                let similarity = dot(&query, self.row(row)).clamp(-1.0, 1.0);
                if similarity >= wanted.floor {
                    best.show(Ranked { slot, similarity });
                }
            }
        }
        best.into_sorted()
    }

    fn exact(
        &self,
        query: &[f32],
        wanted: &ScanOptions,
        admit: &(impl Fn(usize) -> Option<u32> + Sync),
    ) -> Vec<Ranked> {
        let scan = |range: Range<usize>| {
            let mut best = Best::new(wanted.k, wanted.floor);
            let mut similarities = [0.0; BLOCK];
            for block in blocks(range, self.rows_in_block(size_of::<f32>())) {
                if !self.may_read(Part::Rows, block.clone()) {
                    continue;
                }
                let out = &mut similarities[..block.len()];
                let rows = &self.rows[block.start * self.dims..block.end * self.dims];
                kernel::touch(rows, f32::to_bits);
                dots(query, rows, out);
                reaching(out, best.threshold(), |offset, similarity| {
                    let row = block.start + offset;
                    let similarity = similarity.clamp(-1.0, 1.0);
                    if similarity >= wanted.floor
                        && let Some(slot) = admit(row)
                    {
                        best.show(Ranked { slot, similarity });
                    }
                    best.threshold()
                });
            }
            best
        };
        self.in_parts(wanted, 1, scan)
            .into_iter()
            .fold(Best::new(wanted.k, wanted.floor), Best::merge)
            .into_sorted()
    }

    fn two_stage(
        &self,
        query: &[f32],
        wanted: &ScanOptions,
        admit: &(impl Fn(usize) -> Option<u32> + Sync),
    ) -> Vec<Ranked> {
        let integer = IntegerQuery::of(query);
        let bound = (integer.scale, integer.length, integer.slack);
        let scan = |range: Range<usize>| {
            let mut found = Candidates::new(wanted);
            let (mut sums, mut upper) = ([0; BLOCK], [0.0; BLOCK]);
            for block in blocks(range, self.rows_in_block(size_of::<i8>())) {
                if !self.may_read(Part::Integers, block.clone()) {
                    continue;
                }
                let (sums, upper) = (&mut sums[..block.len()], &mut upper[..block.len()]);
                let rows = &self.integers[block.start * self.dims..block.end * self.dims];
                kernel::touch(rows, |value| value as u32);
                integer_dots(&integer.integers, rows, sums);
                upper_bounds(sums, &self.scales[block.clone()], &self.residuals[block.clone()], bound, upper);
                let threshold = found.threshold();
                reaching(upper, threshold, |offset, upper| {
                    let row = block.start + offset;
                    if let Some(slot) = admit(row) {
                        let margin = self.residuals[row] * integer.length + integer.slack;
                        found.rows.push(Candidate { row, slot, upper });
                        found.least.show(Ranked { slot, similarity: upper - 2.0 * margin });
                    }
                    found.threshold()
                });
            }
            found
        };
        let parts = self.in_parts(wanted, 1, scan);
        self.decide(query, wanted, parts.into_iter().fold(Candidates::new(wanted), Candidates::merge))
    }

    /// Many queries at once. Every block of rows is read once for all of them.
    fn product(
        &self,
        queries: &[f32],
        wanted: &ScanOptions,
        admit: &(impl Fn(usize) -> Option<u32> + Sync),
    ) -> Vec<Vec<Ranked>> {
        let dims = self.dims;
        let count = queries.len() / dims;
        let rows_at_once = (PRODUCT_VALUES / dims).clamp(16, 4_096);
        // Two sums of the same products, in two orders.
        let margin = 2.0 * kernel::rounding(dims);
        let scan = |range: Range<usize>| {
            let mut found: Vec<Candidates> = (0..count).map(|_| Candidates::new(wanted)).collect();
            let mut similarities = vec![0.0_f32; rows_at_once * count];
            for block in blocks(range, rows_at_once) {
                if !self.may_read(Part::Rows, block.clone()) {
                    continue;
                }
                let out = &mut similarities[..block.len() * count];
                matmul(
                    MatMut::from_column_major_slice_mut(out, block.len(), count),
                    Accum::Replace,
                    MatRef::from_row_major_slice(
                        &self.rows[block.start * dims..block.end * dims],
                        block.len(),
                        dims,
                    ),
                    MatRef::from_column_major_slice(queries, dims, count),
                    1.0,
                    Par::Seq,
                );
                for (found, similarities) in found.iter_mut().zip(out.chunks_exact(block.len())) {
                    let threshold = found.threshold() - margin;
                    reaching(similarities, threshold, |offset, similarity| {
                        let row = block.start + offset;
                        if let Some(slot) = admit(row) {
                            found.rows.push(Candidate { row, slot, upper: similarity + margin });
                            found.least.show(Ranked { slot, similarity: similarity - margin });
                        }
                        found.threshold() - margin
                    });
                }
            }
            found
        };
        let parts = self.in_parts(wanted, count, scan);
        let mut all: Vec<Candidates> = (0..count).map(|_| Candidates::new(wanted)).collect();
        for part in parts {
            all = all.into_iter().zip(part).map(|(all, part)| all.merge(part)).collect();
        }
        let queries = queries.chunks_exact(dims);
        all.into_iter().zip(queries).map(|(found, query)| self.decide(query, wanted, found)).collect()
    }

    fn rows_in_block(&self, value_bytes: usize) -> usize {
        (BLOCK_BYTES / (self.dims * value_bytes)).clamp(16, BLOCK)
    }

    /// Computes exactly the rows that may be among the nearest.
    fn decide(&self, query: &[f32], wanted: &ScanOptions, found: Candidates) -> Vec<Ranked> {
        let threshold = found.threshold();
        let mut best = Best::new(wanted.k, wanted.floor);
        for Candidate { row, slot, .. } in found.rows.into_iter().filter(|found| found.upper >= threshold) {
            if !self.may_read(Part::Rows, row..row + 1) {
                continue;
            }
            let similarity = dot(query, self.row(row)).clamp(-1.0, 1.0);
            if similarity >= wanted.floor {
                best.show(Ranked { slot, similarity });
            }
        }
        best.into_sorted()
    }

    /// Runs a scan over all rows, in as many parts as there are threads worth starting for so many queries.
    fn in_parts<T: Send>(
        &self,
        wanted: &ScanOptions,
        queries: usize,
        scan: impl Fn(Range<usize>) -> T + Sync,
    ) -> Vec<T> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let worth = (self.rows.len() / GRAIN).saturating_mul(queries);
        let threads = wanted.threads.unwrap_or(cores.min(worth)).clamp(1, THREADS_A_CORE * cores);
        let share = self.len().div_ceil(threads).max(1);
        let part = |number: usize| (number * share).min(self.len())..((number + 1) * share).min(self.len());
        std::thread::scope(|scope| {
            let scan = &scan;
            let others: Vec<_> = (1..threads)
                .map(|number| {
                    let spawned = std::thread::Builder::new().spawn_scoped(scope, move || scan(part(number)));
                    (number, spawned)
                })
                .collect();
            let mut done = vec![scan(part(0))];
            done.extend(others.into_iter().map(
                |(number, spawned)| match spawned.map(ScopedJoinHandle::join) {
                    Ok(Ok(found)) => found,
                    Ok(Err(panic)) => std::panic::resume_unwind(panic),
                    // The system gives no more threads: this one does the work.
                    Err(_) => scan(part(number)),
                },
            ));
            done
        })
    }
}

/// A range of rows in blocks.
fn blocks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size).map(move |start| start..(start + size).min(end))
}

/// Calls `take` with each value that reaches the threshold, which it then gives anew. Most do not, and are
/// passed over sixteen at a time.
fn reaching(values: &[f32], mut threshold: f32, mut take: impl FnMut(usize, f32) -> f32) {
    for (number, chunk) in values.chunks(16).enumerate() {
        if !chunk.iter().fold(false, |any, &value| any | (value >= threshold)) {
            continue;
        }
        for (offset, &value) in chunk.iter().enumerate() {
            if value >= threshold {
                threshold = take(number * 16 + offset, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::ScanMatrix;
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const WAYS: [Scan; 3] = [Scan::Auto, Scan::Exact, Scan::TwoStage];

    fn options(k: usize) -> ScanOptions {
        ScanOptions { k, floor: f32::NEG_INFINITY, scan: Scan::Auto, threads: None }
    }

    fn one(matrix: &ScanMatrix, query: &[f32], wanted: ScanOptions) -> Vec<Ranked> {
        matrix.view().nearest(query, &wanted, |_| true).remove(0)
    }

    #[test]
    fn free_and_zero_rows_never_win() {
        let mut matrix = ScanMatrix::new(2);
        matrix.set(0, &[-1.0, 0.0]);
        matrix.set(2, &[0.0, 0.0]);
        matrix.set(3, &[1.0, 0.0]);
        matrix.clear(3);
        for scan in WAYS {
            let found = one(&matrix, &[1.0, 0.0], ScanOptions { scan, ..options(9) });
            assert_eq!(found, [Ranked { slot: 2, similarity: 0.0 }, Ranked { slot: 0, similarity: -1.0 }]);
            let found = one(&matrix, &[0.0, 0.0], ScanOptions { scan, ..options(9) });
            assert!(found.len() == 2 && found.iter().all(|ranked| ranked.similarity == 0.0));
        }
    }

    /// Rows of several kinds, in which rounding has the least to go by: many equal, many nearly equal, one
    /// large value, tiny and huge lengths, none at all.
    fn rows(kind: u8, count: usize, dims: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
        let centre: Vec<f32> = (0..dims).map(|_| rng.random_range(-1.0..1.0)).collect();
        (0..count)
            .map(|row| {
                let mut random = |spread: f32| -> Vec<f32> {
                    centre.iter().map(|&value| value + spread * rng.random_range(-1.0_f32..1.0)).collect()
                };
                match kind {
                    0 => random(10.0),
                    1 => random(1e-3),
                    2 => random(1e-7),
                    3 => random(0.0).iter().map(|value| value * 10_f32.powi(row as i32 % 60 - 30)).collect(),
                    4 => {
                        let mut sharp = random(1.0);
                        sharp[row % dims] = 1e4;
                        sharp
                    }
                    5 => random(0.0).iter().map(|value| if row % 2 == 0 { *value } else { -value }).collect(),
                    _ if row % 3 == 0 => vec![0.0; dims],
                    _ => random(1.0),
                }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_way_gives_what_sorting_everything_gives(
            seed in any::<u64>(), kind in 0_u8..7, count in 1_usize..700, dims in 1_usize..70, k in 1_usize..30,
            floor in prop_oneof![Just(None), Just(Some(-1.0)), Just(Some(1.0)), (-1.0_f32..1.0).prop_map(Some)],
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let rows = rows(kind, count, dims, &mut rng);
            let mut matrix = ScanMatrix::new(dims);
            // In any order, some twice and some emptied in between: rows are not where their slots are.
            let mut order: Vec<u32> = (0..count as u32).chain((0..count as u32).step_by(3)).collect();
            (1..order.len()).rev().for_each(|at| order.swap(at, rng.random_range(0..=at)));
            for (at, &slot) in order.iter().enumerate() {
                if at % 4 == 1 {
                    matrix.clear(order[at / 2]);
                }
                matrix.set(slot, &rows[slot as usize]);
            }
            (0..count as u32).for_each(|slot| matrix.set(slot, &rows[slot as usize]));
            let gone = |slot: u32| slot % 7 == 3;
            (0..count as u32).filter(|&slot| gone(slot)).for_each(|slot| matrix.clear(slot));
            let admitted = |slot: u32| slot % 5 != 1;
            let floor = floor.unwrap_or(f32::NEG_INFINITY);
            let row_of = |slot: u32| matrix.view().row(matrix.view().place(slot).unwrap()).to_vec();
            // Rows and their opposites: similarities beyond 1 and -1 by rounding, and equal once they are
            // clamped.
            let query = |query: usize| {
                let sign = if query.is_multiple_of(2) { 1.0 } else { -1.0 };
                rows[(query * 31) % count].iter().map(move |value| sign * value)
            };
            let queries: Vec<f32> = (0..6).flat_map(query).collect();
            for query in queries.chunks_exact(dims) {
                let mut unit = query.to_vec();
                normalize(&mut unit);
                let mut all: Vec<Ranked> = (0..count as u32)
                    .filter(|&slot| !gone(slot) && admitted(slot))
                    .map(|slot| Ranked { slot, similarity: dot(&unit, &row_of(slot)).clamp(-1.0, 1.0) })
                    .filter(|ranked| ranked.similarity >= floor)
                    .collect();
                all.sort_by(|a, b| b.cmp(a));
                all.truncate(k);
                for scan in WAYS {
                    for threads in [1, 3] {
                        let wanted = ScanOptions { k, floor, scan, threads: Some(threads) };
                        prop_assert_eq!(&matrix.view().nearest(query, &wanted, admitted)[0], &all, "{:?}", scan);
                    }
                }
            }
            let together = matrix.view().nearest(&queries, &ScanOptions { floor, ..options(k) }, admitted);
            for (query, found) in queries.chunks_exact(dims).zip(together) {
                let alone = ScanOptions { floor, scan: Scan::Exact, ..options(k) };
                prop_assert_eq!(&matrix.view().nearest(query, &alone, admitted)[0], &found);
            }
        }
    }

    /// The first pass is worth its while: it leaves few rows to look at exactly.
    #[test]
    fn few_rows_are_looked_at_twice() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (count, dims) = (20_000, 64);
        let mut matrix = ScanMatrix::new(dims);
        for (slot, row) in rows(0, count, dims, &mut rng).iter().enumerate() {
            matrix.set(slot as u32, row);
        }
        let mut query: Vec<f32> = (0..dims).map(|_| rng.random_range(-1.0..1.0)).collect();
        normalize(&mut query);
        let integer = IntegerQuery::of(&query);
        let margin = |row: usize| matrix.view().residuals[row] * integer.length + integer.slack;
        let widest = (0..count).map(margin).fold(0.0, f32::max);
        assert!(widest < 0.02, "{widest}");
        let tenth = one(&matrix, &query, options(10))[9].similarity;
        let near =
            (0..count).filter(|&row| dot(&query, matrix.view().row(row)) > tenth - 2.0 * widest).count();
        assert!(near < 100, "{near} of {count}");
    }
}
