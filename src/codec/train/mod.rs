//! Training: from records to a codec, and a report of what was tried and kept.
//!
//! Order is everything here. The quantizer is fitted first and then stays; the predictor learns on what the
//! quantizer gives back, which never diverged; the couplings come last, at a small learning rate. Every stage is a
//! candidate beside "leave it out", and is kept only if a validation split *taken from the training records*
//! improves, at the precision that is stored, by more than two standard errors of the paired difference.

mod autoencoder;
mod fit;
mod foundation;
mod gate;
mod ordered;
mod paper;
pub(crate) mod recurrence;

use super::{Device, EntropySpec, FlowCodec, QuantizerSpec, Rate};
use crate::error::{Error, Result};
use crate::record::Records;
pub use autoencoder::Autoencoder;

use apcm_format::{Preset, WeightPrecision, limits};
use foundation::Choice;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Fewest records worth a validation split; below it a codec is fitted and not trained.
const TRAINABLE_MIN: usize = 128;
/// Fewest records of the validation split: two standard errors of fewer say little.
const VALIDATION_MIN: usize = 32;
/// Most records of the validation split.
const VALIDATION_MAX: usize = 4_096;
/// Fewest records that an error is measured on where nothing is trained; half of those there are, if they are fewer.
const MEASURED_MIN: usize = 8;

/// Fewest groups of records that are held out, so that two can choose and two can judge.
const GROUPS_MIN: usize = 4;

/// Most charts that can be asked for.
const CHARTS_MAX: usize = 1_024;

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

/// How one quantizer did before any network was trained.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct QuantizerChoice {
    /// Its name, as in [`CodecInfo`](crate::CodecInfo).
    pub quantizer: &'static str,
    /// How many charts it has, if it has charts.
    pub charts: Option<usize>,
    /// Mean bytes of a code on the validation records, with what a code of varying length needs beside it.
    pub bytes: Option<f64>,
    /// Mean squared error per element on the validation records that choose; none without such records.
    pub error: Option<f64>,
    /// Whether the codec has it.
    pub chosen: bool,
}

/// What a training did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TrainReport {
    /// Records the codec was fitted to.
    pub training_records: usize,
    /// Records that decided what was kept.
    pub validation_records: usize,
    /// The quantizers that were tried; the one of least error on the validation records was chosen.
    pub quantizers: Vec<QuantizerChoice>,
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

pub(crate) type Callback<'a> = Box<dyn FnMut(&Progress<'_>) -> ControlFlow<()> + 'a>;

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
    quantizer: Choice,
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
    /// The records are pairs of states, the first so many of them of subtrees without gaps.
    pairs: Option<usize>,
    /// The groups, such as sequences, that the last records belong to, one after the other: those records are the validation
    /// split, and no stage is fitted to them.
    held_out: Option<Vec<usize>>,
    /// What each record belongs to: records of one group are held out together, or not at all.
    groups: Option<Vec<usize>>,
    /// Bound of the couplings' scales in the paper preset, which has none.
    scale_clamp: Option<f32>,
    /// Fewer values than were asked for will do where the records differ in fewer directions.
    within_rank: bool,
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
            quantizer: Choice::Auto(64),
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
            pairs: None,
            held_out: None,
            groups: None,
            scale_clamp: None,
            within_rank: false,
        };
        Self { records, options, progress: None }
    }

    /// Codes of this many bytes on average, by whichever quantizer loses least on the validation records; 64 by
    /// default. [`TrainReport::quantizers`] says what was tried. Without a validation split nothing can be compared,
    /// and bits are shared out where the variance is.
    pub fn bytes_per_record(mut self, bytes: usize) -> Self {
        self.options.quantizer = Choice::Auto(bytes);
        self
    }

    /// Which quantizer, and its size.
    pub fn quantizer(mut self, quantizer: QuantizerSpec) -> Self {
        self.options.quantizer = Choice::Given(quantizer);
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

    /// What each record belongs to: a number for each, the same for records that go with each other, such as the tokens of one
    /// sequence or the frames of one clip. Whole groups are set aside, and one group is one witness. Without groups, neighbours of
    /// the records that judge are learned from, and what learns them by heart seems to pay.
    ///
    /// With fewer than 8 groups nothing is set aside: a codec is fitted and not trained.
    pub fn groups(mut self, groups: Vec<usize>) -> Self {
        self.options.groups = Some(groups);
        self
    }

    /// Bounds the scales of the paper preset's couplings to `exp(-bound) ..= exp(bound)`. The published network has no bound, and
    /// can diverge on little data; [`EndedBy::Diverged`] says that it did. The ordered preset has a bound of its own.
    pub fn scale_clamp(mut self, bound: f32) -> Self {
        self.options.scale_clamp = Some(bound);
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

    /// At most so many coordinates as single numbers, or as many as the records have directions: a leaf of a sweeper tree.
    pub(crate) fn state(mut self, values: usize) -> Self {
        let most = values.min(self.records.shape().values());
        (self.options.quantizer, self.options.within_rank) = (Choice::Given(QuantizerSpec::F32(most)), true);
        self
    }

    /// The same of records that are pairs of states, the first `whole` of them of subtrees without gaps: a sweeper.
    pub(crate) fn sweeper(mut self, values: usize, whole: usize) -> Self {
        self.options.pairs = Some(whole);
        self.state(values)
    }

    /// The last records, one for each entry of `groups`, decide what is kept, instead of some at random; entries say which
    /// records belong together. Where records go with their neighbours, neighbours of those that judge must not be learned from,
    /// and many of one group are no more than one witness.
    pub(crate) fn held_out(mut self, groups: Vec<usize>) -> Self {
        self.options.held_out = Some(groups);
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
        let mut session = self.session()?;
        match session.options.preset {
            Preset::Ordered => ordered::train(&mut session),
            Preset::Paper => paper::train(&mut session),
        }
    }

    /// Trains what makes approximations of the records, row by row in `given`, better; gives it where it pays.
    pub(crate) fn restorer(mut self, given: &Records) -> Result<(Option<FlowCodec>, StageReport)> {
        // It keeps whatever the latent has; that is not known yet.
        self.options.quantizer = Choice::Given(QuantizerSpec::F32(1));
        ordered::restorer(&mut self.session()?, given)
    }

    fn session(self) -> Result<Session<'a>> {
        let Self { records, options, progress } = self;
        options.check(records)?;
        Ok(Session {
            records,
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            clock: Clock { began: Instant::now(), time_max: options.time_max },
            options,
            progress,
        })
    }
}

impl Options {
    fn check(&self, records: &Records) -> Result<()> {
        let values = records.shape().values();
        self.check_quantizer(values)?;
        // One more than the values asked for: the mean takes one degree of freedom.
        let needed = match (self.pairs, self.within_rank) {
            // Pairs of states are centred already.
            (Some(_), _) => 1,
            (None, true) => 2,
            (None, false) => self.quantizer.values().unwrap_or(1) + 1,
        };
        if records.len() < needed {
            return Err(Error::TooLittleData {
                records: records.len(),
                needed,
                purpose: format!("a code of {} bytes", self.quantizer.bytes()),
            });
        }
        if let Some(groups) = self.groups.as_ref().filter(|groups| groups.len() != records.len()) {
            return Err(Error::argument(
                "the groups of the records",
                records.len().to_string(),
                groups.len(),
            ));
        }
        if let Some(bound) = self.scale_clamp.filter(|bound| !(*bound > 0.0 && bound.is_finite())) {
            return Err(Error::argument("the bound of the scales", "a number above 0", bound));
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
    fn check_quantizer(&self, values: usize) -> Result<()> {
        let bytes = self.quantizer.bytes();
        let spec = match self.quantizer {
            Choice::Given(spec) => spec,
            Choice::Auto(bytes) => QuantizerSpec::Allocated(bytes),
        };
        if let QuantizerSpec::Entropy(EntropySpec { rate: Rate::Error(error), .. }) = spec {
            if !(error > 0.0 && error.is_finite()) {
                return Err(Error::argument("the mean squared error of a code", "a number above 0", error));
            }
        } else if bytes == 0 {
            return Err(Error::argument("the bytes of a code", "at least 1", 0));
        }
        if let Some(asked) = spec.values().filter(|&asked| asked > values) {
            return Err(Error::argument(
                "the number of code values",
                format!("at most {values}, the values of a record"),
                asked,
            ));
        }
        let most = match spec {
            QuantizerSpec::Allocated(_) => values.min(limits::CODE_LEN_MAX),
            _ => limits::CODE_LEN_MAX,
        };
        if bytes > most && spec.values().is_none() {
            let range = format!(
                "1 to {most}, {}",
                match spec {
                    QuantizerSpec::Allocated(_) => "a byte for each value of a record",
                    _ => "the longest code",
                }
            );
            return Err(Error::argument("the bytes of a code", range, bytes));
        }
        if let QuantizerSpec::Entropy(spec) = spec {
            let least = match spec.rate {
                // A cap below the mean leaves no mean to be met.
                Rate::Mean(bytes) => bytes.max(entropy_bytes_min(spec)),
                _ => entropy_bytes_min(spec),
            };
            if let Some(asked) = spec.max_bytes.filter(|&asked| asked < least || asked > limits::CODE_LEN_MAX)
            {
                let range = format!("{least} to {}", limits::CODE_LEN_MAX);
                return Err(Error::argument("the longest code", range, asked));
            }
            let least = entropy_bytes_min(spec);
            if matches!(spec.rate, Rate::Mean(_) | Rate::Fixed(_)) && bytes < least {
                let range = format!("at least {least} where codes are entropy coded");
                return Err(Error::argument("the bytes of a code", range, bytes));
            }
            if let Some(charts) = spec.charts.filter(|&charts| charts == 0 || charts > CHARTS_MAX) {
                return Err(Error::argument("the charts", format!("1 to {CHARTS_MAX}"), charts));
            }
        }
        Ok(())
    }

    /// Rows of the validation split among this many records.
    fn validation_records(&self, records: usize) -> usize {
        if !self.trains(records) {
            // Nothing is compared. But an error that was asked for has to be seen on records that were not fitted to.
            return if self.measures_error() {
                (records / 10).clamp(MEASURED_MIN.min(records / 2), VALIDATION_MAX)
            } else {
                0
            };
        }
        ((records as f64 * self.validation) as usize).clamp(VALIDATION_MIN, VALIDATION_MAX)
    }

    /// Whether networks are tried.
    fn trains(&self, records: usize) -> bool {
        self.trained && records >= TRAINABLE_MIN && self.validation > 0.0
    }

    fn measures_error(&self) -> bool {
        matches!(
            self.quantizer,
            Choice::Given(QuantizerSpec::Entropy(EntropySpec { rate: Rate::Error(_), .. }))
        )
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
    /// Those that choose the best weights and end the training.
    choosing: Vec<usize>,
    /// Those that decide whether a stage is kept.
    judging: Vec<usize>,
    /// What each of those that decide belongs to.
    groups: Vec<usize>,
}

impl Split {
    /// Whether there is anything to compare with.
    fn validates(&self) -> bool {
        self.choosing.len() + self.judging.len() >= 2 && !self.judging.is_empty()
    }
}

impl Session<'_> {
    fn split(&mut self) -> Split {
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        if let Some(groups) = self.options.groups.clone() {
            return self.split_by(&groups);
        }
        let Some(groups) = &self.options.held_out else {
            order.shuffle(&mut self.rng);
            let training = order.split_off(self.options.validation_records(order.len()));
            let judges = if self.options.trains(self.records.len()) { order.len() / 2 } else { order.len() };
            let judging = order.split_off(judges);
            let groups = judging.clone();
            return Split { training, choosing: order, judging, groups };
        };
        let held_out = order.split_off(order.len().saturating_sub(groups.len()));
        order.shuffle(&mut self.rng);
        let mut halves = [Vec::new(), Vec::new()];
        if self.options.trained {
            held_out.into_iter().zip(groups).for_each(|(row, group)| halves[group % 2].push((row, *group)));
            for half in &mut halves {
                half.shuffle(&mut self.rng);
                half.truncate(VALIDATION_MAX / 2);
            }
        }
        let [choosing, judging] = halves;
        let (judging, groups) = judging.into_iter().unzip();
        Split {
            training: order,
            choosing: choosing.into_iter().map(|(row, _)| row).collect(),
            judging,
            groups,
        }
    }

    /// Whole groups are set aside, one after the other to choose and to judge, until they have as many records as would be set
    /// aside without groups.
    fn split_by(&mut self, groups: &[usize]) -> Split {
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        groups.iter().enumerate().for_each(|(row, &group)| members.entry(group).or_default().push(row));
        let mut order: Vec<usize> = members.keys().copied().collect();
        order.shuffle(&mut self.rng);
        let wanted = self.options.validation_records(groups.len());
        let mut split =
            Split { training: Vec::new(), choosing: Vec::new(), judging: Vec::new(), groups: Vec::new() };
        let enough = order.len() >= 2 * GROUPS_MIN && wanted > 0;
        let trains = self.options.trains(groups.len());
        for (number, group) in order.into_iter().enumerate() {
            let rows = members.remove(&group).unwrap_or_default();
            let set_aside = split.choosing.len() + split.judging.len();
            // Half of all groups at most, or there would be little left to learn from.
            let more =
                (set_aside < wanted || number < GROUPS_MIN) && number < (number + 1 + members.len()) / 2;
            // Nor half of all records, where one group has most of them.
            let fits = set_aside + rows.len() <= groups.len() / 2;
            if !(enough && more && fits) {
                split.training.extend(rows);
            } else if trains && number % 2 == 1 {
                split.groups.extend(std::iter::repeat_n(group, rows.len()));
                split.judging.extend(rows);
            } else {
                split.choosing.extend(rows);
            }
        }
        split.training.shuffle(&mut self.rng);
        split
    }

    fn gather(&self, rows: &[usize]) -> Records {
        let values = rows.iter().flat_map(|&row| self.records.row(row)).copied().collect();
        Records::from_decoded(self.records.shape(), values)
    }

    fn values(&self) -> usize {
        self.records.shape().values()
    }

    fn report(
        &self,
        split: &Split,
        quantizers: Vec<QuantizerChoice>,
        stages: Vec<StageReport>,
    ) -> TrainReport {
        TrainReport {
            training_records: split.training.len(),
            validation_records: split.choosing.len() + split.judging.len(),
            quantizers,
            stages,
            seconds: self.clock.began.elapsed().as_secs_f64(),
        }
    }
}

/// The name of a quantizer.
fn name_of(spec: QuantizerSpec) -> &'static str {
    match spec {
        QuantizerSpec::F32(_) => "f32",
        QuantizerSpec::F16(_) => "f16",
        QuantizerSpec::I8(_) => "i8",
        QuantizerSpec::Allocated(_) => "allocated",
        QuantizerSpec::Residual(_) => "residual",
        QuantizerSpec::Entropy(_) => "entropy",
    }
}

/// Fewest bytes on average that entropy coding is worth.
const ENTROPY_BYTES_MIN: usize = 4;

/// Fewest bytes an entropy-coded quantizer can be asked for: the level and the chart must fit, come what may.
fn entropy_bytes_min(spec: EntropySpec) -> usize {
    match spec.rate {
        Rate::Mean(_) => ENTROPY_BYTES_MIN,
        Rate::Fixed(_) | Rate::Error(_) => 8,
    }
}

/// Tells the progress callback how far a quantizer is, and the quantizer whether to end.
fn watch<'a, 'c>(
    progress: &'a mut Option<Callback<'c>>,
    clock: Clock,
) -> impl FnMut(usize, usize) -> ControlFlow<()> + use<'a, 'c> {
    move |step, steps_max| {
        let elapsed = clock.began.elapsed();
        let seen = Progress { stage: "quantizer", step, steps_max, loss: None, elapsed };
        if let Some(callback) = progress {
            callback(&seen)?;
        }
        if clock.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
