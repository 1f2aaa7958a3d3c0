//! Relations of neighbouring states: axes for merging two of them, and what to expect of the next.
//!
//! States are coordinates on principal axes already: centred, and uncorrelated among themselves. A sequence is
//! taken to be stationary, so both halves of a pair have the same variances `v`, and all that is left to learn
//! is the cross-covariance of a state and the next, `B`. Their covariance is `[[diag v, B], [B^T, diag v]]`.

use crate::codec::principal_axes::{PrincipalAxes, eigen};
use crate::error::{Error, Result};
use crate::record::Records;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};

/// Rows that are multiplied at a time, and pairs that are looked at: more tell no more.
const BLOCK: usize = 1_024;
const PAIRS_MAX: usize = 65_536;
/// What is added to each variance before something is expected of it, as a share of their mean. A state with a
/// gap in it is unlike any full one exactly where those hardly vary; without this, one in a hundred such made
/// another a thousand.
const RIDGE: f64 = 1e-2;
/// Pairs that tell whether one coordinate goes with others.
const PAIRS_A_COORDINATE: usize = 16;

/// Second moments of pairs, without what is chance.
pub(crate) struct Pairs {
    variances: Vec<f64>,
    /// `B = left * right^T`, in coordinates of unit variance.
    left: Mat<f64>,
    right: Mat<f64>,
}

impl Pairs {
    /// Of the given rows of `records`, each half of a record a state.
    ///
    /// Between `r` coordinates of unit variance that have nothing to do with each other a sample of `n` pairs
    /// shows singular values up to `e = 2 g (1 + g)`, `g = sqrt(r / n)`. A value `y` above that stands for
    /// about `sqrt(y^2 - e^2)` (Gavish and Donoho, "Optimal shrinkage of singular values", 2017), one below for
    /// nothing. Only as many coordinates are looked at, the strongest, as there are pairs to tell anything of.
    /// Rejected: shrinking all of it by one factor, because chance is spread over all directions and truth is
    /// in few (MNIST's writers come in an order; at 128 images that cost a tenth of the error).
    pub(crate) fn fit(records: &Records, rows: &[usize]) -> Result<Self> {
        let half = records.shape().values() / 2;
        let rows = &rows[..rows.len().min(PAIRS_MAX)];
        let n = rows.len();
        let mut variances = vec![0.0; half];
        let mut cross = Mat::zeros(half, half);
        for block in rows.chunks(BLOCK) {
            let side =
                |at: usize| Mat::from_fn(block.len(), half, |i, j| f64::from(records.row(block[i])[at + j]));
            let (left, right) = (side(0), side(half));
            for (j, variance) in variances.iter_mut().enumerate() {
                let squares = |side: &Mat<f64>| (0..block.len()).map(|i| side[(i, j)].powi(2)).sum::<f64>();
                *variance += (squares(&left) + squares(&right)) / (2.0 * n as f64);
            }
            matmul(&mut cross, Accum::Add, left.transpose(), &right, 1.0 / n as f64, Par::rayon(0));
        }
        let mut order: Vec<usize> = (0..half).filter(|&axis| variances[axis] > 0.0).collect();
        order.sort_by(|&a, &b| variances[b].total_cmp(&variances[a]).then(a.cmp(&b)));
        order.truncate(n / PAIRS_A_COORDINATE);
        if order.is_empty() {
            return Ok(Self { variances, left: Mat::zeros(half, 0), right: Mat::zeros(half, 0) });
        }
        let white = Mat::from_fn(order.len(), order.len(), |i, j| {
            cross[(order[i], order[j])] / (variances[order[i]] * variances[order[j]]).sqrt()
        });
        let solved = white.svd().map_err(|cause| {
            let found = format!("{cause:?}");
            Error::argument("the training sequences", "numbers whose covariance has singular values", found)
        })?;
        let share = (order.len() as f64 / n as f64).sqrt();
        let edge = 2.0 * share * (1.0 + share);
        let values = solved.S().column_vector();
        let above = (0..order.len()).take_while(|&k| values[k] > edge).count();
        let (mut left, mut right) = (Mat::zeros(half, above), Mat::zeros(half, above));
        for (i, &row) in order.iter().enumerate() {
            for k in 0..above {
                // No correlation is above one.
                let strength = (values[k].powi(2) - edge.powi(2)).sqrt().min(1.0);
                left[(row, k)] = solved.U()[(i, k)] * strength;
                right[(row, k)] = solved.V()[(i, k)];
            }
        }
        Ok(Self { variances, left, right })
    }

    /// Axes of pairs, for merging them.
    ///
    /// Of independent items they are the items' own, the larger half of them, however few pairs there were.
    pub(crate) fn axes(&self) -> Result<PrincipalAxes> {
        let half = self.variances.len();
        let mut cross = Mat::zeros(half, half);
        matmul(&mut cross, Accum::Replace, &self.left, self.right.transpose(), 1.0, Par::rayon(0));
        let at = |i: usize, j: usize| cross[(i, j)] * (self.variances[i] * self.variances[j]).sqrt();
        let covariance = Mat::from_fn(2 * half, 2 * half, |i, j| match (i < half, j < half) {
            (true, false) => at(i, j - half),
            (false, true) => at(j, i - half),
            _ if i == j => self.variances[i % half],
            _ => 0.0,
        });
        let (axes, variances) = eigen(&covariance)?;
        Ok(PrincipalAxes { mean: vec![0.0; 2 * half], axes, variances })
    }

    /// The conditional mean of the right state given the left one.
    pub(crate) fn expectation(&self) -> Expectation {
        let (half, rank) = (self.variances.len(), self.left.ncols());
        let deviation = |i: usize| self.variances[i].sqrt();
        let ridge = RIDGE * self.variances.iter().sum::<f64>() / half as f64;
        let inverse = |i: usize| deviation(i) / (self.variances[i] + ridge).max(f64::MIN_POSITIVE);
        let values = |value: &dyn Fn(usize, usize) -> f64| -> Vec<f32> {
            (0..rank).flat_map(|k| (0..half).map(move |i| (i, k))).map(|(i, k)| value(i, k) as f32).collect()
        };
        Expectation {
            width: half,
            take: values(&|i, k| self.left[(i, k)] * inverse(i)),
            give: values(&|i, k| self.right[(i, k)] * deviation(i)),
        }
    }
}

/// The conditional mean of a state's right neighbour, linear in the state:
/// `E[b | a] = B^T diag(v + ridge)^-1 a`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Expectation {
    pub(crate) width: usize,
    /// `[direction, state]`: what is read off a state.
    pub(crate) take: Vec<f32>,
    /// `[direction, state]`: and what each of it says of the next.
    pub(crate) give: Vec<f32>,
}

impl Expectation {
    /// The conditional mean beside one state. Cost: twice its width times the directions, none of independent
    /// records.
    pub(crate) fn beside(&self, state: &[f32]) -> Vec<f32> {
        let mut next = vec![0.0; self.width];
        let directions = self.take.chunks_exact(self.width).zip(self.give.chunks_exact(self.width));
        for (take, give) in directions {
            let found: f32 = take.iter().zip(state).map(|(take, value)| take * value).sum();
            next.iter_mut().zip(give).for_each(|(next, give)| *next += found * give);
        }
        next
    }
}
