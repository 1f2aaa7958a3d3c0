//! Dot products, in code that the compiler turns into vector instructions of the machine it runs on.
//!
//! `pulp` looks at run time for what the machine has; there is no instruction written by hand. Products of
//! `f32` are summed in one order everywhere, and never with a fused multiply-add, which rounds differently
//! where a machine has it: a ranking is the same on every machine and by every path. Sums of integers are exact
//! in any order.

use pulp::Arch;
use std::hint::black_box;

/// Partial sums of a dot product: two vector registers with AVX2, four with SSE2 or NEON.
pub(super) const LANES: usize = 16;

/// Dot product in a fixed order: [`LANES`] partial sums, added in halves, then what is left over.
#[inline(always)]
fn dot_inline(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0] + tail
}

/// Most that [`dot`] of two vectors of length 1 can be from their true product, by rounding alone.
///
/// Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: a sum of `n` products in any order is
/// off by at most `n u / (1 - n u)` times the sum of their magnitudes, which Cauchy and Schwarz bound by 1.
/// Doubled, because the lengths are rounded too.
pub(super) fn rounding(dims: usize) -> f32 {
    let n = dims as f32 + 8.0;
    2.0 * n * (f32::EPSILON / 2.0)
}

/// The next number of four bytes that is not below, and a little more.
pub(super) fn up(value: f64) -> f32 {
    (value * (1.0 + f64::from(f32::EPSILON))) as f32
}

/// Reads one value of every cache line, so that what follows finds all of them near.
///
/// A loop that does nothing else has as many reads under way as the machine allows; one that multiplies has
/// few, because each row fills the window of instructions. Measured on a virtual machine whose prefetcher does
/// little: a million rows of 64 integers in 6.3 ms instead of 14.7. In memory that is near already it costs a
/// third.
pub(super) fn touch<T: Copy>(values: &[T], bits: impl Fn(T) -> u32 + Copy) {
    let line = 64 / size_of::<T>();
    let mixed = Arch::new().dispatch(|| {
        let mut mixed = [0_u32; 8];
        for lines in values.chunks_exact(8 * line) {
            for (number, mixed) in mixed.iter_mut().enumerate() {
                *mixed ^= bits(lines[number * line]);
            }
        }
        mixed
    });
    black_box(mixed);
}

/// Partial sums in `f64`.
pub(super) const F64_LANES: usize = 8;

/// Sum of squares, in partial sums.
#[inline(always)]
pub(super) fn squares(chunks: impl Iterator<Item = [f64; F64_LANES]>) -> f64 {
    let mut lanes = [0.0; F64_LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value * value;
        }
    }
    lanes.iter().sum()
}

/// Runs a loop with the vector instructions of the machine.
pub(super) fn vectorized<T>(run: impl pulp::NullaryFnOnce<Output = T>) -> T {
    Arch::new().dispatch(run)
}

/// Dot product of two vectors of equal length.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    Arch::new().dispatch(|| dot_inline(a, b))
}

/// Dot products of a query `[dims]` with rows `[rows, dims]`.
pub(super) fn dots(query: &[f32], rows: &[f32], out: &mut [f32]) {
    Arch::new().dispatch(|| {
        for (out, row) in out.iter_mut().zip(rows.chunks_exact(query.len())) {
            *out = dot_inline(query, row);
        }
    });
}

/// Dot products of a query `[dims]` with rows `[rows, dims]` of small integers. The caller sees to it that no
/// sum leaves `i32`.
pub(super) fn integer_dots(query: &[i16], rows: &[i8], out: &mut [i32]) {
    Arch::new().dispatch(|| {
        for (out, row) in out.iter_mut().zip(rows.chunks_exact(query.len())) {
            *out = query.iter().zip(row).map(|(&q, &x)| i32::from(q) * i32::from(x)).sum();
        }
    });
}

/// `sums * scales * unit + slack`, element by element: what each row's similarity is at most.
pub(super) fn upper_bounds(
    sums: &[i32],
    scales: &[f32],
    residuals: &[f32],
    (unit, length, slack): (f32, f32, f32),
    out: &mut [f32],
) {
    Arch::new().dispatch(|| {
        for (((out, &sum), &scale), &residual) in out.iter_mut().zip(sums).zip(scales).zip(residuals) {
            *out = sum as f32 * (scale * unit) + (residual * length + slack);
        }
    });
}
