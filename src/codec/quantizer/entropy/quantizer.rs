//! The entropy-coded quantizer: encode and decode.

use super::charts::{BLOCK, Charts, View};
use super::context::Context;
use super::cost::{COARSER, CostTable};
use super::states::{INDEX_MAX, next_state, point, quantizer_of};
use super::tables::Tables;
use super::trellis::Search;
use crate::codec::quantizer::range_coder::{Categorical, Reader, Writer, bits_of, categorical};
use crate::codec::quantizer::spec::counted_bytes;
use rayon::prelude::*;

/// Levels a record may be coded at, a quarter octave of step each.
pub(super) const LEVELS: usize = 64;
/// The level of a record at the codec's own step.
pub(super) const LEVEL_ZERO: usize = 20;
/// Quarter octaves by which a step can be finer and coarser.
pub(super) const FINEST: i32 = -(LEVEL_ZERO as i32);
pub(super) const COARSEST: i32 = (LEVELS - LEVEL_ZERO) as i32 - 1;
/// Charts whose trellis is searched: the cheapest by the rough cost.
pub(super) const TRIED: usize = 2;
/// Steps squared that a bit is worth. Measured on images and text at 16 to 64 bytes: flat between 0.2 and 0.3.
pub(super) const LAMBDA: f32 = 0.25;
/// Worths that are tried beside it, because bits come in bytes in the end.
pub(super) const TRADE_OFFS: [f32; 3] = [1.0, 0.75, 1.35];

/// A fitted entropy-coded quantizer.
#[derive(Debug, Clone)]
pub struct Entropy {
    pub(super) charts: Charts,
    pub(super) tables: Tables,
    pub(super) step: f32,
    pub(super) chart_symbols: Symbols,
    pub(super) level_symbols: Symbols,
    pub(super) cost: CostTable,
    pub(super) limit: Limit,
}

/// How long a code may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// At most this many bytes; a longer one is coded at a coarser step.
    AtMost(usize),
    /// Exactly this many; each record at the finest step that fits.
    Exactly(usize),
}

/// A static distribution over a few symbols.
#[derive(Debug, Clone)]
pub(super) struct Symbols {
    pub(super) frequencies: Vec<u16>,
    pub(super) categorical: Categorical,
}

impl Symbols {
    pub(super) fn new(frequencies: Vec<u16>) -> Option<Self> {
        let categorical = categorical(&frequencies)?;
        Some(Self { frequencies, categorical })
    }

    pub(super) fn bits(&self, symbol: usize) -> f32 {
        bits_of(self.frequencies[symbol])
    }
}

/// What the encoder decided for one record.
#[derive(Debug, Clone)]
pub(super) struct Coded {
    pub(super) quarters: i32,
    pub(super) chart: usize,
    pub(super) indices: Vec<i32>,
    /// Squared error, in the codec's steps squared.
    pub(super) distortion: f32,
    /// The same with the weighted bits.
    pub(super) cost: f32,
}

impl Entropy {
    pub(crate) fn kept(&self) -> usize {
        self.charts.width
    }

    pub(crate) fn code_len_max(&self) -> usize {
        match self.limit {
            Limit::AtMost(bytes) | Limit::Exactly(bytes) => bytes,
        }
    }

    pub(crate) fn is_variable(&self) -> bool {
        matches!(self.limit, Limit::AtMost(_))
    }

    /// How many charts there are.
    pub fn charts(&self) -> usize {
        self.charts.all.len()
    }

    /// Encodes rows of kept coordinates, on all cores.
    pub(crate) fn encode_all(&self, rows: &[f32]) -> Vec<Vec<u8>> {
        rows.par_chunks(BLOCK * self.kept())
            .flat_map_iter(|block| {
                let projected = self.charts.project(block);
                let mut search = Search::default();
                (0..projected.rows())
                    .map(|row| self.encode(&projected.views(row), &mut search).1)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    pub(super) fn encode(&self, views: &[View<'_>], search: &mut Search) -> (Coded, Vec<u8>) {
        match self.limit {
            Limit::AtMost(most) => {
                let found = TRADE_OFFS
                    .map(|worth| self.coded(views, 0, worth * LAMBDA, search))
                    .into_iter()
                    .min_by(|a, b| self.total(a).total_cmp(&self.total(b)));
                match found {
                    Some(found) if found.1.len() <= most => found,
                    _ => self.finest_within(views, 0, most, search),
                }
            }
            Limit::Exactly(bytes) => {
                let (coded, mut code) = self.finest_within(views, FINEST, bytes, search);
                code.resize(bytes, 0);
                (coded, code)
            }
        }
    }

    /// Final cost of a record: its error, and whole bytes.
    pub(super) fn total(&self, (coded, code): &(Coded, Vec<u8>)) -> f32 {
        coded.distortion + LAMBDA * 8.0 * counted_bytes(code.len()) as f32
    }

    /// The finest step from `finest` on whose code fits. Lengths fall with the step but for a byte here and
    /// there, so bisection finds the end of the range or its neighbour.
    pub(super) fn finest_within(
        &self,
        views: &[View<'_>],
        finest: i32,
        bytes: usize,
        search: &mut Search,
    ) -> (Coded, Vec<u8>) {
        let (mut low, mut high) = (finest, COARSEST);
        let mut best = None;
        while low <= high {
            let middle = (low + high).div_euclid(2);
            let found = self.coded(views, middle, LAMBDA, search);
            if found.1.len() <= bytes {
                best = Some(found);
                high = middle - 1;
            } else {
                low = middle + 1;
            }
        }
        best.unwrap_or_else(|| {
            // Not even the coarsest step fits: the chart's mean it is.
            let chart = self.choose(views, COARSEST, LAMBDA, search).chart;
            let indices = vec![0; self.charts.all[chart].buckets.len()];
            let coded = Coded { quarters: COARSEST, chart, indices, distortion: 0.0, cost: 0.0 };
            let mut code = self.write(&coded);
            code.truncate(bytes);
            (coded, code)
        })
    }

    pub(super) fn coded(
        &self,
        views: &[View<'_>],
        quarters: i32,
        lambda: f32,
        search: &mut Search,
    ) -> (Coded, Vec<u8>) {
        let coded = self.choose(views, quarters, lambda, search);
        let code = self.write(&coded);
        (coded, code)
    }

    /// The cheapest chart and indices at a step.
    pub(super) fn choose(
        &self,
        views: &[View<'_>],
        quarters: i32,
        lambda: f32,
        search: &mut Search,
    ) -> Coded {
        let step = self.step * quarter_octaves(quarters);
        let coarse = step * COARSER as f32;
        let mut order: Vec<(f32, usize)> = views
            .iter()
            .zip(&self.charts.all)
            .enumerate()
            .map(|(chart, (view, frame))| {
                let buckets = frame.buckets_at(quarters);
                (self.cost.price(view, buckets, coarse, self.chart_symbols.bits(chart)).total, chart)
            })
            .collect();
        let tried = TRIED.min(order.len());
        if tried < order.len() {
            order.select_nth_unstable_by(tried - 1, |a, b| a.0.total_cmp(&b.0));
        }
        let mut best =
            Coded { quarters, chart: 0, indices: Vec::new(), distortion: f32::INFINITY, cost: f32::INFINITY };
        for &(_, chart) in &order[..tried] {
            let view = &views[chart];
            let coordinates: Vec<(u8, f32)> = self.charts.all[chart]
                .buckets_at(quarters)
                .zip(view.coordinates.iter().map(|x| x / step))
                .collect();
            let path = search.run(&self.tables, &coordinates, lambda);
            let relative = (step / self.step).powi(2);
            let distortion = (path.distortion + view.left / (step * step)) * relative;
            let cost = distortion + lambda * relative * (path.bits + self.chart_symbols.bits(chart));
            if cost < best.cost || best.indices.is_empty() {
                best = Coded { quarters, chart, indices: path.indices, distortion, cost };
            }
        }
        best
    }

    pub(super) fn write(&self, coded: &Coded) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.put((coded.quarters - FINEST) as usize, self.level_symbols.categorical.as_view());
        writer.put(coded.chart, self.chart_symbols.categorical.as_view());
        let (mut state, mut context) = (0, Context::start());
        let buckets = self.charts.all[coded.chart].buckets_at(coded.quarters);
        for (&index, bucket) in coded.indices.iter().zip(buckets) {
            let bucket = usize::from(bucket);
            let quantizer = quantizer_of(state);
            let model = self.tables.model(bucket, context.class(), quantizer);
            let half = model.half();
            if index.abs() <= half {
                writer.put((index + half) as usize, model.categorical().as_view());
            } else {
                writer.put(2 * half as usize + 1, model.categorical().as_view());
                writer.put_bits(u32::from(index < 0), 1);
                writer.put_exp_golomb(index.unsigned_abs() - half as u32 - 1, model.escape_order());
            }
            context = context.after(point(quantizer, index).unsigned_abs(), self.tables.expected[bucket]);
            state = next_state(state, index);
        }
        writer.finish()
    }

    /// Decodes a code into kept coordinates; `None` where no encoder can have been.
    ///
    /// Symbols come from integers alone, and the sums run in one order: the result is the same on every
    /// machine.
    pub(crate) fn decode(&self, code: &[u8], kept: &mut [f32]) -> Option<()> {
        let mut reader = Reader::new(code);
        let quarters = reader.take(self.level_symbols.categorical.as_view())? as i32 + FINEST;
        let chart = self.charts.all.get(reader.take(self.chart_symbols.categorical.as_view())?)?;
        let step = self.step * quarter_octaves(quarters);
        kept.copy_from_slice(&chart.mean);
        let (mut state, mut context) = (0, Context::start());
        for (bucket, axis) in chart.buckets_at(quarters).zip(chart.axes.chunks_exact(self.kept())) {
            let bucket = usize::from(bucket);
            let quantizer = quantizer_of(state);
            let model = self.tables.model(bucket, context.class(), quantizer);
            let half = model.half();
            let symbol = reader.take(model.categorical().as_view())? as i32;
            let index = if symbol <= 2 * half {
                symbol - half
            } else {
                let negative = reader.take_bits(1)? == 1;
                let beyond = reader.take_exp_golomb(model.escape_order())?;
                let magnitude = half + 1 + i32::try_from(beyond).ok().filter(|&b| b <= 2 * INDEX_MAX)?;
                if negative { -magnitude } else { magnitude }
            };
            if index != 0 {
                let value = self.tables.reconstruct(bucket, quantizer, index) * step;
                kept.iter_mut().zip(axis).for_each(|(kept, axis)| *kept += value * axis);
            }
            context = context.after(point(quantizer, index).unsigned_abs(), self.tables.expected[bucket]);
            state = next_state(state, index);
        }
        // Impossible scales and centroids pass one by one and overflow together: such a code means nothing.
        kept.iter().all(|value| value.is_finite()).then_some(())
    }
}

/// Two to the power of quarters of an octave, from constants: `exp2` may differ between machines in its last
/// bit.
pub(super) fn quarter_octaves(quarters: i32) -> f32 {
    const QUARTERS: [f32; 4] = [1.0, 1.189_207_1, std::f32::consts::SQRT_2, 1.681_792_8];
    QUARTERS[quarters.rem_euclid(4) as usize] * 2.0_f32.powi(quarters.div_euclid(4))
}
