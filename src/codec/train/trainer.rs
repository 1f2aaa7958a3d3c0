//! The builder of a training.

use super::options::Options;
use super::progress::TimeBudget;
use super::report::{StageReport, Trained};
use super::request::QuantizerRequest;
use super::session::Session;
use super::{ordered, paper};
use crate::codec::{Device, FlowCodec, QuantizerSpec};
use crate::error::Result;
use crate::progress::{Callback, Progress};
use crate::record::Records;
use apcm_format::{Preset, WeightPrecision};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

impl FlowCodec {
    /// Starts a training: see [`Trainer`].
    pub fn trainer(records: &Records) -> Trainer<'_> {
        Trainer::new(records)
    }

    /// The ordered preset with no training: principal components behind a quantizer.
    ///
    /// Cost: one eigendecomposition of a `values x values` matrix (or `records x records`, if smaller).
    ///
    /// # Errors
    /// [`TooLittleData`](crate::Error::TooLittleData), and [`Argument`](crate::Error::Argument) when more code
    /// values or bytes are asked for than the records can fill.
    pub fn pca(records: &Records, quantizer: QuantizerSpec) -> Result<Self> {
        Ok(Trainer::new(records).quantizer(quantizer).untrained().train()?.codec)
    }
}

/// Builds a [`FlowCodec`] from records.
///
/// ```no_run
/// # fn main() -> apcm::Result<()> {
/// # let records = apcm::Records::with_dims(&[784])?;
/// let trained = apcm::FlowCodec::trainer(&records).bytes_per_record(64).train()?;
/// println!("{} records, {:.0} s", trained.report.training_records, trained.report.seconds);
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing by itself"]
pub struct Trainer<'a> {
    records: &'a Records,
    options: Options,
    progress: Option<Callback<'a>>,
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
            quantizer: QuantizerRequest::Auto(64),
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
            cap_to_rank: false,
        };
        Self { records, options, progress: None }
    }

    /// Codes of this many bytes on average, by whichever quantizer loses least on the validation records; 64 by
    /// default. [`TrainReport::quantizers`](crate::codec::TrainReport::quantizers) says what was tried. Without
    /// a validation split nothing can be compared, and bits are shared out where the variance is.
    pub fn bytes_per_record(mut self, bytes: usize) -> Self {
        self.options.quantizer = QuantizerRequest::Auto(bytes);
        self
    }

    /// Which quantizer, and its size.
    pub fn quantizer(mut self, quantizer: QuantizerSpec) -> Self {
        self.options.quantizer = QuantizerRequest::Given(quantizer);
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

    /// Seed of the split, the weights and the batches. The same seed, backend, machine and thread count give
    /// the same codec, unless the time budget ended the training.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// Share of the records that decides what is kept; 0.1 by default, 32 to 4,096 records. Half of them choose
    /// the weights, the other half judges the stage. With 0, or fewer than 128 records, the ordered preset is
    /// fitted and not trained.
    pub fn validation(mut self, share: f64) -> Self {
        self.options.validation = share;
        self
    }

    /// The group of each record: the same number for records that belong together, such as the tokens of one
    /// sequence or the frames of one clip. Whole groups are set aside, and one group is one witness. Without
    /// groups, neighbours of the records that judge are learned from, and what learns them by heart seems to
    /// pay.
    ///
    /// With fewer than 8 groups nothing is set aside: a codec is fitted and not trained.
    pub fn groups(mut self, groups: Vec<usize>) -> Self {
        self.options.groups = Some(groups);
        self
    }

    /// Bounds the scales of the paper preset's couplings to `exp(-bound) ..= exp(bound)`. The published network
    /// has no bound, and can diverge on little data; [`EndedBy::Diverged`](crate::codec::EndedBy::Diverged)
    /// says that it did. The ordered preset has a bound of its own.
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

    /// How many couplings; 6 in the paper preset, none in the ordered one, where they are tried last and only
    /// if asked for, because they have not paid for their time so far.
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

    /// At most so many coordinates as single numbers, or as many as the records have directions: a leaf of a
    /// sweeper tree.
    pub(crate) fn state(mut self, values: usize) -> Self {
        let most = values.min(self.records.shape().values());
        (self.options.quantizer, self.options.cap_to_rank) =
            (QuantizerRequest::Given(QuantizerSpec::F32(most)), true);
        self
    }

    /// Like `state`, for pairs of states; the first `whole` are complete. Used by sweepers.
    pub(crate) fn sweeper(mut self, values: usize, whole: usize) -> Self {
        self.options.pairs = Some(whole);
        self.state(values)
    }

    /// The last records, one for each entry of `groups`, decide what is kept, instead of some at random;
    /// entries say which records belong together. Where records go with their neighbours, neighbours of those
    /// that judge must not be learned from, and many of one group are no more than one witness.
    pub(crate) fn held_out(mut self, groups: Vec<usize>) -> Self {
        self.options.held_out = Some(groups);
        self
    }

    /// Is called a few times a second; returning [`ControlFlow::Break`] ends the training with the best codec
    /// so far.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Trains.
    ///
    /// Cost: one eigendecomposition, then at most the step and time budgets. Memory: three to six times the
    /// records.
    ///
    /// # Errors
    /// [`TooLittleData`](crate::Error::TooLittleData), [`Argument`](crate::Error::Argument) for sizes that do
    /// not fit the records, [`Device`](crate::Error::Device).
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
        self.options.quantizer = QuantizerRequest::Given(QuantizerSpec::F32(1));
        ordered::restorer(&mut self.session()?, given)
    }

    fn session(self) -> Result<Session<'a>> {
        let Self { records, options, progress } = self;
        options.check(records)?;
        Ok(Session {
            records,
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            time: TimeBudget { began: Instant::now(), time_max: options.time_max },
            options,
            progress,
        })
    }
}
