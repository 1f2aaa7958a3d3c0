//! Trellis-coded (dependent) quantization: two scalar quantizers, and a state that says which one is next.
//!
//! All indices of a record stand on one grid of `step`. Quantizer 0 has the even points `2k`, quantizer 1 the
//! odd ones and zero, `2k - sgn k`. The parity of each index moves an eight-state machine, and the state names
//! the quantizer of the next coordinate, so the union grid is as fine as `step` while each index costs what a
//! grid of `2 step` costs. The encoder finds the cheapest path with the Viterbi algorithm, counting distortion
//! and the very bits that the range coder will spend: rate-distortion optimized quantization comes with it for
//! free. (Marcellin and Fischer 1990; entropy-coded: Joshi, Crump and Fischer 1995; zero in both quantizers:
//! H.266.)

use super::context::Context;
use super::states::{INDEX_MAX, STATES, next_state, point, quantizer_of};
use super::tables::Tables;

/// Indices of one record and what they cost.
#[derive(Debug, Clone, Default)]
pub(super) struct Path {
    pub(super) indices: Vec<i32>,
    /// Squared error in steps squared.
    pub(super) distortion: f32,
    pub(super) bits: f32,
}

#[derive(Clone, Copy)]
struct Survivor {
    cost: f32,
    bits: f32,
    context: Context,
}

#[derive(Debug, Clone, Copy, Default)]
struct Came {
    from: u8,
    index: i32,
}

/// Room for one search, used again for the next record.
#[derive(Debug, Default)]
pub(super) struct Search {
    came: Vec<Came>,
}

impl Search {
    /// The cheapest indices.
    ///
    /// # Shapes
    /// - `coordinates`: `[axis]` of `(bucket, value in steps)`
    ///
    /// Cost: 24 candidates an axis. The context follows each surviving path, so a path that would have been
    /// cheaper in the end under another context can be lost: a greedy choice that costs nothing measurable.
    pub(super) fn run(&mut self, tables: &Tables, coordinates: &[(u8, f32)], lambda: f32) -> Path {
        let none = Survivor { cost: f32::INFINITY, bits: 0.0, context: Context::start() };
        let mut alive = [none; STATES];
        alive[0].cost = 0.0;
        self.came.clear();
        self.came.resize(coordinates.len() * STATES, Came::default());
        for (&(bucket, value), came) in coordinates.iter().zip(self.came.chunks_exact_mut(STATES)) {
            let bucket = usize::from(bucket);
            let candidates = [candidates(tables, bucket, 0, value), candidates(tables, bucket, 1, value)];
            let mut next = [none; STATES];
            for (state, survivor) in alive.iter().enumerate() {
                if survivor.cost == f32::INFINITY {
                    continue;
                }
                let quantizer = quantizer_of(state);
                let model = tables.model(bucket, survivor.context.class(), quantizer);
                for candidate in &candidates[quantizer] {
                    let bits = model.bits(candidate.index);
                    let cost = survivor.cost + candidate.distortion + lambda * bits;
                    let to = next_state(state, candidate.index);
                    if cost < next[to].cost {
                        let magnitude = point(quantizer, candidate.index).unsigned_abs();
                        let context = survivor.context.after(magnitude, tables.expected[bucket]);
                        next[to] = Survivor { cost, bits: survivor.bits + bits, context };
                        came[to] = Came { from: state as u8, index: candidate.index };
                    }
                }
            }
            alive = next;
        }
        let (mut state, best) = alive
            .iter()
            .enumerate()
            .min_by(|(_, a), (_, b)| a.cost.total_cmp(&b.cost))
            .map_or((0, none), |(state, best)| (state, *best));
        let mut indices = vec![0; coordinates.len()];
        for (index, came) in indices.iter_mut().zip(self.came.chunks_exact(STATES)).rev() {
            *index = came[state].index;
            state = usize::from(came[state].from);
        }
        Path { indices, distortion: (best.cost - lambda * best.bits).max(0.0), bits: best.bits }
    }
}

#[derive(Clone, Copy)]
struct Candidate {
    index: i32,
    distortion: f32,
}

/// The two nearest indices, which differ in parity, and zero.
fn candidates(tables: &Tables, bucket: usize, quantizer: usize, value: f32) -> [Candidate; 3] {
    let magnitude = value.abs().min(2.0 * INDEX_MAX as f32 - 4.0);
    let sign = if value < 0.0 { -1 } else { 1 };
    // Quantizer 1 has its points one step nearer to zero.
    let low = ((magnitude + quantizer as f32) * 0.5) as i32;
    let candidate = |index: i32| {
        let index = sign * index;
        let difference = value - tables.reconstruct(bucket, quantizer, index);
        Candidate { index, distortion: difference * difference }
    };
    [candidate(low), candidate(low + 1), candidate(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::quantizer::entropy::tables::bucket_of;

    fn decoded(tables: &Tables, bucket: usize, indices: &[i32]) -> Vec<f32> {
        let mut state = 0;
        indices
            .iter()
            .map(|&index| {
                let value = tables.reconstruct(bucket, quantizer_of(state), index);
                state = next_state(state, index);
                value
            })
            .collect()
    }

    /// On a short record every path can be tried; with the context held still the search must find the best.
    #[test]
    fn the_search_finds_what_trying_everything_finds() {
        let tables = Tables::laplacian();
        let bucket = bucket_of(0.9);
        for seed in 0..20 {
            let values: Vec<f32> = (0..6).map(|i| ((seed * 7 + i * 13) % 37) as f32 / 9.0 - 2.0).collect();
            let coordinates: Vec<(u8, f32)> = values.iter().map(|&value| (bucket, value)).collect();
            let path = Search::default().run(&tables, &coordinates, 0.2);
            let cost = |indices: &[i32]| {
                let (mut state, mut context, mut cost) = (0, Context::start(), 0.0);
                for (&index, &value) in indices.iter().zip(&values) {
                    let quantizer = quantizer_of(state);
                    let model = tables.model(usize::from(bucket), context.class(), quantizer);
                    let difference = value - tables.reconstruct(usize::from(bucket), quantizer, index);
                    cost += difference * difference + 0.2 * model.bits(index);
                    context = context
                        .after(point(quantizer, index).unsigned_abs(), tables.expected[usize::from(bucket)]);
                    state = next_state(state, index);
                }
                cost
            };
            let found = cost(&path.indices);
            assert!((found - (path.distortion + 0.2 * path.bits)).abs() < 1e-3);
            let best = (0..5_i32.pow(6))
                .map(|n| cost(&(0..6).map(|i| n / 5_i32.pow(i) % 5 - 2).collect::<Vec<_>>()))
                .fold(f32::INFINITY, f32::min);
            // Contexts differ between paths by a class at most here, which is what the search may miss.
            assert!(found <= best * 1.02 + 1e-3, "{found} against {best}");
        }
    }

    #[test]
    fn the_union_grid_is_finer_than_either_quantizer() {
        let tables = Tables::laplacian();
        let bucket = bucket_of(4.0);
        let values: Vec<f32> = (0..4_000).map(|i| ((i * 7_919) % 1_601) as f32 / 100.0 - 8.0).collect();
        let coordinates: Vec<(u8, f32)> = values.iter().map(|&value| (bucket, value)).collect();
        let path = Search::default().run(&tables, &coordinates, 0.0);
        let given = decoded(&tables, usize::from(bucket), &path.indices);
        let error = values.iter().zip(&given).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / 4_000.0;
        // A uniform quantizer of two steps leaves 4/12; eight states gain about a decibel.
        assert!(error < 0.85 * 4.0 / 12.0, "{error}");
        assert!(error > 1.0 / 12.0);
    }
}
