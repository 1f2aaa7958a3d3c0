//! Lloyd's algorithm with k-means++ seeds: how charts and codebooks begin.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Rows compared at a time.
const BLOCK: usize = 256;
/// Rows that seeds are drawn from.
const SEED_ROWS: usize = 8_192;

/// Centres of clusters, `[centre, width]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Centres {
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
    /// Half the squared length of each.
    half_lengths: Vec<f32>,
}

impl Centres {
    pub(super) fn new(width: usize, values: Vec<f32>) -> Self {
        let half_length = |row: &[f32]| 0.5 * row.iter().map(|x| x * x).sum::<f32>();
        let half_lengths = values.chunks_exact(width).map(half_length).collect();
        Self { width, values, half_lengths }
    }

    pub(super) fn len(&self) -> usize {
        self.half_lengths.len()
    }

    pub(super) fn row(&self, centre: usize) -> &[f32] {
        &self.values[centre * self.width..(centre + 1) * self.width]
    }

    /// Half the squared distance from each row to each centre, without the row's own half squared length.
    ///
    /// # Shapes
    /// - `rows`: `[row, width]`
    /// - returns `[row, centre]`
    pub(super) fn distances(&self, rows: &[f32]) -> Vec<f32> {
        let (count, centres) = (rows.len() / self.width, self.len());
        let mut out = vec![0.0_f32; count * centres];
        matmul(
            MatMut::from_row_major_slice_mut(&mut out, count, centres),
            Accum::Replace,
            MatRef::from_row_major_slice(rows, count, self.width),
            MatRef::from_row_major_slice(&self.values, centres, self.width).transpose(),
            -1.0,
            Par::Seq,
        );
        for row in out.chunks_exact_mut(centres) {
            row.iter_mut().zip(&self.half_lengths).for_each(|(distance, half)| *distance += half);
        }
        out
    }

    /// The nearest centre of each row.
    pub(super) fn nearest(&self, rows: &[f32]) -> Vec<usize> {
        rows.par_chunks(BLOCK * self.width)
            .flat_map_iter(|block| {
                let least =
                    |row: &[f32]| (0..row.len()).min_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
                self.distances(block).chunks_exact(self.len()).map(least).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Means of assigned rows, shrunk toward zero as if each had `shrinkage` more rows there; centres without
    /// rows stay.
    fn moved(&self, rows: &[f32], assigned: &[usize], shrinkage: f64) -> Self {
        let mut sums = vec![0.0_f64; self.values.len()];
        let mut counts = vec![0.0_f64; self.len()];
        for (row, &centre) in rows.chunks_exact(self.width).zip(assigned) {
            let sum = &mut sums[centre * self.width..(centre + 1) * self.width];
            sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            counts[centre] += 1.0;
        }
        let mut values = self.values.clone();
        for ((centre, sum), &count) in
            values.chunks_exact_mut(self.width).zip(sums.chunks_exact(self.width)).zip(&counts)
        {
            if count > 0.0 {
                centre.iter_mut().zip(sum).for_each(|(c, sum)| *c = (sum / (count + shrinkage)) as f32);
            }
        }
        Self::new(self.width, values)
    }
}

/// Clusters rows around at most `k` centres; fewer where there are fewer distinct rows. Deterministic for a
/// generator's state.
///
/// # Shapes
/// - `rows`: `[row, width]`
pub(super) fn cluster(
    rows: &[f32],
    width: usize,
    k: usize,
    rounds: usize,
    shrinkage: f64,
    rng: &mut ChaCha8Rng,
) -> Centres {
    let mut centres = seeds(rows, width, k, rng);
    for _ in 0..rounds {
        centres = centres.moved(rows, &centres.nearest(rows), shrinkage);
    }
    centres
}

/// k-means++: the next seed is drawn with probability proportional to the squared distance to those there are.
fn seeds(rows: &[f32], width: usize, k: usize, rng: &mut ChaCha8Rng) -> Centres {
    let count = rows.len() / width;
    let stride = count.div_ceil(SEED_ROWS.max(k)).max(1);
    let candidates: Vec<&[f32]> = rows.chunks_exact(width).step_by(stride).collect();
    let mut values = candidates[rng.random_range(0..candidates.len())].to_vec();
    let mut distances = vec![f32::INFINITY; candidates.len()];
    loop {
        let newest = values[values.len() - width..].to_vec();
        distances.par_iter_mut().zip(&candidates).for_each(|(distance, row)| {
            let squared: f32 = row.iter().zip(&newest).map(|(a, b)| (a - b) * (a - b)).sum();
            *distance = distance.min(squared);
        });
        let total: f64 = distances.iter().map(|&distance| f64::from(distance)).sum();
        // Duplicates of a centre need no second one.
        if values.len() / width == k || total <= 0.0 {
            return Centres::new(width, values);
        }
        let mut left = rng.random_range(0.0..1.0) * total;
        let next = distances.iter().position(|&distance| {
            left -= f64::from(distance);
            left < 0.0
        });
        values.extend_from_slice(candidates[next.unwrap_or(candidates.len() - 1)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn two_clouds_get_a_centre_each_and_duplicates_no_second_one() {
        let rows: Vec<f32> = (0..100).flat_map(|i| [(i % 2) as f32 * 10.0, (i % 5) as f32 * 0.1]).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let centres = cluster(&rows, 2, 2, 8, 0.0, &mut rng);
        let mut x = [centres.row(0)[0], centres.row(1)[0]];
        x.sort_by(f32::total_cmp);
        assert_eq!(x, [0.0, 10.0]);
        assert_eq!(cluster(&[1.0, 2.0, 1.0, 2.0], 2, 2, 3, 0.0, &mut rng).len(), 1);
    }
}
