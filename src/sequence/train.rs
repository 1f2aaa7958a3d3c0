//! Training a tree: level by level, each frozen before the next.

use super::samples::{JUDGES_MIN, Samples, Sequence, sequences, split, unfolded, witnesses};
use super::tree::{LEVELS_MAX, Level, SweeperTree, depth};
use crate::codec::flow::pairs::Expectation;
use crate::codec::{Codec, Device, FlowCodec, StageReport, error_and_norm};
use crate::error::{Error, Result};
use crate::progress::{Callback, Progress};
use crate::record::Records;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A share of the records' energy that is not worth restoring.
const NOTHING_LOST: f64 = 1e-5;
/// Fewest records or pairs that a network is worth teaching with.
const TRAINABLE_MIN: usize = 128;

/// How one level of a tree was made.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct LevelReport {
    /// The level; 0 is that of the leaves.
    pub level: usize,
    /// Records in one state of it, at most.
    pub records: u64,
    /// Values of such a state.
    pub state: usize,
    /// Pairs of states (at level 0 records) that its sweeper learned from, prefixes counted.
    pub pairs: usize,
    /// Mean squared error per element of all records, out of states of this level, before any restoring.
    pub error: f64,
    /// Stages tried beyond the linear optimum: the sweeper's predictor, the restorer.
    pub stages: Vec<StageReport>,
}

/// A trained tree and how it came about.
#[derive(Debug)]
pub struct TrainedTree {
    /// The tree.
    pub tree: SweeperTree,
    /// One entry a level, from the leaves up.
    pub levels: Vec<LevelReport>,
    /// Seconds it took.
    pub seconds: f64,
}

impl SweeperTree {
    /// Starts a training: see [`TreeTrainer`]. Each of `lengths` is how many of the records, one after the
    /// other, are a sequence.
    pub fn trainer<'a>(records: &'a Records, lengths: &'a [usize]) -> TreeTrainer<'a> {
        TreeTrainer::new(records, lengths)
    }
}

/// Builds a [`SweeperTree`] from sequences.
///
/// Each level begins at its linear optimum, the principal axes of two neighbouring states, which for
/// independent records are the axes of the records themselves. Then, behind a gate like a codec's, its sweeper
/// may get a predictor for what a merge drops, taught with full pairs and with those of random prefixes beside
/// what they make one expect; then the level is frozen, and a *restorer* is taught what records come out of its
/// states and what they were. Gates judge on whole sequences that nothing was fitted to: a tenth of each depth,
/// eight at least. Of fewer than 32 none is set aside, and their levels are fitted and not trained.
#[must_use = "a builder does nothing by itself"]
pub struct TreeTrainer<'a> {
    records: &'a Records,
    lengths: &'a [usize],
    state: usize,
    steps: usize,
    predictors: bool,
    seed: u64,
    device: Device,
    time_max: Option<Duration>,
    progress: Option<Callback<'a>>,
}

impl fmt::Debug for TreeTrainer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeTrainer")
            .field("records", &self.records.len())
            .field("sequences", &self.lengths.len())
            .field("state", &self.state)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl<'a> TreeTrainer<'a> {
    pub(super) fn new(records: &'a Records, lengths: &'a [usize]) -> Self {
        Self {
            records,
            lengths,
            state: 1_024,
            steps: 2_000,
            predictors: true,
            seed: 42,
            device: Device::default(),
            time_max: None,
            progress: None,
        }
    }

    /// Most values of a state, `d`; 1,024 by default.
    pub fn state(mut self, values: usize) -> Self {
        self.state = values;
        self
    }

    /// Most steps of each stage; 2,000 by default, 0 for none.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Whether sweepers may get predictors; they may by default.
    pub fn predictors(mut self, wanted: bool) -> Self {
        self.predictors = wanted;
        self
    }

    /// Fits every level and trains none: the linear optimum.
    pub fn untrained(self) -> Self {
        self.steps(0)
    }

    /// Seed of splits, weights, batches and prefixes.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Where to compute.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Most time for training all levels; after it levels are fitted and not trained. No limit by default.
    pub fn time_budget(mut self, time_max: Option<Duration>) -> Self {
        self.time_max = time_max;
        self
    }

    /// Called a few times a second with the steps of a stage, such as `level 3, predictor`.
    /// [`ControlFlow::Break`] ends the stage with the best so far.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Trains.
    ///
    /// Cost: one eigendecomposition of twice the state a level, and two stages of at most so many steps.
    /// Memory: some ten times the records.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) when the lengths are not those of the records or a sequence is empty or
    /// too long, [`TooLittleData`](Error::TooLittleData).
    pub fn train(mut self) -> Result<TrainedTree> {
        let began = Instant::now();
        let top = self.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut tree = SweeperTree { levels: Vec::new() };
        let mut reports = Vec::new();
        let mut whole = sequences(self.lengths, self.steps > 0, &mut rng);
        let mut prefixes: Vec<Sequence> =
            whole.iter().map(|whole| whole.prefix(rng.random_range(1..=whole.len))).collect();
        for level in 0..=top {
            // A sequence ends where it is one state.
            whole.retain(|sequence| depth(sequence.len as u64) >= level);
            prefixes.retain(|sequence| depth(sequence.len as u64) >= level);
            let judges = split(&whole).1;
            let samples = match tree.levels.last_mut() {
                None => Samples { pairs: self.gathered(&whole), fitted: 0, witnesses: witnesses(judges) },
                Some(below) => Samples::of(below, level, &whole, &prefixes, &mut rng)?,
            };
            let judged = judges.len() >= JUDGES_MIN;
            let pairs = samples.pairs.len() - samples.witnesses.len();
            let (sweeper, mut stages) = self.sweeper(level, samples, judged, began)?;
            let empty = match tree.levels.last() {
                // The mean of all records is what stands for none.
                None => vec![0.0; sweeper.config().kept as usize],
                Some(last) => {
                    let nothing = [last.empty.as_slice(), &last.empty].concat();
                    sweeper.coordinates(&Records::from_decoded(sweeper.shape(), nothing))?
                }
            };
            let next = Expectation { width: empty.len(), ..Expectation::default() };
            tree.levels.push(Level { sweeper, restorer: None, empty, next });
            for sequence in whole.iter_mut().chain(&mut prefixes) {
                let records = sequence.first..sequence.first + sequence.len;
                sequence.states = match level {
                    0 => tree.leaves(&self.records.slice(records))?,
                    _ => tree.merged(level, std::mem::take(&mut sequence.states))?,
                };
            }
            let (exact, given) = (self.gathered(&whole), unfolded(&tree, level, &whole));
            let (error, norm) = error_and_norm(exact.values(), given.values());
            let all = f64::from(norm).powi(2) / exact.values().len().max(1) as f64;
            if error > NOTHING_LOST * all
                && judged
                && let Some(stage) = self.restorer(&mut tree, level, (&exact, &given), &whole, began)?
            {
                stages.push(stage);
            }
            reports.push(LevelReport {
                level,
                records: 1 << level,
                state: tree.levels[level].empty.len(),
                pairs,
                error,
                stages,
            });
        }
        Ok(TrainedTree { tree, levels: reports, seconds: began.elapsed().as_secs_f64() })
    }

    /// The levels above the leaves.
    fn check(&self) -> Result<usize> {
        let total: usize = self.lengths.iter().sum();
        if total != self.records.len() {
            return Err(Error::argument(
                "the lengths of all sequences together",
                format!("{}, the number of records", self.records.len()),
                total,
            ));
        }
        if self.lengths.contains(&0) {
            return Err(Error::argument("the length of a sequence", "at least 1", 0));
        }
        if self.state == 0 {
            return Err(Error::argument("the values of a state", "at least 1", 0));
        }
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        if longest < 2 {
            return Err(Error::argument("the longest sequence", "at least 2 records", longest));
        }
        let top = depth(longest as u64);
        if top > LEVELS_MAX {
            return Err(Error::argument("the longest sequence", "at most 2^32 records", longest));
        }
        Ok(top)
    }

    fn sweeper(
        &mut self,
        level: usize,
        samples: Samples,
        judged: bool,
        began: Instant,
    ) -> Result<(FlowCodec, Vec<StageReport>)> {
        let (state, predictors) = (self.state, self.predictors);
        let Samples { pairs, fitted, witnesses } = samples;
        let trained = predictors && level > 0 && judged && pairs.len() >= TRAINABLE_MIN;
        let trainer = self.codec_trainer(level, &pairs, witnesses, began, trained);
        let trainer = if level == 0 { trainer.state(state) } else { trainer.sweeper(state, fitted) };
        let trained = trainer.train()?;
        Ok((trained.codec, trained.report.stages))
    }

    /// Teaches a level's restorer, where there are records to learn from.
    fn restorer(
        &mut self,
        tree: &mut SweeperTree,
        level: usize,
        (exact, given): (&Records, &Records),
        whole: &[Sequence],
        began: Instant,
    ) -> Result<Option<StageReport>> {
        let over = self.time_max.is_some_and(|time_max| began.elapsed() >= time_max);
        if self.steps == 0 || exact.len() < TRAINABLE_MIN || over {
            return Ok(None);
        }
        let trainer = self.codec_trainer(level, exact, witnesses(split(whole).1), began, true);
        let (restorer, stage) = trainer.restorer(given)?;
        tree.levels[level].restorer = restorer;
        Ok(Some(stage))
    }

    fn codec_trainer<'b>(
        &'b mut self,
        level: usize,
        records: &'b Records,
        held_out: Vec<usize>,
        began: Instant,
        trained: bool,
    ) -> crate::codec::Trainer<'b> {
        let left = self.time_max.map(|time_max| time_max.saturating_sub(began.elapsed()));
        let mut trainer = FlowCodec::trainer(records)
            .seed(self.seed.wrapping_add(level as u64))
            .device(self.device)
            .steps(self.steps.max(1))
            .held_out(held_out)
            .time_budget(left);
        if self.steps == 0 || !trained || left.is_some_and(|left| left.is_zero()) {
            trainer = trainer.untrained();
        }
        match &mut self.progress {
            Some(callback) => {
                trainer.progress(move |seen| callback(&seen.named(&format!("level {level}, {}", seen.stage))))
            }
            None => trainer,
        }
    }

    /// The records of sequences, one after the other.
    fn gathered(&self, sequences: &[Sequence]) -> Records {
        let rows = sequences.iter().flat_map(|sequence| sequence.first..sequence.first + sequence.len);
        let values = rows.flat_map(|row| self.records.row(row)).copied().collect();
        Records::from_decoded(self.records.shape(), values)
    }
}
