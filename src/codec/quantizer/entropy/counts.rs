//! Statistics of encoding, and the tables made from them.

use super::charts::Chart;
use super::context::{CLASSES, Context, EXPECTED_MAX, UNIT};
use super::quantizer::Coded;
use super::states::{next_state, point, quantizer_of};
use super::tables::{BUCKETS, Model, Tables, escape_order, half_of};
use crate::codec::quantizer::range_coder::{PRECISION, frequencies};

/// Weight of the older table beside what was counted, and of the pooled classes beside a class of its own.
const OLDER: f64 = 2.0;
const POOLED: f64 = 16.0;

/// Sums over encoded records.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    /// By bucket, class and quantizer, then symbol.
    symbols: Vec<Vec<f64>>,
    /// By bucket: magnitudes and how many.
    magnitudes: Vec<Tally>,
    /// By bucket and quantizer, then magnitude of the index: offsets from the point, outward.
    offsets: Vec<Vec<Tally>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    sum: f64,
    count: f64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

impl Counts {
    pub(super) fn new() -> Self {
        let halves = |tables: usize| (0..BUCKETS * tables).map(move |at| half_of(at / tables) as usize);
        Self {
            symbols: halves(CLASSES * 2).map(|half| vec![0.0; 2 * half + 2]).collect(),
            magnitudes: vec![Tally::default(); BUCKETS],
            offsets: halves(2).map(|half| vec![Tally::default(); half + 1]).collect(),
        }
    }

    /// Counts a record's indices; `values` are its coordinates in steps.
    pub(super) fn add(
        &mut self,
        tables: &Tables,
        chart: &Chart,
        coded: &Coded,
        values: impl Iterator<Item = f32>,
    ) {
        let (mut state, mut context) = (0, Context::start());
        let buckets = chart.buckets_at(coded.quarters);
        for ((&index, bucket), value) in coded.indices.iter().zip(buckets).zip(values) {
            let bucket = usize::from(bucket);
            let quantizer = quantizer_of(state);
            let half = half_of(bucket);
            let symbols = &mut self.symbols[(bucket * CLASSES + context.class()) * 2 + quantizer];
            let escape = symbols.len() - 1;
            symbols[if index.abs() <= half { (index + half) as usize } else { escape }] += 1.0;
            let at = point(quantizer, index);
            self.magnitudes[bucket].add(Tally { sum: f64::from(at.unsigned_abs()), count: 1.0 });
            if let Some(offset) = self.offsets[bucket * 2 + quantizer].get_mut(index.unsigned_abs() as usize)
                && index != 0
            {
                let outward = f64::from(value - at as f32) * f64::from(index.signum());
                offset.add(Tally { sum: outward.clamp(-1.0, 1.0), count: 1.0 });
            }
            context = context.after(at.unsigned_abs(), tables.expected[bucket]);
            state = next_state(state, index);
        }
    }

    pub(super) fn merge(mut self, other: &Self) -> Self {
        let symbols = self.symbols.iter_mut().flatten().zip(other.symbols.iter().flatten());
        symbols.for_each(|(sum, other)| *sum += other);
        let tallies = self.magnitudes.iter_mut().chain(self.offsets.iter_mut().flatten());
        let others = other.magnitudes.iter().chain(other.offsets.iter().flatten());
        tallies.zip(others).for_each(|(tally, &other)| tally.add(other));
        self
    }

    /// Tables of what was counted. Where little was, the classes together speak, and then the older tables.
    pub(super) fn tables(&self, older: &Tables) -> Tables {
        let mut models = Vec::with_capacity(self.symbols.len());
        for bucket in 0..BUCKETS {
            let counted = |class: usize, quantizer: usize| {
                mirrored(&self.symbols[(bucket * CLASSES + class) * 2 + quantizer])
            };
            let pooled = [0, 1].map(|quantizer| {
                let mut pooled = vec![0.0; 2 * half_of(bucket) as usize + 2];
                for class in 0..CLASSES {
                    let older = older.model(bucket, class, quantizer).frequencies();
                    let one = f64::from(1_u32 << PRECISION);
                    for ((sum, count), &older) in pooled.iter_mut().zip(counted(class, quantizer)).zip(older)
                    {
                        *sum += count + OLDER * f64::from(older) / one;
                    }
                }
                pooled
            });
            for class in 0..CLASSES {
                for (quantizer, pooled) in pooled.iter().enumerate() {
                    let total: f64 = pooled.iter().sum();
                    let weights: Vec<f64> = counted(class, quantizer)
                        .iter()
                        .zip(pooled)
                        .map(|(count, pooled)| count + POOLED * pooled / total)
                        .collect();
                    models.extend(Model::new(frequencies(&weights), escape_order(bucket)));
                }
            }
        }
        let expected = self.magnitudes.iter().zip(&older.expected).map(|(tally, &older)| {
            let prior = 8.0 * f64::from(older) / f64::from(UNIT);
            let mean = (tally.sum + prior) / (tally.count + 8.0);
            ((mean * f64::from(UNIT)) as u32).clamp(1, EXPECTED_MAX)
        });
        let centroid = |tally: &Tally| (tally.sum / (tally.count + 16.0)) as f32;
        Tables {
            models,
            expected: expected.collect(),
            centroids: self.offsets.iter().map(|cells| cells.iter().map(centroid).collect()).collect(),
        }
    }
}

/// Densities are symmetric about a chart's mean but for accidents, so both signs share their counts.
fn mirrored(counts: &[f64]) -> Vec<f64> {
    let signed = counts.len() - 1;
    let mut mirrored: Vec<f64> = (0..signed).map(|i| 0.5 * (counts[i] + counts[signed - 1 - i])).collect();
    mirrored.push(counts[signed]);
    mirrored
}
