//! Fitting: charts first, then tables and step together, then the step alone on records nothing has seen.

use super::charts::BLOCK;
use super::cost::{COARSER, CostTable};
use super::counts::Counts;
use super::mixture::{Mixture, assign};
use super::quantizer::{COARSEST, Entropy, FINEST, LEVEL_ZERO, LEVELS, Limit, Symbols, quarter_octaves};
use super::tables::Tables;
use super::trellis::Search;
use super::water::{left, rate, water_level};
use crate::codec::quantizer::k_means::cluster;
use crate::codec::quantizer::range_coder::frequencies;
use crate::codec::quantizer::spec::{CODE_OVERHEAD_BITS, EntropySpec, Rate};
use crate::error::{Error, Result};
use apcm_format::limits;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::ops::ControlFlow;

/// Coordinates that the first assignment looks at.
const LEADING: usize = 64;
const K_MEANS_ROUNDS: usize = 12;
/// Rounds of "assign to the cheapest chart, fit the charts again".
const CHART_ROUNDS: usize = 4;
/// Passes of "encode, count, make tables, move the step"; the last two over all records.
const TABLE_PASSES: usize = 6;
/// Records of all passes but the last two.
const SAMPLE: usize = 8_000;
/// Axes along which deviations are below this share of a step are left out: nothing there is worth a bit.
/// Measured on images: 0.35 and 0.5 give the same error, and the latter half the axes.
const LEAST: f64 = 0.5;
/// Parts of the rows that are surveyed side by side.
const SURVEY_PARTS: usize = 16;
/// Looks at the validation records while the step is set.
const STEP_LOOKS: usize = 6;
const STEP_TOLERANCE: f64 = 0.002;
/// Finest step there is, as a share of the largest deviation.
const STEP_LEAST: f64 = 1.0 / 4_096.0;
/// Records for each chart, most charts, and most bytes of their axes.
const RECORDS_PER_CHART: usize = 1_000;
const CHARTS_MAX: usize = 32;
const AXES_BYTES_MAX: usize = 4_500_000;
/// Without validation rows, one in so many training rows sets the step, where there are enough.
const SET_ASIDE: usize = 10;
const SET_ASIDE_ROWS_MIN: usize = 1_000;

/// The data a quantizer is fitted to.
pub(crate) struct Data<'a> {
    /// `[row, width]`, kept coordinates.
    pub(crate) training: &'a [f32],
    /// Rows that set the step; empty to set it on the training rows.
    pub(crate) validation: &'a [f32],
    pub(crate) width: usize,
    /// Values of a record, over which errors are averaged.
    pub(crate) values: usize,
    /// Squared length of what lies outside the kept coordinates, averaged over records.
    pub(crate) outside: f64,
    pub(crate) rng: &'a mut ChaCha8Rng,
    /// Told how far fitting is, in parts of how many; may end it early.
    pub(crate) watch: &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>,
}

/// The target of the step search.
#[derive(Debug, Clone, Copy)]
enum Aim {
    /// Mean bytes of a code.
    Bytes(f64),
    /// Mean squared length of what is lost of the kept coordinates.
    Distortion(f64),
}

impl Aim {
    fn of(self, seen: Seen) -> f64 {
        match self {
            Self::Bytes(_) => seen.bytes,
            Self::Distortion(_) => seen.distortion,
        }
    }

    fn target(self) -> f64 {
        match self {
            Self::Bytes(target) | Self::Distortion(target) => target,
        }
    }

    /// How the logarithm of what is aimed at moves with the logarithm of the step: a first guess, and its
    /// range.
    fn slope(self) -> (f64, std::ops::RangeInclusive<f64>) {
        match self {
            Self::Bytes(_) => (-0.8, -3.0..=-0.15),
            Self::Distortion(_) => (1.2, 0.2..=2.5),
        }
    }

    /// The next step by the secant through the last two looks.
    fn next(self, looks: &[(f64, f64)]) -> Option<f64> {
        let &(step, value) = looks.last()?;
        let (guess, range) = self.slope();
        let slope = match looks {
            [.., (a, x), (b, y)] if (a / b).ln().abs() > 1e-4 => {
                ((x / y).ln() / (a / b).ln()).clamp(*range.start(), *range.end())
            }
            _ => guess,
        };
        let change = (self.target() / value.max(1e-30)).ln() / slope;
        Some(step * change.clamp(-0.7, 0.7).exp())
    }
}

/// Averages over encoded records.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    bytes: f64,
    distortion: f64,
}

impl Entropy {
    /// Fits charts, tables and step.
    ///
    /// Cost: a few seconds of assignments and eigenvectors, then about eight encodings of all records.
    pub(in crate::codec::quantizer) fn fit(spec: EntropySpec, data: &mut Data<'_>) -> Result<Self> {
        let mut rows = data.training.len() / data.width;
        if data.validation.is_empty() && rows >= SET_ASIDE_ROWS_MIN {
            rows -= rows / SET_ASIDE;
            (data.training, data.validation) = data.training.split_at(rows * data.width);
        }
        let aim = aim(spec, data)?;
        let variances = variances(data.training, data.width);
        let largest = variances.iter().copied().fold(0.0, f64::max).sqrt();
        let noise = match aim {
            Aim::Bytes(bytes) => water_level(&variances, |level| rate(&variances, level) > 8.0 * bytes),
            Aim::Distortion(target) => water_level(&variances, |level| left(&variances, level) < target),
        };
        let least = largest * STEP_LEAST;
        // The error of a uniform quantizer is a twelfth of its step squared; charts make do with a finer one.
        let mut step = (0.7 * (12.0 * noise).sqrt()).max(least);
        let charts = spec.charts.unwrap_or_else(|| {
            let coded = variances.iter().filter(|&&variance| variance >= noise).count().max(1);
            let room = AXES_BYTES_MAX / (data.width * coded);
            (rows / RECORDS_PER_CHART).clamp(1, CHARTS_MAX).min(room.max(1))
        });
        let parts = CHART_ROUNDS + TABLE_PASSES + 2;
        let mut done = 0;
        let mut tick = |data: &mut Data<'_>| {
            done += 1;
            (data.watch)(done, parts).is_break()
        };

        let cost = CostTable::new();
        let leading = LEADING.min(data.width);
        let heads: Vec<f32> =
            data.training.chunks_exact(data.width).flat_map(|row| &row[..leading]).copied().collect();
        let mut assigned = cluster(&heads, leading, charts, K_MEANS_ROUNDS, 0.0, data.rng).nearest(&heads);
        let mut mixture = Mixture::fit(data.training, data.width, &assigned)?;
        for _ in 0..CHART_ROUNDS {
            if mixture.len() == 1 || tick(data) {
                break;
            }
            let seen;
            (assigned, seen) = assign(&mixture.charts(step, LEAST), data.training, step as f32, &cost);
            if let Aim::Bytes(bytes) = aim {
                let change = (8.0 * bytes / seen.max(1.0)).ln() / aim.slope().0;
                step = (step * change.clamp(-0.4, 0.4).exp()).max(least);
            }
            mixture = Mixture::fit(data.training, data.width, &assigned)?;
        }
        let chart_counts = mixture.rows();
        let mut order: Vec<usize> = (0..rows).collect();
        order.shuffle(data.rng);
        let sample: Vec<f32> = order
            .iter()
            .take(SAMPLE)
            .flat_map(|&row| &data.training[row * data.width..(row + 1) * data.width])
            .copied()
            .collect();

        let mut step = (step / COARSER).max(least);
        let limit = Limit::AtMost(code_limit(spec));
        let mut draft = Candidate { mixture, tables: Tables::laplacian(), chart_counts, limit, cost };
        for pass in 0..TABLE_PASSES {
            let entropy = draft.at(step)?;
            let all = pass + 2 >= TABLE_PASSES;
            let survey = Survey::of(&entropy, if all { data.training } else { &sample });
            draft.tables = survey.counts.tables(&draft.tables);
            draft.chart_counts = survey.charts;
            // The last pass only counts: its tables belong to the step it ran at.
            if pass + 2 < TABLE_PASSES {
                step = aim.next(&[(step, aim.of(survey.seen))]).unwrap_or(step).max(least);
            }
            if tick(data) {
                break;
            }
        }
        let judges = if data.validation.is_empty() { &sample } else { data.validation };
        let mut looks: Vec<(f64, f64)> = Vec::new();
        let mut best: Option<(f64, f64, Self)> = None;
        for _ in 0..STEP_LOOKS {
            let candidate = draft.at(step)?;
            let value = aim.of(Survey::of(&candidate, judges).seen);
            looks.push((step, value));
            let off = (value / aim.target()).ln().abs();
            if best.as_ref().is_none_or(|(least, ..)| off < *least) {
                best = Some((off, value, candidate));
            }
            let next = aim.next(&looks).unwrap_or(step).max(least);
            if off < STEP_TOLERANCE || (next / step - 1.0).abs() < 1e-5 {
                break;
            }
            step = next;
        }
        let Some((_, reached, mut entropy)) = best else {
            return Err(Error::argument("the training data", "records with finite lengths", "none"));
        };
        if let Rate::Error(asked) = spec.rate
            && reached > 1.05 * aim.target()
        {
            let reached = (reached + data.outside) / data.values as f64;
            return Err(Error::argument(
                "the mean squared error of a code",
                format!("at least {reached:.3e}, what the finest step reaches"),
                format!("{asked:e}"),
            ));
        }
        if let Rate::Fixed(bytes) = spec.rate {
            entropy.limit = Limit::Exactly(bytes);
            // Twice: how often each level is taken depends on what naming it costs.
            for _ in 0..2 {
                let survey = Survey::of(&entropy, &sample);
                entropy.level_symbols = symbols(&survey.levels, 0.5)?;
            }
        }
        tick(data);
        Ok(entropy)
    }
}

/// The target, in units of the kept coordinates.
fn aim(spec: EntropySpec, data: &Data<'_>) -> Result<Aim> {
    match spec.rate {
        Rate::Mean(bytes) => Ok(Aim::Bytes((bytes as f64 - f64::from(CODE_OVERHEAD_BITS) / 8.0).max(0.5))),
        Rate::Fixed(bytes) => Ok(Aim::Bytes(bytes as f64)),
        Rate::Error(error) => {
            let inside = error * data.values as f64 - data.outside;
            if inside <= 0.0 {
                let least = data.outside / data.values as f64;
                return Err(Error::argument(
                    "the mean squared error of a code",
                    format!("more than {least:.3e}, what lies outside the kept coordinates"),
                    format!("{error:e}"),
                ));
            }
            Ok(Aim::Distortion(inside))
        }
    }
}

/// Longest code of a spec.
fn code_limit(spec: EntropySpec) -> usize {
    let most = match spec.rate {
        Rate::Fixed(bytes) => bytes.saturating_mul(4),
        Rate::Mean(bytes) => bytes.saturating_mul(8).max(64),
        Rate::Error(_) => limits::CODE_LEN_MAX,
    };
    spec.max_bytes.unwrap_or(most).min(limits::CODE_LEN_MAX)
}

fn variances(rows: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0_f64; width];
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    let count = (rows.len() / width) as f64;
    sums.into_iter().map(|sum| sum / count).collect()
}

fn symbols(counts: &[f64], prior: f64) -> Result<Symbols> {
    let weights: Vec<f64> = counts.iter().map(|count| count + prior).collect();
    Symbols::new(frequencies(&weights))
        .ok_or_else(|| Error::argument("the charts of a quantizer", "few enough to be named", counts.len()))
}

/// All but the step.
struct Candidate {
    mixture: Mixture,
    tables: Tables,
    chart_counts: Vec<f64>,
    limit: Limit,
    cost: CostTable,
}

impl Candidate {
    fn at(&self, step: f64) -> Result<Entropy> {
        let mut levels = vec![0.0; LEVELS];
        levels[LEVEL_ZERO] = 1e5;
        Ok(Entropy {
            charts: self.mixture.charts(step, LEAST).stored(),
            tables: self.tables.clone(),
            step: step as f32,
            chart_symbols: symbols(&self.chart_counts, 1.0)?,
            level_symbols: symbols(&levels, 0.5)?,
            cost: self.cost.clone(),
            limit: self.limit,
        })
    }
}

/// Statistics of encoded records.
struct Survey {
    counts: Counts,
    charts: Vec<f64>,
    levels: Vec<f64>,
    seen: Seen,
}

impl Survey {
    fn new(entropy: &Entropy) -> Self {
        Self {
            counts: Counts::new(),
            charts: vec![0.0; entropy.charts()],
            levels: vec![0.0; LEVELS],
            seen: Seen::default(),
        }
    }

    fn of(entropy: &Entropy, rows: &[f32]) -> Self {
        let width = entropy.kept();
        // Parts are cut and summed in one order whatever the threads: the same training gives the same codec.
        let part = (rows.len() / width).div_ceil(SURVEY_PARTS).next_multiple_of(BLOCK);
        let parts: Vec<Self> = rows
            .par_chunks(part * width)
            .map(|part| {
                let mut survey = Self::new(entropy);
                part.chunks(BLOCK * width).for_each(|block| survey.add(entropy, block));
                survey
            })
            .collect();
        let mut survey = parts.into_iter().fold(Self::new(entropy), Self::merge);
        let count = (rows.len() / width) as f64;
        survey.seen.bytes /= count;
        survey.seen.distortion /= count;
        survey
    }

    fn add(&mut self, entropy: &Entropy, block: &[f32]) {
        let projected = entropy.charts.project(block);
        let mut search = Search::default();
        let mut decoded = vec![0.0; entropy.kept()];
        for (row, exact) in block.chunks_exact(entropy.kept()).enumerate() {
            let views = projected.views(row);
            let (coded, code) = entropy.encode(&views, &mut search);
            let chart = &entropy.charts.all[coded.chart];
            let step = entropy.step * quarter_octaves(coded.quarters);
            let values = views[coded.chart].coordinates.iter().map(|x| x / step);
            self.counts.add(&entropy.tables, chart, &coded, values);
            self.charts[coded.chart] += 1.0;
            self.levels[(coded.quarters.clamp(FINEST, COARSEST) - FINEST) as usize] += 1.0;
            self.seen.bytes += code.len() as f64;
            if entropy.decode(&code, &mut decoded).is_some() {
                let squared = exact.iter().zip(&decoded).map(|(x, y)| f64::from(x - y).powi(2));
                self.seen.distortion += squared.sum::<f64>();
            }
        }
    }

    fn merge(mut self, other: Self) -> Self {
        let tallies = self.charts.iter_mut().chain(&mut self.levels);
        tallies.zip(other.charts.iter().chain(&other.levels)).for_each(|(sum, other)| *sum += other);
        self.seen.bytes += other.seen.bytes;
        self.seen.distortion += other.seen.distortion;
        self.counts = self.counts.merge(&other.counts);
        self
    }
}
