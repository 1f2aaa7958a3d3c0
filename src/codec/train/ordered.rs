//! Training of the ordered preset: rotation, quantizer, predictor, couplings; each behind the gate.

use super::basis::{FittedBasis, leading, rotate};
use super::fit::{Fitted, Plan, Schedule, Select, fit};
use super::gate::{errors, judge, squared, squared_errors};
use super::report::{EndedBy, StageReport, Trained};
use super::session::{Session, Split};
use crate::codec::FlowCodec;
use crate::codec::flow::FlowParameters;
use crate::codec::flow::chain::{Chain, columns};
use crate::codec::flow::network::{Network, Source, host, matrix};
use crate::codec::flow::restore::Restore;
use crate::codec::quantizer::Quantizer;
use crate::error::Result;
use crate::record::Records;
use apcm_format::FlowConfig;
use burn::tensor::{Device as BurnDevice, Tensor};

/// Floor of a coordinate's deviation in a coupling's input, as a share of the mean variance.
const VARIANCE_FLOOR: f64 = 0.02;
/// Widths of the predictor, the first that the data can carry is taken.
const WIDTHS: [usize; 5] = [384, 256, 128, 64, 32];
/// Measured on Fashion-MNIST at 32 bytes, 2,000 steps: 1e-3 ends at 21.58 dB, 3e-3 at 21.75 (docs/numbers.md).
const LEARNING_RATE: f64 = 3e-3;
/// Behind a strong quantizer there is less to learn and more noise around it: at 3e-3 the loss jumps within the
/// first three hundred steps and never recovers, at 1e-3 it falls to the end (docs/numbers.md).
const LEARNING_RATE_STRONG: f64 = 1e-3;
/// Weight decay times training records: with few records the network must forget what it sees only once. On
/// 7,200 images a decay of 5 is worth 0.2 dB and 0.05 nothing at all; on 54,000 a decay of 3 already costs 0.1
/// dB.
const DECAY_TIMES_RECORDS: f32 = 36_000.0;
const DECAY_RANGE: std::ops::RangeInclusive<f32> = 0.05..=5.0;
/// Decay a step of the average over the weights: the last 500 steps or so.
const AVERAGE: f32 = 0.998;
/// Couplings are trained this much slower than a predictor: at its rate they lost 4 dB before they learned.
const COUPLING_RATE: f64 = 0.2;

pub(crate) fn train(session: &mut Session<'_>) -> Result<Trained> {
    let split = session.split();
    let fitted = FittedBasis::fit(session, &split)?;
    let device = session.options.device;
    let untrained = fitted.untrained();
    let (chain, network) = bare(&untrained.config, device.burn()?)?;
    let mut codec = FlowCodec::from_image(&untrained.image(&chain, &network)?, device)?;
    let mut stages = Vec::new();
    if split.validates() {
        // Half of the validation rows chose the weights; the other half has seen nothing, and judges.
        let judges = Judges { records: session.gather(&split.judging), groups: &split.groups };
        let mut before = errors(&codec, &judges.records)?;
        let mut trained_predictor = None;
        if let Some(stage) = Stage::predictor(session, &fitted, &split)? {
            let fitted = stage.run(session, &fitted, None)?;
            (codec, before) =
                settle(session, &mut stages, &stage, &fitted, codec, before, &judges, "predictor")?;
            if stages.last().is_some_and(|stage| stage.accepted) {
                trained_predictor = Some(fitted.weights);
            }
        }
        let over = session.time.is_over() || stages.iter().any(|stage| stage.ended_by == EndedBy::Cancelled);
        if session.options.couplings.unwrap_or(0) > 0
            && !over
            && let Some(stage) = Stage::couplings(session, &fitted, trained_predictor.is_some(), &split)?
        {
            let fitted = stage.run(session, &fitted, trained_predictor.as_deref())?;
            (codec, _) = settle(session, &mut stages, &stage, &fitted, codec, before, &judges, "couplings")?;
        }
    }
    let report = session.report(&split, fitted.choices, stages);
    Ok(Trained { codec, report })
}

/// Trains a predictor that is given an approximation of a record instead of its code.
///
/// Kept only if it pays: against the approximations as they are, on the rows that judge.
pub(crate) fn restorer(
    session: &mut Session<'_>,
    given: &Records,
) -> Result<(Option<FlowCodec>, StageReport)> {
    let split = session.split();
    let mut fitted = FittedBasis::whole(session, &split)?;
    let seen = |session: &Session<'_>, fitted: &FittedBasis, rows: &[usize]| {
        let basis = &fitted.basis;
        rotate(session, given, rows, &basis.mean, &basis.rotation, basis.latent_len)
    };
    fitted.dequantized = seen(session, &fitted, &split.training)?;
    let refused = |ended_by| StageReport {
        name: "restorer",
        steps: 0,
        ended_by,
        history: Vec::new(),
        error_before: None,
        error_after: None,
        standard_error: None,
        accepted: false,
    };
    if !split.validates() {
        return Ok((None, refused(EndedBy::Time)));
    }
    let Some(mut stage) = Stage::predictor(session, &fitted, &split)? else {
        return Ok((None, refused(EndedBy::Steps)));
    };
    stage.plan.stage = "restorer";
    stage.validation_dequantized = seen(session, &fitted, &split.choosing)?;
    let fitted = stage.run(session, &fitted, None)?;
    let candidate = stage.codec(&fitted.weights, session)?;
    let exact = session.gather(&split.judging);
    let mut approximate = Records::new(exact.shape());
    for &row in &split.judging {
        approximate.push_values(given.row(row))?;
    }
    let before = squared_errors(&exact, &approximate);
    candidate.correct(&mut approximate)?;
    let verdict = judge(&before, &squared_errors(&exact, &approximate), &split.groups);
    let report = StageReport {
        name: "restorer",
        steps: fitted.steps,
        ended_by: fitted.ended_by,
        history: fitted.history,
        error_before: Some(verdict.error_before),
        error_after: Some(verdict.error_after),
        standard_error: Some(verdict.standard_error),
        accepted: verdict.accepted,
    };
    Ok((verdict.accepted.then_some(candidate), report))
}

/// Records that decide whether a stage is kept, and what each of them belongs to.
struct Judges<'a> {
    records: Records,
    groups: &'a [usize],
}

/// Puts a stage before the gate; gives back the codec that goes on and its errors.
#[expect(
    clippy::too_many_arguments,
    reason = "one call site per stage; a struct would only rename the arguments"
)]
fn settle(
    session: &Session<'_>,
    stages: &mut Vec<StageReport>,
    stage: &Stage,
    fitted: &Fitted,
    codec: FlowCodec,
    before: Vec<f64>,
    judges: &Judges<'_>,
    name: &'static str,
) -> Result<(FlowCodec, Vec<f64>)> {
    let candidate = stage.codec(&fitted.weights, session)?;
    let after = errors(&candidate, &judges.records)?;
    let verdict = judge(&before, &after, judges.groups);
    stages.push(StageReport {
        name,
        steps: fitted.steps,
        ended_by: fitted.ended_by,
        history: fitted.history.clone(),
        error_before: Some(verdict.error_before),
        error_after: Some(verdict.error_after),
        standard_error: Some(verdict.standard_error),
        accepted: verdict.accepted,
    });
    Ok(if verdict.accepted { (candidate, after) } else { (codec, before) })
}

fn bare(config: &FlowConfig, device: BurnDevice) -> Result<(Chain, Network)> {
    let mut none = Source::Values([].iter());
    let network = Network::build(&[], None, &mut none, &device)?;
    let mut unused = rand::SeedableRng::seed_from_u64(0);
    Ok((Chain::new(config, None, &mut unused, &device), network))
}

/// One candidate to be trained.
struct Stage {
    parameters: FlowParameters,
    plan: Plan,
    input_scale: Option<Vec<f32>>,
    validation_latent: Vec<f32>,
    validation_dequantized: Vec<f32>,
}

impl Stage {
    /// None where the code says all that the latent has: there is nothing to predict.
    fn predictor(session: &Session<'_>, fitted: &FittedBasis, split: &Split) -> Result<Option<Self>> {
        if fitted.error_alone() == 0.0 {
            return Ok(None);
        }
        let (hidden, blocks) = session.options.predictor.unwrap_or_else(|| {
            let numbers = split.training.len() * session.records.shape().values();
            let weights = |hidden: usize| {
                hidden * (fitted.config.kept + fitted.config.latent) as usize + 10 * hidden * hidden
            };
            let carried = WIDTHS.into_iter().find(|&hidden| weights(hidden) <= numbers);
            (carried.unwrap_or(WIDTHS[WIDTHS.len() - 1]), 2)
        });
        if hidden == 0 {
            return Ok(None);
        }
        let config = FlowConfig {
            predictor_hidden: hidden as u32,
            predictor_blocks: blocks as u32,
            ..fitted.config.clone()
        };
        Self::new(session, fitted, config, "predictor", 1.0, split).map(Some)
    }

    fn couplings(
        session: &Session<'_>,
        fitted: &FittedBasis,
        predicts: bool,
        split: &Split,
    ) -> Result<Option<Self>> {
        // If the code keeps every coordinate, no dropped coordinate is left to couple with.
        if fitted.config.latent == fitted.config.kept {
            return Ok(None);
        }
        let mut config = match Self::predictor(session, fitted, split)? {
            Some(stage) if predicts => stage.parameters.config,
            _ => fitted.config.clone(),
        };
        config.couplings = session.options.couplings.unwrap_or(0) as u32;
        config.coupling_hidden = session.options.coupling_hidden as u32;
        config.check()?;
        let mut stage = Self::new(session, fitted, config, "couplings", COUPLING_RATE, split)?;
        let latent = fitted.config.latent as usize;
        let floor = VARIANCE_FLOOR * fitted.basis.variances[..latent].iter().sum::<f64>() / latent as f64;
        stage.input_scale = Some(
            fitted.basis.variances[..latent]
                .iter()
                .map(|&variance| (1.0 / variance.max(floor).sqrt()) as f32)
                .collect(),
        );
        Ok(Some(stage))
    }

    fn new(
        session: &Session<'_>,
        fitted: &FittedBasis,
        config: FlowConfig,
        name: &'static str,
        rate: f64,
        split: &Split,
    ) -> Result<Self> {
        let options = &session.options;
        let latent = config.latent as usize;
        let kept = config.kept as usize;
        let scales = (config.predictor_hidden > 0).then(|| fitted.scales());
        let validation_latent = fitted.basis.choosing.clone();
        let mut validation_dequantized = leading(&validation_latent, latent, kept);
        fitted.quantizer.pass(&mut validation_dequantized)?;
        let highest = match fitted.quantizer {
            Quantizer::Residual(_) | Quantizer::Entropy(_) => LEARNING_RATE_STRONG,
            Quantizer::Scalar(_) | Quantizer::Allocated(_) => LEARNING_RATE,
        };
        let plan = Plan {
            stage: name,
            steps_max: options.steps_max,
            batch: options.batch.unwrap_or(256),
            learning_rate: options.learning_rate.unwrap_or(highest) * rate,
            weight_decay: Some(
                (DECAY_TIMES_RECORDS / split.training.len() as f32)
                    .clamp(*DECAY_RANGE.start(), *DECAY_RANGE.end()),
            ),
            average: AVERAGE,
            schedule: Schedule::Cosine,
            select: Select::Validation { every: (options.steps_max / 40).clamp(10, 50), patience: 8 },
        };
        let parameters = fitted.parameters(config, scales);
        Ok(Self { parameters, plan, input_scale: None, validation_latent, validation_dequantized })
    }

    fn chain(&self, device: &BurnDevice) -> Chain {
        // The ordered preset permutes nothing, so nothing is drawn.
        let mut unused = rand::SeedableRng::seed_from_u64(0);
        Chain::new(&self.parameters.config, self.input_scale.clone(), &mut unused, device)
    }

    /// Trains the stage; `predictor` are weights to start the predictor from.
    fn run(
        &self,
        session: &mut Session<'_>,
        fitted: &FittedBasis,
        predictor: Option<&[Vec<f32>]>,
    ) -> Result<Fitted> {
        let config = &self.parameters.config;
        let (latent, kept) = (config.latent as usize, config.kept as usize);
        let plain = session.options.device.burn()?;
        let device = plain.clone().autodiff();
        let sizes = (Chain::sizes(config), Restore::sizes(config));
        let mut source = Source::Random { rng: &mut session.rng, zero_last: true };
        let mut network = Network::build(&sizes.0, sizes.1, &mut source, &device)?;
        if let Some(weights) = predictor {
            network.predictor =
                Network::build(&[], sizes.1, &mut Source::Values(weights.iter()), &device)?.predictor;
        }
        let restore = Restore::new(config, self.parameters.scales.as_ref(), &device);
        let chain = self.chain(&device);
        let rows = fitted.basis.training.len() / latent;
        let gather = |values: &[f32], width: usize, rows: &[usize]| -> Vec<f32> {
            rows.iter().flat_map(|&row| &values[row * width..(row + 1) * width]).copied().collect()
        };
        // A loss of 1 is the error of the code alone.
        let alone = fitted.error_alone() / rows as f64;
        let normal = 1.0 / (alone.max(f64::MIN_POSITIVE) * self.plan.batch.min(rows) as f64);
        let quantizer = &fitted.quantizer;
        let loss = |network: &Network, chosen: &[usize]| -> Result<Tensor<1>> {
            let target = matrix(gather(&fitted.basis.training, latent, chosen), latent, &device);
            let restored = if config.couplings == 0 {
                let given = matrix(gather(&fitted.dequantized, kept, chosen), kept, &device);
                restore.predicted(network, given)
            } else {
                let z = columns(&chain.forward(network, target.clone()), &(0..kept));
                let mut given = host(z.clone());
                quantizer.pass(&mut given)?;
                // Straight through: rounded forward, the identity backward.
                let given = z.clone() + (matrix(given, kept, &device) - z.detach());
                chain.inverse(network, restore.predicted(network, given))
            };
            Ok((restored - target).powf_scalar(2.0).sum().mul_scalar(normal))
        };
        let per_element = 1.0 / session.records.shape().values() as f64;
        let (plain_chain, plain_restore) =
            (self.chain(&plain), Restore::new(config, self.parameters.scales.as_ref(), &plain));
        let validate = |weights: &[Vec<f32>]| -> Result<f64> {
            let network = Network::build(&sizes.0, sizes.1, &mut Source::Values(weights.iter()), &plain)?;
            let mut total = 0.0;
            for (exact, given) in self
                .validation_latent
                .chunks(1_024 * latent)
                .zip(self.validation_dequantized.chunks(1_024 * kept))
            {
                let restored = if config.couplings == 0 {
                    plain_restore.predicted(&network, matrix(given.to_vec(), kept, &plain))
                } else {
                    let z = plain_chain.forward(&network, matrix(exact.to_vec(), latent, &plain));
                    let mut given = host(columns(&z, &(0..kept)));
                    quantizer.pass(&mut given)?;
                    plain_chain
                        .inverse(&network, plain_restore.predicted(&network, matrix(given, kept, &plain)))
                };
                total += squared(exact, &host(restored), latent, latent);
            }
            Ok(total * per_element / (self.validation_latent.len() / latent) as f64)
        };
        fit(self.plan, network, rows, &mut session.rng, session.time, &mut session.progress, loss, validate)
    }

    /// The candidate as it would be stored and loaded again.
    fn codec(&self, weights: &[Vec<f32>], session: &Session<'_>) -> Result<FlowCodec> {
        let device = session.options.device;
        let burn = device.burn()?;
        let config = &self.parameters.config;
        let mut source = Source::Values(weights.iter());
        let network = Network::build(&Chain::sizes(config), Restore::sizes(config), &mut source, &burn)?;
        FlowCodec::from_image(&self.parameters.image(&self.chain(&burn), &network)?, device)
    }
}

impl FittedBasis {
    /// Sum of squared errors of the code alone, over the training rows.
    fn error_alone(&self) -> f64 {
        let kept = self.config.kept as usize;
        squared(&self.basis.training, &self.dequantized, self.basis.latent_len, kept)
    }
}
