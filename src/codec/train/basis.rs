//! Axes and quantizer, shared by all candidates of the ordered preset, and the training data seen through them.

use super::gate::squared;
use super::progress::watch;
use super::report::QuantizerChoice;
use super::request::{QuantizerRequest, name_of};
use super::session::{Session, Split};
use crate::codec::flow::FlowParameters;
use crate::codec::flow::network::{host, matrix};
use crate::codec::flow::pairs::Pairs;
use crate::codec::flow::restore::PredictorScales;
use crate::codec::principal_axes::PrincipalAxes;
use crate::codec::quantizer::{
    Data, EntropySpec, Quantizer, QuantizerSpec, Rate,
    water::{left, rate, water_level},
};
use crate::codec::weights;
use crate::error::{Error, Result};
use crate::record::Records;
use apcm_format::{FlowConfig, Preset, WeightPrecision};

/// Share of the variance that the latent carries; the rest is noise to a predictor and bytes to a model.
const LATENT_SHARE: f64 = 0.98;
const SCALE_CLAMP: f32 = 1.0;
/// An axis is worth a quantizer's attention down to this share of the water level: charts turn it into fewer,
/// stronger ones.
const LEVEL_SHARE: f64 = 0.15;
/// Most coordinates of an entropy-coded or residual quantizer, whose models grow with them.
const COORDINATES_MAX: usize = 768;
const CODEBOOK_COORDINATES_MAX: usize = 256;
/// A candidate that spends more than this over what was asked for is no candidate.
const BYTES_TOLERANCE: f64 = 1.02;

/// Mean and principal axes, and the records in their frame.
pub(crate) struct Basis {
    pub(crate) mean: Vec<f32>,
    /// `[value, latent]`, rounded to stored precision.
    pub(crate) rotation: Vec<f32>,
    pub(crate) variances: Vec<f64>,
    pub(crate) latent_len: usize,
    /// Training rows, `[row, latent]`.
    pub(crate) training: Vec<f32>,
    /// Validation rows that choose, `[row, latent]`.
    pub(crate) choosing: Vec<f32>,
    /// Squared length of what lies outside the latent, averaged over records: measured on the rows that choose,
    /// where there are some. Of the training rows nothing lies outside their own rank, which says nothing of
    /// other records.
    pub(crate) outside: f64,
    /// Leading coordinates that an error can be reached with, where one was asked for and measured.
    reach: Option<usize>,
}

/// A basis and the quantizer on it.
pub(crate) struct FittedBasis {
    pub(crate) basis: Basis,
    pub(crate) config: FlowConfig,
    pub(crate) quantizer: Quantizer,
    /// The dequantized training rows, `[row, kept]`.
    pub(crate) dequantized: Vec<f32>,
    pub(crate) choices: Vec<QuantizerChoice>,
}

impl FittedBasis {
    pub(crate) fn fit(session: &mut Session<'_>, split: &Split) -> Result<Self> {
        let candidates = session.options.quantizer.candidates(split.training.len(), split.validates());
        let axes = match session.options.pairs {
            Some(whole) => {
                let rows: Vec<usize> = split.training.iter().copied().filter(|&row| row < whole).collect();
                Pairs::fit(session.records, &rows)?.axes()?
            }
            None => PrincipalAxes::fit(session.records, &split.training)?,
        };
        let rank = axes.variances.len();
        let mut specs = Vec::new();
        for spec in candidates {
            specs.push(cap_to_rank(session, split, spec, rank)?);
        }
        let wanted = specs.iter().map(|&spec| coordinates(spec, &axes.variances, session.values())).max();
        let reach = match session.options.quantizer {
            QuantizerRequest::Given(QuantizerSpec::Entropy(EntropySpec {
                rate: Rate::Error(error), ..
            })) if !split.choosing.is_empty() => Some(coordinates_for(session, split, &axes, error)?),
            _ => None,
        };
        let mut basis = Basis::new(session, split, axes, reach.or(wanted).unwrap_or(1))?;
        basis.reach = reach;
        let mut best: Option<(f64, Quantizer)> = None;
        let mut choices = Vec::new();
        for spec in specs {
            if best.is_some() && session.time.is_over() {
                break;
            }
            // As many charts as an earlier candidate chose by itself.
            if let QuantizerSpec::Entropy(EntropySpec { charts: charts @ Some(_), .. }) = spec
                && choices.iter().any(|tried: &QuantizerChoice| tried.charts == charts)
            {
                continue;
            }
            let quantizer = match basis.quantizer(session, spec) {
                Ok(quantizer) => quantizer,
                // A candidate that cannot be fitted to this data is skipped.
                Err(_) if best.is_some() => continue,
                Err(error) => return Err(error),
            };
            let tried = basis.judge(session, &quantizer, spec)?;
            let too_long = tried.bytes.is_some_and(|bytes| bytes > spec.bytes() as f64 * BYTES_TOLERANCE);
            if best.is_some() && too_long {
                choices.push(tried);
            } else if best.as_ref().is_none_or(|(error, _)| tried.error.is_some_and(|tried| tried < *error)) {
                choices.iter_mut().for_each(|choice: &mut QuantizerChoice| choice.chosen = false);
                best = Some((tried.error.unwrap_or(f64::INFINITY), quantizer));
                choices.push(QuantizerChoice { chosen: true, ..tried });
            } else {
                choices.push(tried);
            }
        }
        let Some((_, quantizer)) = best else {
            return Err(Error::argument("the quantizers to try", "at least one", 0));
        };
        Self::on(session, basis, quantizer, choices)
    }

    /// A quantizer that keeps every coordinate of the latent.
    pub(crate) fn whole(session: &mut Session<'_>, split: &Split) -> Result<Self> {
        let axes = PrincipalAxes::fit(session.records, &split.training)?;
        let basis = Basis::new(session, split, axes, 1)?;
        let quantizer = basis.quantizer(session, QuantizerSpec::F32(basis.latent_len))?;
        Self::on(session, basis, quantizer, Vec::new())
    }

    fn on(
        session: &Session<'_>,
        basis: Basis,
        quantizer: Quantizer,
        choices: Vec<QuantizerChoice>,
    ) -> Result<Self> {
        let kept = quantizer.kept();
        let mut dequantized = leading(&basis.training, basis.latent_len, kept);
        quantizer.pass(&mut dequantized)?;
        let (rank, shape) = session.records.shape().to_stored();
        let config = FlowConfig {
            preset: Preset::Ordered,
            shape,
            rank,
            latent: basis.latent_len as u32,
            kept: kept as u32,
            code_len: quantizer.code_len_max() as u32,
            quantizer: quantizer.kind(),
            precision: session.options.precision.unwrap_or(WeightPrecision::F16),
            couplings: 0,
            coupling_hidden: 0,
            scale_clamp: SCALE_CLAMP,
            permuted: false,
            predictor_hidden: 0,
            predictor_blocks: 0,
        };
        Ok(Self { basis, config, quantizer, dequantized, choices })
    }

    /// The candidate of step 0. It predicts nothing, so it needs no axis beyond those it keeps.
    pub(crate) fn untrained(&self) -> FlowParameters {
        let kept = self.config.kept as usize;
        let config = FlowConfig { latent: self.config.kept, ..self.config.clone() };
        let rotation = leading(&self.basis.rotation, self.basis.latent_len, kept);
        FlowParameters { rotation: Some(rotation), ..self.parameters(config, None) }
    }

    pub(crate) fn parameters(&self, config: FlowConfig, scales: Option<PredictorScales>) -> FlowParameters {
        FlowParameters {
            config,
            mean: Some(self.basis.mean.clone()),
            rotation: Some(self.basis.rotation.clone()),
            scales,
            quantizer: self.quantizer.clone(),
        }
    }

    pub(crate) fn scales(&self) -> PredictorScales {
        let (latent, kept) = (self.basis.latent_len, self.config.kept as usize);
        let rows = (self.basis.training.len() / latent) as f64;
        let mut input = vec![0.0_f64; kept];
        let mut output = vec![0.0_f64; latent];
        for (exact, given) in
            self.basis.training.chunks_exact(latent).zip(self.dequantized.chunks_exact(kept))
        {
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

impl Basis {
    fn new(session: &Session<'_>, split: &Split, axes: PrincipalAxes, wanted: usize) -> Result<Self> {
        let PrincipalAxes { mean, axes, variances } = axes;
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
        let latent_len = enough.max(wanted).min(variances.len());
        let precision = session.options.precision.unwrap_or(WeightPrecision::F16);
        let exact: Vec<f32> = (0..session.values())
            .flat_map(|i| (0..latent_len).map(move |j| (i, j)))
            .map(|at| axes[at] as f32)
            .collect();
        let rotation = weights::floats(&weights::tensor(String::new(), &[exact.len()], &exact, precision))?;
        let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
        let rotated = |rows: &[usize]| rotate(session, session.records, rows, &mean, &rotation, latent_len);
        let (training, choosing) = (rotated(&split.training)?, rotated(&split.choosing)?);
        let outside = match split.choosing.len() {
            0 => variances[latent_len..].iter().sum(),
            rows => {
                let inside: f64 = choosing.iter().map(|&x| f64::from(x).powi(2)).sum();
                (squared_lengths(session, &split.choosing, &mean) - inside).max(0.0) / rows as f64
            }
        };
        Ok(Self { mean, rotation, variances, latent_len, training, choosing, outside, reach: None })
    }

    /// Squared length of what lies outside the first `width` coordinates, averaged over records.
    fn outside(&self, width: usize) -> f64 {
        if self.choosing.is_empty() {
            return self.variances[width..].iter().sum();
        }
        let rows = self.choosing.chunks_exact(self.latent_len);
        let count = rows.len() as f64;
        let beyond = rows.flat_map(|row| &row[width..]).map(|&x| f64::from(x).powi(2)).sum::<f64>();
        self.outside + beyond / count
    }

    fn quantizer(&self, session: &mut Session<'_>, spec: QuantizerSpec) -> Result<Quantizer> {
        let width = match spec {
            QuantizerSpec::Residual(_) | QuantizerSpec::Entropy(_) => {
                let by_variance = || coordinates(spec, &self.variances, session.values());
                self.reach.unwrap_or_else(by_variance).min(self.latent_len)
            }
            _ => self.latent_len,
        };
        let outside = self.outside(width);
        let training = leading(&self.training, self.latent_len, width);
        let validation = leading(&self.choosing, self.latent_len, width);
        let values = session.values();
        let mut watch = watch(&mut session.progress, session.time);
        let mut data = Data {
            training: &training,
            validation: &validation,
            width,
            values,
            outside,
            rng: &mut session.rng,
            watch: &mut watch,
        };
        Quantizer::fit(spec, &mut data)
    }

    /// Bytes and error on the validation rows that choose.
    fn judge(
        &self,
        session: &Session<'_>,
        quantizer: &Quantizer,
        spec: QuantizerSpec,
    ) -> Result<QuantizerChoice> {
        let mut choice = QuantizerChoice {
            quantizer: name_of(spec),
            charts: match quantizer {
                Quantizer::Entropy(entropy) => Some(entropy.charts()),
                _ => None,
            },
            bytes: None,
            error: None,
            chosen: false,
        };
        let rows = self.choosing.len() / self.latent_len;
        if rows == 0 {
            return Ok(choice);
        }
        let kept = quantizer.kept();
        let mut given = leading(&self.choosing, self.latent_len, kept);
        let codes = quantizer.encode_all(&given);
        for (row, code) in given.chunks_exact_mut(kept).zip(&codes) {
            quantizer.decode(code, row)?;
        }
        let inside = squared(&self.choosing, &given, self.latent_len, kept) / rows as f64;
        choice.bytes =
            Some(codes.iter().map(|code| quantizer.counted_bytes(code.len())).sum::<f64>() / rows as f64);
        choice.error = Some((inside + self.outside) / session.values() as f64);
        Ok(choice)
    }
}

/// The spec as far as the records' directions allow.
fn cap_to_rank(
    session: &Session<'_>,
    split: &Split,
    spec: QuantizerSpec,
    rank: usize,
) -> Result<QuantizerSpec> {
    // A coordinate of these takes a byte at most, so a code of n bytes may want n coordinates.
    let asked = spec.values().unwrap_or(match spec {
        QuantizerSpec::Allocated(bytes) => bytes,
        _ => 1,
    });
    if rank < asked && split.training.len() <= asked && !session.options.cap_to_rank {
        return Err(Error::TooLittleData {
            records: session.records.len(),
            needed: session.options.records_needed(asked),
            purpose: format!("a code of {} bytes", spec.bytes()),
        });
    }
    if rank == 0 {
        let found = format!("{} that are all the same", split.training.len());
        return Err(Error::argument("the training records", "records that differ from each other", found));
    }
    match spec {
        // The records differ in fewer directions than the bytes could describe: a shorter code says it all.
        QuantizerSpec::Allocated(bytes) => Ok(QuantizerSpec::Allocated(bytes.min(rank))),
        QuantizerSpec::F32(values) if session.options.cap_to_rank => Ok(QuantizerSpec::F32(values.min(rank))),
        other if asked <= rank => Ok(other),
        _ => Err(Error::argument(
            "the number of code values",
            format!("at most {rank}, the directions in which the training records differ"),
            asked,
        )),
    }
}

/// Leading coordinates that an error can be reached with, by what the rows that choose show of them. Few and
/// large records span so little that others lie mostly outside, which their own variances cannot tell.
fn coordinates_for(session: &Session<'_>, split: &Split, axes: &PrincipalAxes, error: f64) -> Result<usize> {
    let (rank, rows) = (axes.variances.len(), split.choosing.len() as f64);
    let mean: Vec<f32> = axes.mean.iter().map(|&value| value as f32).collect();
    let at = (0..session.values()).flat_map(|i| (0..rank).map(move |j| (i, j)));
    let rotation: Vec<f32> = at.map(|at| axes.axes[at] as f32).collect();
    let seen = rotate(session, session.records, &split.choosing, &mean, &rotation, rank)?;
    let mut variances = vec![0.0; rank];
    for row in seen.chunks_exact(rank) {
        variances.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x).powi(2) / rows);
    }
    let inside: f64 = variances.iter().sum();
    let outside = (squared_lengths(session, &split.choosing, &mean) / rows - inside).max(0.0);
    let target = error * session.values() as f64 - outside;
    if target <= 0.0 {
        let least = outside / session.values() as f64;
        return Err(Error::argument(
            "the mean squared error of a code",
            format!(
                "more than {least:.3e}: that much of records set aside lies outside the {rank} directions of the {} \
                 records learned from",
                split.training.len()
            ),
            format!("{error:e}"),
        ));
    }
    let level = water_level(&variances, |level| left(&variances, level) < target);
    Ok(variances.iter().rposition(|&variance| variance > LEVEL_SHARE * level).map_or(1, |last| last + 1))
}

/// Squared lengths of rows about a mean, summed.
fn squared_lengths(session: &Session<'_>, rows: &[usize], mean: &[f32]) -> f64 {
    let length = |&row: &usize| {
        let about = session.records.row(row).iter().zip(mean);
        about.map(|(x, m)| f64::from(x - m).powi(2)).sum::<f64>()
    };
    rows.iter().map(length).sum()
}

/// Leading coordinates that a quantizer looks at.
fn coordinates(spec: QuantizerSpec, variances: &[f64], values: usize) -> usize {
    let level = match spec {
        QuantizerSpec::F32(values) | QuantizerSpec::F16(values) | QuantizerSpec::I8(values) => {
            return values.min(variances.len());
        }
        QuantizerSpec::Allocated(bytes) => return bytes.min(variances.len()),
        QuantizerSpec::Residual(_) => return variances.len().min(CODEBOOK_COORDINATES_MAX),
        QuantizerSpec::Entropy(EntropySpec { rate: Rate::Error(error), .. }) => {
            let target = error * values as f64;
            let level = water_level(variances, |level| left(variances, level) < target);
            return variances.iter().take_while(|&&variance| variance > LEVEL_SHARE * level).count().max(1);
        }
        QuantizerSpec::Entropy(_) => {
            let bits = 8.0 * spec.bytes() as f64;
            water_level(variances, |level| rate(variances, level) > bits)
        }
    };
    variances.iter().take_while(|&&variance| variance > LEVEL_SHARE * level).count().clamp(1, COORDINATES_MAX)
}

/// The first `width` of every row of `stride`.
pub(crate) fn leading(rows: &[f32], stride: usize, width: usize) -> Vec<f32> {
    rows.chunks_exact(stride).flat_map(|row| &row[..width]).copied().collect()
}

/// Rotates rows on the session's device, block by block.
pub(crate) fn rotate(
    session: &Session<'_>,
    records: &Records,
    rows: &[usize],
    mean: &[f32],
    rotation: &[f32],
    latent: usize,
) -> Result<Vec<f32>> {
    let device = session.options.device.burn()?;
    let rotation = matrix(rotation.to_vec(), latent, &device);
    let mut out = Vec::with_capacity(rows.len() * latent);
    for block in rows.chunks(1_024) {
        let centred =
            block.iter().flat_map(|&row| records.row(row).iter().zip(mean).map(|(x, m)| x - m)).collect();
        out.extend(host(matrix(centred, mean.len(), &device).matmul(rotation.clone())));
    }
    Ok(out)
}
