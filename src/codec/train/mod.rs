//! Training: from records to a codec, and a report of what was tried and kept.
//!
//! Order is everything here. The quantizer is fitted first and then stays; the predictor learns on what the
//! quantizer gives back, which never diverged; the couplings come last, at a small learning rate. Every stage is a
//! candidate beside "leave it out", and is kept only if a validation split *taken from the training records*
//! improves, at the precision that is stored, by more than two standard errors of the paired difference.

mod fit;
mod gate;
mod ordered;
mod paper;

use super::{Device, FlowCodec, QuantizerSpec};
use crate::error::{Error, Result};
use crate::record::Records;
use apcm_format::{Preset, WeightPrecision, limits};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Fewest records worth a validation split; below it a codec is fitted and not trained.
const TRAINABLE_MIN: usize = 128;
/// Fewest records of the validation split: two standard errors of fewer say little.
const VALIDATION_MIN: usize = 32;
/// Most records of the validation split.
const VALIDATION_MAX: usize = 4_096;

/// What ended a stage of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedBy {
    /// The step budget.
    Steps,
    /// The time budget.
    Time,
    /// No improvement on the validation split for a while.
    EarlyStop,
    /// The progress callback.
    Cancelled,
    /// A loss that was no longer finite; the best weights before it were kept.
    Diverged,
}

/// One point of a loss curve.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct LossPoint {
    /// Step; 0 is before the first.
    pub step: usize,
    /// Loss of the batches since the point before, averaged. In the ordered preset 1 is the error of the code alone;
    /// in the paper preset it is the paper's joint loss.
    pub training: f64,
    /// Mean squared error per element on the validation records that choose the weights, where it was measured; of
    /// the part that the latent carries, 98 % of the variance.
    pub validation: Option<f64>,
}

/// How one stage of training went.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StageReport {
    /// `predictor`, `couplings` or `paper`.
    pub name: &'static str,
    /// Steps taken.
    pub steps: usize,
    /// Why it ended.
    pub ended_by: EndedBy,
    /// The loss curve.
    pub history: Vec<LossPoint>,
    /// Mean squared error per element on the validation split without this stage, at stored precision; none where
    /// there is no codec without it.
    pub error_before: Option<f64>,
    /// The same with this stage; none without a validation split.
    pub error_after: Option<f64>,
    /// Standard error of the paired difference.
    pub standard_error: Option<f64>,
    /// Whether the stage is part of the codec.
    pub accepted: bool,
}

/// What a training did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TrainReport {
    /// Records the codec was fitted to.
    pub training_records: usize,
    /// Records that decided what was kept.
    pub validation_records: usize,
    /// The stages that were tried.
    pub stages: Vec<StageReport>,
    /// Seconds it took.
    pub seconds: f64,
}

/// A trained codec and how it came about.
#[derive(Debug)]
pub struct Trained {
    /// The codec, as it will be stored.
    pub codec: FlowCodec,
    /// What was tried and kept.
    pub report: TrainReport,
}

/// What a progress callback sees.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The stage's name, as in [`StageReport`].
    pub stage: &'a str,
    /// Steps taken in this stage.
    pub step: usize,
    /// Steps this stage may take.
    pub steps_max: usize,
    /// The last point of the loss curve.
    pub loss: Option<LossPoint>,
    /// Time since training began.
    pub elapsed: Duration,
}

type Callback<'a> = Box<dyn FnMut(&Progress<'_>) -> ControlFlow<()> + 'a>;

/// Builds a [`FlowCodec`] from records.
///
/// ```no_run
/// # fn main() -> apcm::Result<()> {
/// # let records = apcm::Records::with_dims(&[784])?;
/// let trained = apcm::FlowCodec::trainer(&records).bytes_per_record(64).train()?;
/// println!("{} records, {:.0} s", trained.report.training_records, trained.report.seconds);
/// # Ok(()) }
/// ```
pub struct Trainer<'a> {
    records: &'a Records,
    options: Options,
    progress: Option<Callback<'a>>,
}

#[derive(Debug, Clone)]
struct Options {
    preset: Preset,
    quantizer: QuantizerSpec,
    device: Device,
    seed: u64,
    validation: f64,
    steps_max: usize,
    time_max: Option<Duration>,
    batch: Option<usize>,
    learning_rate: Option<f64>,
    predictor: Option<(usize, usize)>,
    couplings: Option<usize>,
    coupling_hidden: usize,
    precision: Option<WeightPrecision>,
    trained: bool,
}

impl fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer")
            .field("records", &self.records.len())
            .field("options", &self.options)
            .finish()
    }
}

impl<'a> Trainer<'a> {
    pub(crate) fn new(records: &'a Records) -> Self {
        let options = Options {
            preset: Preset::Ordered,
            quantizer: QuantizerSpec::Allocated(64),
            device: Device::default(),
            seed: 42,
            validation: 0.1,
            steps_max: 2_000,
            time_max: Some(Duration::from_secs(300)),
            batch: None,
            learning_rate: None,
            predictor: None,
            couplings: None,
            coupling_hidden: 256,
            precision: None,
            trained: true,
        };
        Self { records, options, progress: None }
    }

    /// Codes of this many bytes, shared out where the variance is. The default is 64. Records that differ in fewer
    /// directions than there are bytes get shorter codes.
    pub fn bytes_per_record(self, bytes: usize) -> Self {
        self.quantizer(QuantizerSpec::Allocated(bytes))
    }

    /// Which quantizer, and its size.
    pub fn quantizer(mut self, quantizer: QuantizerSpec) -> Self {
        self.options.quantizer = quantizer;
        self
    }

    /// Which preset; [`Preset::Ordered`] by default.
    pub fn preset(mut self, preset: Preset) -> Self {
        self.options.preset = preset;
        self
    }

    /// Where to compute.
    pub fn device(mut self, device: Device) -> Self {
        self.options.device = device;
        self
    }

    /// Seed of the split, the weights and the batches. The same seed, backend, machine and thread count give the
    /// same codec, unless the time budget ended the training.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// Share of the records that decides what is kept; 0.1 by default, 32 to 4,096 records. Half of them choose the
    /// weights, the other half judges the stage. With 0, or fewer than 128 records, the ordered preset is fitted and
    /// not trained.
    pub fn validation(mut self, share: f64) -> Self {
        self.options.validation = share;
        self
    }

    /// Most steps of each stage; 2,000 by default.
    pub fn steps(mut self, steps_max: usize) -> Self {
        self.options.steps_max = steps_max;
        self
    }

    /// Most time for all stages together; five minutes by default, `None` for no limit.
    pub fn time_budget(mut self, time_max: Option<Duration>) -> Self {
        self.options.time_max = time_max;
        self
    }

    /// Records a step learns from; 256 by default, 32 in the paper preset.
    pub fn batch(mut self, records: usize) -> Self {
        self.options.batch = Some(records);
        self
    }

    /// Highest learning rate; 3e-3 by default, 1e-3 in the paper preset.
    pub fn learning_rate(mut self, rate: f64) -> Self {
        self.options.learning_rate = Some(rate);
        self
    }

    /// Width and residual blocks of the predictor; by default as large as the data can carry.
    pub fn predictor(mut self, hidden: usize, blocks: usize) -> Self {
        self.options.predictor = Some((hidden, blocks));
        self
    }

    /// How many couplings; 6 in the paper preset, none in the ordered one, where they are tried last and only if
    /// asked for, because they have not paid for their time so far.
    pub fn couplings(mut self, layers: usize) -> Self {
        self.options.couplings = Some(layers);
        self
    }

    /// Width of the couplings' sub-networks; 256 by default.
    pub fn coupling_hidden(mut self, width: usize) -> Self {
        self.options.coupling_hidden = width;
        self
    }

    /// How weights are stored; half precision by default, single in the paper preset.
    pub fn precision(mut self, precision: WeightPrecision) -> Self {
        self.options.precision = Some(precision);
        self
    }

    /// Fits rotation and quantizer to all records and trains nothing.
    pub fn untrained(mut self) -> Self {
        self.options.trained = false;
        self
    }

    /// Is called a few times a second; returning [`ControlFlow::Break`] ends the training with the best codec so far.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Trains.
    ///
    /// Cost: one eigendecomposition, then at most the step and time budgets. Memory: three to six times the records.
    ///
    /// # Errors
    /// [`TooLittleData`](Error::TooLittleData), [`Argument`](Error::Argument) for sizes that do not fit the records,
    /// [`Device`](Error::Device).
    pub fn train(self) -> Result<Trained> {
        let Self { records, options, progress } = self;
        options.check(records)?;
        let mut session = Session {
            records,
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            clock: Clock { began: Instant::now(), time_max: options.time_max },
            options,
            progress,
        };
        match session.options.preset {
            Preset::Ordered => ordered::train(&mut session),
            Preset::Paper => paper::train(&mut session),
        }
    }
}

impl Options {
    fn check(&self, records: &Records) -> Result<()> {
        let values = records.shape().values();
        if self.quantizer.code_len() == 0 {
            return Err(Error::argument("the bytes of a code", "at least 1", 0));
        }
        if let Some(asked) = self.quantizer.values().filter(|&asked| asked > values) {
            return Err(Error::argument(
                "the number of code values",
                format!("at most {values}, the values of a record"),
                asked,
            ));
        }
        if let QuantizerSpec::Allocated(bytes) = self.quantizer
            && bytes > values
        {
            return Err(Error::argument(
                "the bytes of a code",
                format!("1 to {values}, a byte for each value of a record"),
                bytes,
            ));
        }
        // One more than the values asked for: the mean takes one degree of freedom.
        let needed = self.quantizer.values().unwrap_or(1) + 1;
        if records.len() < needed {
            return Err(Error::TooLittleData {
                records: records.len(),
                needed,
                purpose: format!("a code of {} bytes", self.quantizer.code_len()),
            });
        }
        if !(0.0..=0.5).contains(&self.validation) {
            return Err(Error::argument("the validation share", "between 0 and 0.5", self.validation));
        }
        let layers = limits::LAYERS_MAX as usize;
        if let Some(asked) = self.couplings.filter(|&asked| asked > layers) {
            return Err(Error::argument("the couplings", format!("at most {layers}"), asked));
        }
        let widest = limits::WIDTH_MAX as usize;
        if self.coupling_hidden == 0 || self.coupling_hidden > widest {
            return Err(Error::argument(
                "the width of a coupling",
                format!("1 to {widest}"),
                self.coupling_hidden,
            ));
        }
        if let Some((hidden, blocks)) = self.predictor.filter(|&(h, b)| h > widest || b > layers) {
            return Err(Error::argument(
                "the predictor",
                format!("at most {widest} wide and {layers} blocks deep"),
                format!("{hidden} and {blocks}"),
            ));
        }
        if self.batch == Some(0) || self.steps_max == 0 {
            return Err(Error::argument("the batch and the steps", "at least 1", 0));
        }
        Ok(())
    }
}

impl Options {
    /// Rows of the validation split among this many records.
    fn validation_records(&self, records: usize) -> usize {
        if !self.trained || records < TRAINABLE_MIN || self.validation == 0.0 {
            return 0;
        }
        ((records as f64 * self.validation) as usize).clamp(VALIDATION_MIN, VALIDATION_MAX)
    }

    /// Fewest records that leave more than `asked` of them to train on.
    fn records_needed(&self, asked: usize) -> usize {
        let enough = |&records: &usize| records - self.validation_records(records) > asked;
        (asked + 1..).find(enough).unwrap_or(usize::MAX)
    }
}

/// One training under way.
struct Session<'a> {
    records: &'a Records,
    options: Options,
    progress: Option<Callback<'a>>,
    rng: ChaCha8Rng,
    clock: Clock,
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    began: Instant,
    time_max: Option<Duration>,
}

impl Clock {
    fn is_over(&self) -> bool {
        self.time_max.is_some_and(|time_max| self.began.elapsed() >= time_max)
    }
}

/// Which records train and which decide.
struct Split {
    training: Vec<usize>,
    validation: Vec<usize>,
}

impl Split {
    /// The validation rows that choose the best weights and end the training.
    fn choosing(&self) -> &[usize] {
        &self.validation[..self.validation.len() / 2]
    }

    /// The validation rows that decide whether a stage is kept.
    fn judging(&self) -> &[usize] {
        &self.validation[self.validation.len() / 2..]
    }
}

impl Session<'_> {
    fn split(&mut self) -> Split {
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        order.shuffle(&mut self.rng);
        let validation = self.options.validation_records(order.len());
        let training = order.split_off(validation);
        Split { training, validation: order }
    }

    fn gather(&self, rows: &[usize]) -> Records {
        let values = rows.iter().flat_map(|&row| self.records.row(row)).copied().collect();
        Records::from_decoded(self.records.shape(), values)
    }

    fn report(&self, split: &Split, stages: Vec<StageReport>) -> TrainReport {
        TrainReport {
            training_records: split.training.len(),
            validation_records: split.validation.len(),
            stages,
            seconds: self.clock.began.elapsed().as_secs_f64(),
        }
    }
}
