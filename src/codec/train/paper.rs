//! Training as the ApCM paper does it, for comparison: one joint loss, no validation in the loop.
//!
//! `mse(x, x_hat) + 0.01 * 0.5 * mean(z_comp^2)`, Adam at 1e-3, the rate halved on a plateau of the batch loss,
//! batches of 32, the weights of least batch loss kept.

use super::fit::{Plan, Schedule, Select, fit};
use super::gate::errors;
use super::progress::watch;
use super::report::{StageReport, Trained};
use super::request::{QuantizerRequest, name_of};
use super::session::Session;
use crate::codec::flow::FlowParameters;
use crate::codec::flow::chain::{Chain, columns};
use crate::codec::flow::network::{Network, Source, host, matrix};
use crate::codec::flow::restore::Restore;
use crate::codec::quantizer::{Data, Quantizer};
use crate::codec::{EndedBy, FlowCodec, QuantizerSpec};
use crate::error::{Error, Result};
use apcm_format::{FlowConfig, Preset, QuantizerKind, WeightPrecision};

/// Weight of the prior on `z_comp`.
const PRIOR: f32 = 0.01 * 0.5;

pub(crate) fn train(session: &mut Session<'_>) -> Result<Trained> {
    let options = session.options.clone();
    let (spec, kind) = match options.quantizer {
        QuantizerRequest::Given(spec @ QuantizerSpec::F32(_)) => (spec, QuantizerKind::F32),
        QuantizerRequest::Given(spec @ QuantizerSpec::F16(_)) => (spec, QuantizerKind::F16),
        QuantizerRequest::Given(spec @ QuantizerSpec::I8(_)) => (spec, QuantizerKind::I8),
        QuantizerRequest::Given(other) => {
            return Err(Error::argument(
                "the quantizer of the paper preset",
                "f32, f16 or i8: its coordinates have no order for bits to follow",
                name_of(other),
            ));
        }
        QuantizerRequest::Auto(bytes) => {
            return Err(Error::argument(
                "the quantizer of the paper preset",
                "f32, f16 or i8, asked for by name",
                format!("{bytes} bytes of whichever is best"),
            ));
        }
    };
    let split = session.split();
    let width = session.records.shape().values();
    let kept = spec.values().unwrap_or(0);
    let (rank, shape) = session.records.shape().to_stored();
    let config = FlowConfig {
        preset: Preset::Paper,
        shape,
        rank,
        latent: width as u32,
        kept: kept as u32,
        code_len: spec.bytes() as u32,
        quantizer: kind,
        precision: options.precision.unwrap_or(WeightPrecision::F32),
        couplings: options.couplings.unwrap_or(6) as u32,
        coupling_hidden: options.coupling_hidden as u32,
        scale_clamp: options.scale_clamp.unwrap_or(0.0),
        permuted: true,
        predictor_hidden: options.predictor.map_or(options.coupling_hidden, |(hidden, _)| hidden) as u32,
        predictor_blocks: 0,
    };
    config.check()?;
    if width < 2 {
        return Err(Error::argument(
            "a record of the paper preset",
            "at least 2 values, to be halved",
            width,
        ));
    }
    let plain = options.device.burn()?;
    let device = plain.clone().autodiff();
    let (couplings, predictor) = (Chain::sizes(&config), Restore::sizes(&config));
    let trained_chain = Chain::new(&config, None, &mut session.rng, &device);
    let mut source = Source::Random { rng: &mut session.rng, zero_last: false };
    let mut network = Network::build(&couplings, predictor, &mut source, &device)?;
    let mut stages = Vec::new();
    if options.trained {
        let restore = Restore::new(&config, None, &device);
        let records = session.records;
        let loss = |network: &Network, chosen: &[usize]| {
            let rows = chosen.iter().flat_map(|&row| records.row(split.training[row])).copied().collect();
            let x = matrix(rows, width, &device);
            let z = columns(&trained_chain.forward(network, x.clone()), &(0..kept));
            let prior = z.clone().powf_scalar(2.0).mean().mul_scalar(PRIOR);
            let decoded = trained_chain.inverse(network, restore.predicted(network, z));
            Ok((decoded - x).powf_scalar(2.0).mean() + prior)
        };
        let plan = Plan {
            stage: "paper",
            steps_max: options.steps_max,
            batch: options.batch.unwrap_or(32),
            learning_rate: options.learning_rate.unwrap_or(1e-3),
            weight_decay: None,
            average: 0.0,
            schedule: Schedule::Plateau { patience: 50 },
            select: Select::TrainingLoss,
        };
        let fitted = fit(
            plan,
            network,
            split.training.len(),
            &mut session.rng,
            session.time,
            &mut session.progress,
            loss,
            |_| Ok(f64::INFINITY),
        )?;
        network = Network::build(&couplings, predictor, &mut Source::Values(fitted.weights.iter()), &plain)?;
        stages.push((fitted.steps, fitted.ended_by, fitted.history));
    } else {
        network =
            Network::build(&couplings, predictor, &mut Source::Values(network.weights().iter()), &plain)?;
    }
    let chain = trained_chain.on(&config, &plain);
    let codec = |quantizer: Quantizer| {
        let parameters =
            FlowParameters { config: config.clone(), mean: None, rotation: None, scales: None, quantizer };
        FlowCodec::from_image(&parameters.image(&chain, &network)?, options.device)
    };
    // The quantizer comes last here: the couplings were trained without one, as in the paper.
    let mut z = Vec::with_capacity(split.training.len() * kept);
    for block in split.training.chunks(1_024) {
        let rows = block.iter().flat_map(|&row| session.records.row(row)).copied().collect();
        z.extend(host(columns(&chain.forward(&network, matrix(rows, width, &plain)), &(0..kept))));
    }
    let quantizer = {
        let mut watch = watch(&mut session.progress, session.time);
        let mut data = Data {
            training: &z,
            validation: &[],
            width: kept,
            values: width,
            outside: 0.0,
            rng: &mut session.rng,
            watch: &mut watch,
        };
        Quantizer::fit(spec, &mut data)?
    };
    let codec = codec(quantizer)?;
    let stages = stages
        .into_iter()
        .map(|(steps, ended_by, history): (usize, EndedBy, _)| {
            let validation = session.gather(&[split.choosing.as_slice(), &split.judging].concat());
            let errors = if validation.is_empty() { Vec::new() } else { errors(&codec, &validation)? };
            let error = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
            Ok(StageReport {
                name: "paper",
                steps,
                ended_by,
                history,
                // There is no codec without this stage: the network is the preset.
                error_before: None,
                error_after: (!errors.is_empty()).then_some(error),
                standard_error: None,
                accepted: true,
            })
        })
        .collect::<Result<_>>()?;
    let report = session.report(&split, Vec::new(), stages);
    Ok(Trained { codec, report })
}
