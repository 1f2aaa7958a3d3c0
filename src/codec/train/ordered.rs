//! Training of the ordered preset: rotation, quantizer, predictor, couplings; each behind the gate.

use super::fit::{Fitted, Plan, Schedule, Select, fit};
use super::gate::{errors, judge};
use super::{EndedBy, Session, Split, StageReport, Trained};
use crate::codec::FlowCodec;
use crate::codec::flow::Blueprint;
use crate::codec::flow::chain::{Chain, columns};
use crate::codec::flow::network::{Network, Source, host, matrix};
use crate::codec::flow::principal_axes::PrincipalAxes;
use crate::codec::flow::restore::{PredictorScales, Restore};
use crate::codec::flow::weights;
use crate::codec::quantizer::{Quantizer, QuantizerSpec};
use crate::error::{Error, Result};
use crate::record::Records;
use apcm_format::{FlowConfig, Preset, WeightPrecision};
use burn::tensor::{Device as BurnDevice, Tensor};

/// Share of the variance that the latent carries; the rest is noise to a predictor and bytes to a model.
const LATENT_SHARE: f64 = 0.98;
/// Floor of a coordinate's deviation in a coupling's input, as a share of the mean variance.
const VARIANCE_FLOOR: f64 = 0.02;
/// Widths of the predictor, the first that the data can carry is taken.
const WIDTHS: [usize; 5] = [384, 256, 128, 64, 32];
const SCALE_CLAMP: f32 = 1.0;
/// Measured on Fashion-MNIST at 32 bytes, 2,000 steps: 1e-3 ends at 21.58 dB, 3e-3 at 21.75 (docs/numbers.md).
const LEARNING_RATE: f64 = 3e-3;
/// Weight decay times training records: with few records the network must forget what it sees only once. On 7,200
/// images a decay of 5 is worth 0.2 dB and 0.05 nothing at all; on 54,000 a decay of 3 already costs 0.1 dB.
const DECAY_TIMES_RECORDS: f32 = 36_000.0;
const DECAY_RANGE: std::ops::RangeInclusive<f32> = 0.05..=5.0;
/// Decay a step of the average over the weights: the last 500 steps or so.
const AVERAGE: f32 = 0.998;
/// Couplings are trained this much slower than a predictor: at its rate they lost 4 dB before they learned.
const COUPLING_RATE: f64 = 0.2;

pub(super) fn train(session: &mut Session<'_>) -> Result<Trained> {
    let split = session.split();
    let foundation = Foundation::fit(session, &split)?;
    let device = session.options.device;
    let untrained = foundation.untrained();
    let (chain, network) = bare(&untrained.config, device.burn()?)?;
    let mut codec = FlowCodec::from_image(&untrained.image(&chain, &network)?, device)?;
    let mut stages = Vec::new();
    if split.validation.len() >= 2 {
        // Half of the validation rows chose the weights; the other half has seen nothing, and judges.
        let validation = session.gather(split.judging());
        let mut before = errors(&codec, &validation)?;
        let mut trained_predictor = None;
        if let Some(stage) = Stage::predictor(session, &foundation, &split)? {
            let fitted = stage.run(session, &foundation, None)?;
            (codec, before) =
                settle(session, &mut stages, &stage, &fitted, codec, before, &validation, "predictor")?;
            if stages.last().is_some_and(|stage| stage.accepted) {
                trained_predictor = Some(fitted.weights);
            }
        }
        let over = session.clock.is_over() || stages.iter().any(|stage| stage.ended_by == EndedBy::Cancelled);
        if session.options.couplings.unwrap_or(0) > 0
            && !over
            && let Some(stage) = Stage::couplings(session, &foundation, trained_predictor.is_some(), &split)?
        {
            let fitted = stage.run(session, &foundation, trained_predictor.as_deref())?;
            (codec, _) =
                settle(session, &mut stages, &stage, &fitted, codec, before, &validation, "couplings")?;
        }
    }
    let report = session.report(&split, stages);
    Ok(Trained { codec, report })
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
    validation: &Records,
    name: &'static str,
) -> Result<(FlowCodec, Vec<f64>)> {
    let candidate = stage.codec(&fitted.weights, session)?;
    let after = errors(&candidate, validation)?;
    let verdict = judge(&before, &after);
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

/// What all candidates share: axes, quantizer, and the training data seen through them.
struct Foundation {
    config: FlowConfig,
    mean: Vec<f32>,
    /// `[value, latent]`, rounded to stored precision.
    rotation: Vec<f32>,
    variances: Vec<f64>,
    quantizer: Quantizer,
    /// Training rows in the rotated frame, `[row, latent]`.
    latent: Vec<f32>,
    /// What the quantizer gives back of them, `[row, kept]`.
    dequantized: Vec<f32>,
}

impl Foundation {
    fn fit(session: &Session<'_>, split: &Split) -> Result<Self> {
        let options = &session.options;
        let records = session.records;
        let PrincipalAxes { mean, axes, variances } = PrincipalAxes::fit(records, &split.training)?;
        let rank = variances.len();
        // A coordinate takes a byte at most, so a code of n bytes may want n coordinates.
        let asked = options.quantizer.values().unwrap_or(options.quantizer.code_len());
        if rank < asked && split.training.len() <= asked {
            return Err(Error::TooLittleData {
                records: records.len(),
                needed: session.options.records_needed(asked),
                purpose: format!("a code of {} bytes", options.quantizer.code_len()),
            });
        }
        let spec = match options.quantizer {
            // The records differ in fewer directions than the bytes could describe: a shorter code says it all.
            QuantizerSpec::Allocated(bytes) if rank > 0 => QuantizerSpec::Allocated(bytes.min(rank)),
            other if asked <= rank => other,
            _ => {
                return Err(Error::argument(
                    "the number of code values",
                    format!("at most {rank}, the directions in which the training records differ"),
                    asked,
                ));
            }
        };
        let total: f64 = variances.iter().sum();
        let mut carried = 0.0;
        let enough = variances
            .iter()
            .take_while(|&&variance| {
                let goes_on = carried < LATENT_SHARE * total;
                carried += variance;
                goes_on
            })
            .count();
        // A byte holds eight bits, and no coordinate takes more: this many coordinates can use all bytes.
        let latent_len =
            enough.max(asked).max(options.quantizer.values().unwrap_or(options.quantizer.code_len()));
        let latent_len = latent_len.min(rank);
        let precision = options.precision.unwrap_or(WeightPrecision::F16);
        let width = records.shape().values();
        let exact: Vec<f32> =
            (0..width).flat_map(|i| (0..latent_len).map(move |j| (i, j))).map(|at| axes[at] as f32).collect();
        let rotation = weights::floats(&weights::tensor(String::new(), &[exact.len()], &exact, precision))?;
        let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
        let latent = rotate(session, &split.training, &mean, &rotation, latent_len)?;
        let quantizer = Quantizer::fit(spec, &latent, latent_len)?;
        let kept = quantizer.kept();
        let mut dequantized = vec![0.0; split.training.len() * kept];
        for (row, out) in latent.chunks_exact(latent_len).zip(dequantized.chunks_exact_mut(kept)) {
            quantizer.decode(&quantizer.encode(&row[..kept]), out)?;
        }
        let (rank, shape) = records.shape().to_stored();
        let config = FlowConfig {
            preset: Preset::Ordered,
            shape,
            rank,
            latent: latent_len as u32,
            kept: kept as u32,
            code_len: quantizer.code_len() as u32,
            quantizer: quantizer.kind(),
            precision,
            couplings: 0,
            coupling_hidden: 0,
            scale_clamp: SCALE_CLAMP,
            permuted: false,
            predictor_hidden: 0,
            predictor_blocks: 0,
        };
        Ok(Self { config, mean, rotation, variances, quantizer, latent, dequantized })
    }

    /// The candidate of step 0. It predicts nothing, so it needs no axis beyond those it keeps.
    fn untrained(&self) -> Blueprint {
        let (latent, kept) = (self.config.latent as usize, self.config.kept as usize);
        let rotation = self.rotation.chunks_exact(latent).flat_map(|row| &row[..kept]).copied().collect();
        Blueprint {
            config: FlowConfig { latent: self.config.kept, ..self.config.clone() },
            mean: Some(self.mean.clone()),
            rotation: Some(rotation),
            scales: None,
            quantizer: self.quantizer.clone(),
        }
    }

    fn blueprint(&self, config: FlowConfig, scales: Option<PredictorScales>) -> Blueprint {
        Blueprint {
            config,
            mean: Some(self.mean.clone()),
            rotation: Some(self.rotation.clone()),
            scales,
            quantizer: self.quantizer.clone(),
        }
    }

    fn scales(&self) -> PredictorScales {
        let (latent, kept) = (self.config.latent as usize, self.config.kept as usize);
        let rows = (self.latent.len() / latent) as f64;
        let mut input = vec![0.0_f64; kept];
        let mut output = vec![0.0_f64; latent];
        for (exact, given) in self.latent.chunks_exact(latent).zip(self.dequantized.chunks_exact(kept)) {
            for (j, &exact) in exact.iter().enumerate() {
                let given = given.get(j).copied().unwrap_or(0.0);
                output[j] += f64::from(exact - given).powi(2);
                if let Some(sum) = input.get_mut(j) {
                    *sum += f64::from(given).powi(2);
                }
            }
        }
        let deviation = |sum: f64| (sum / rows).sqrt();
        PredictorScales {
            input: input
                .into_iter()
                .map(|sum| if sum > 0.0 { (1.0 / deviation(sum)) as f32 } else { 0.0 })
                .collect(),
            output: output.into_iter().map(|sum| deviation(sum) as f32).collect(),
        }
    }
}

/// Rotates training rows on the session's device, block by block.
fn rotate(
    session: &Session<'_>,
    rows: &[usize],
    mean: &[f32],
    rotation: &[f32],
    latent: usize,
) -> Result<Vec<f32>> {
    let device = session.options.device.burn()?;
    let rotation = matrix(rotation.to_vec(), latent, &device);
    let mut out = Vec::with_capacity(rows.len() * latent);
    for block in rows.chunks(1_024) {
        let centred = block
            .iter()
            .flat_map(|&row| session.records.row(row).iter().zip(mean).map(|(x, m)| x - m))
            .collect();
        out.extend(host(matrix(centred, mean.len(), &device).matmul(rotation.clone())));
    }
    Ok(out)
}

fn bare(config: &FlowConfig, device: BurnDevice) -> Result<(Chain, Network)> {
    let mut none = Source::Values([].iter());
    let network = Network::build(&[], None, &mut none, &device)?;
    let mut unused = rand::SeedableRng::seed_from_u64(0);
    Ok((Chain::new(config, None, &mut unused, &device), network))
}

/// One candidate to be trained.
struct Stage {
    blueprint: Blueprint,
    plan: Plan,
    input_scale: Option<Vec<f32>>,
    validation_latent: Vec<f32>,
    validation_dequantized: Vec<f32>,
}

impl Stage {
    fn predictor(session: &Session<'_>, foundation: &Foundation, split: &Split) -> Result<Option<Self>> {
        let (hidden, blocks) = session.options.predictor.unwrap_or_else(|| {
            let numbers = split.training.len() * session.records.shape().values();
            let weights = |hidden: usize| {
                hidden * (foundation.config.kept + foundation.config.latent) as usize + 10 * hidden * hidden
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
            ..foundation.config.clone()
        };
        Self::new(session, foundation, config, "predictor", 1.0, split).map(Some)
    }

    fn couplings(
        session: &Session<'_>,
        foundation: &Foundation,
        predicts: bool,
        split: &Split,
    ) -> Result<Option<Self>> {
        // Where the code keeps every coordinate there is no aux to couple with.
        if foundation.config.latent == foundation.config.kept {
            return Ok(None);
        }
        let mut config = match Self::predictor(session, foundation, split)? {
            Some(stage) if predicts => stage.blueprint.config,
            _ => foundation.config.clone(),
        };
        config.couplings = session.options.couplings.unwrap_or(0) as u32;
        config.coupling_hidden = session.options.coupling_hidden as u32;
        config.check()?;
        let mut stage = Self::new(session, foundation, config, "couplings", COUPLING_RATE, split)?;
        let latent = foundation.config.latent as usize;
        let floor = VARIANCE_FLOOR * foundation.variances[..latent].iter().sum::<f64>() / latent as f64;
        stage.input_scale = Some(
            foundation.variances[..latent]
                .iter()
                .map(|&variance| (1.0 / variance.max(floor).sqrt()) as f32)
                .collect(),
        );
        Ok(Some(stage))
    }

    fn new(
        session: &Session<'_>,
        foundation: &Foundation,
        config: FlowConfig,
        name: &'static str,
        rate: f64,
        split: &Split,
    ) -> Result<Self> {
        let options = &session.options;
        let latent = config.latent as usize;
        let kept = config.kept as usize;
        let scales = (config.predictor_hidden > 0).then(|| foundation.scales());
        let validation_latent =
            rotate(session, split.choosing(), &foundation.mean, &foundation.rotation, latent)?;
        let mut validation_dequantized = vec![0.0; split.choosing().len() * kept];
        for (row, out) in
            validation_latent.chunks_exact(latent).zip(validation_dequantized.chunks_exact_mut(kept))
        {
            foundation.quantizer.decode(&foundation.quantizer.encode(&row[..kept]), out)?;
        }
        let plan = Plan {
            stage: name,
            steps_max: options.steps_max,
            batch: options.batch.unwrap_or(256),
            learning_rate: options.learning_rate.unwrap_or(LEARNING_RATE) * rate,
            weight_decay: Some(
                (DECAY_TIMES_RECORDS / split.training.len() as f32)
                    .clamp(*DECAY_RANGE.start(), *DECAY_RANGE.end()),
            ),
            average: AVERAGE,
            schedule: Schedule::Cosine,
            select: Select::Validation { every: (options.steps_max / 40).clamp(10, 50), patience: 8 },
        };
        let blueprint = foundation.blueprint(config, scales);
        Ok(Self { blueprint, plan, input_scale: None, validation_latent, validation_dequantized })
    }

    fn chain(&self, device: &BurnDevice) -> Chain {
        // The ordered preset permutes nothing, so nothing is drawn.
        let mut unused = rand::SeedableRng::seed_from_u64(0);
        Chain::new(&self.blueprint.config, self.input_scale.clone(), &mut unused, device)
    }

    /// Trains the stage; `predictor` are weights to start the predictor from.
    fn run(
        &self,
        session: &mut Session<'_>,
        foundation: &Foundation,
        predictor: Option<&[Vec<f32>]>,
    ) -> Result<Fitted> {
        let config = &self.blueprint.config;
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
        let restore = Restore::new(config, self.blueprint.scales.as_ref(), &device);
        let chain = self.chain(&device);
        let rows = foundation.latent.len() / latent;
        let gather = |values: &[f32], width: usize, rows: &[usize]| -> Vec<f32> {
            rows.iter().flat_map(|&row| &values[row * width..(row + 1) * width]).copied().collect()
        };
        // A loss of 1 is the error of the code alone.
        let alone: f64 = squared(&foundation.latent, &foundation.dequantized, latent, kept) / rows as f64;
        let normal = 1.0 / (alone.max(f64::MIN_POSITIVE) * self.plan.batch.min(rows) as f64);
        let quantizer = &foundation.quantizer;
        let loss = |network: &Network, chosen: &[usize]| -> Result<Tensor<1>> {
            let target = matrix(gather(&foundation.latent, latent, chosen), latent, &device);
            let restored = if config.couplings == 0 {
                let given = matrix(gather(&foundation.dequantized, kept, chosen), kept, &device);
                restore.predicted(network, given)
            } else {
                let z = columns(&chain.forward(network, target.clone()), &(0..kept));
                let mut given = host(z.clone());
                for row in given.chunks_exact_mut(kept) {
                    let code = quantizer.encode(row);
                    quantizer.decode(&code, row)?;
                }
                // Straight through: rounded forward, the identity backward.
                let given = z.clone() + (matrix(given, kept, &device) - z.detach());
                chain.inverse(network, restore.predicted(network, given))
            };
            Ok((restored - target).powf_scalar(2.0).sum().mul_scalar(normal))
        };
        let per_element = 1.0 / session.records.shape().values() as f64;
        let (plain_chain, plain_restore) =
            (self.chain(&plain), Restore::new(config, self.blueprint.scales.as_ref(), &plain));
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
                    for row in given.chunks_exact_mut(kept) {
                        let code = quantizer.encode(row);
                        quantizer.decode(&code, row)?;
                    }
                    plain_chain
                        .inverse(&network, plain_restore.predicted(&network, matrix(given, kept, &plain)))
                };
                total += squared(exact, &host(restored), latent, latent);
            }
            Ok(total * per_element / (self.validation_latent.len() / latent) as f64)
        };
        fit(self.plan, network, rows, &mut session.rng, session.clock, &mut session.progress, loss, validate)
    }

    /// The candidate as it would be stored and loaded again.
    fn codec(&self, weights: &[Vec<f32>], session: &Session<'_>) -> Result<FlowCodec> {
        let device = session.options.device;
        let burn = device.burn()?;
        let config = &self.blueprint.config;
        let mut source = Source::Values(weights.iter());
        let network = Network::build(&Chain::sizes(config), Restore::sizes(config), &mut source, &burn)?;
        FlowCodec::from_image(&self.blueprint.image(&self.chain(&burn), &network)?, device)
    }
}

/// Sum of squared differences between rows of `width` and rows of `given_width`, padded with zeros.
fn squared(exact: &[f32], given: &[f32], width: usize, given_width: usize) -> f64 {
    exact
        .chunks_exact(width)
        .zip(given.chunks_exact(given_width))
        .map(|(exact, given)| {
            let head: f64 = exact.iter().zip(given).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            let tail: f64 = exact[given_width..].iter().map(|&x| f64::from(x).powi(2)).sum();
            head + tail
        })
        .sum()
}
