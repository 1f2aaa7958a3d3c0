//! A plain autoencoder with one byte a latent value: the baseline that the papers compare with.

use super::fit::{Plan, Schedule, Select, fit};
use super::options::VALIDATION_MAX;
use super::progress::TimeBudget;
use crate::codec::Device;
use crate::codec::flow::network::{Network, Sizes, Source, host, matrix};
use crate::error::{Error, Result};
use crate::progress::Callback;
use crate::record::{Records, check_shape, column_means};
use apcm_format::RecordShape;
use burn::tensor::{Device as BurnDevice, Tensor};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

const HIDDEN: usize = 256;
const STEPS: usize = 2_000;
/// Half the levels of a byte.
const LEVELS: f32 = 127.0;
/// Deviations that a latent value's byte reaches to.
const REACH: f32 = 4.0;

/// `Linear -> SwiGLU -> Linear` into the latent values, the same back, trained on mean squared error; each
/// latent value is then rounded to one byte. No invertibility, no ordering, no gate.
#[derive(Debug)]
pub struct Autoencoder {
    shape: RecordShape,
    mean: Vec<f32>,
    /// One over the deviation of all values: the network works at unit variance.
    scale: f32,
    /// The step of each latent value's byte.
    steps: Vec<f32>,
    network: Network,
    device: BurnDevice,
}

impl Autoencoder {
    /// Trains on records; `latent` values a code, one byte each.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for no latent value, [`TooLittleData`](Error::TooLittleData) for fewer
    /// than two records, [`Device`](Error::Device).
    pub fn train(records: &Records, latent: usize, seed: u64, time_max: Option<Duration>) -> Result<Self> {
        let width = records.shape().values();
        if latent == 0 {
            return Err(Error::argument("the latent values of an autoencoder", "at least 1", 0));
        }
        if records.len() < 2 {
            let purpose = format!("an autoencoder of {latent} values");
            return Err(Error::TooLittleData { records: records.len(), needed: 2, purpose });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.shuffle(&mut rng);
        let training = order.split_off((order.len() / 10).clamp(1, VALIDATION_MAX));
        let mean = column_means(records.values(), width);
        let deviation = records
            .rows()
            .flat_map(|row| row.iter().zip(&mean))
            .map(|(x, mean)| f64::from(x - mean).powi(2))
            .sum::<f64>()
            / records.values().len() as f64;
        let scale = if deviation > 0.0 { (1.0 / deviation.sqrt()) as f32 } else { 1.0 };
        let gather = |rows: &[usize]| -> Vec<f32> {
            let centred =
                |&row: &usize| records.row(row).iter().zip(&mean).map(|(x, mean)| (x - mean) * scale);
            rows.iter().flat_map(centred).collect()
        };
        let plain = Device::Cpu.burn()?;
        let device = plain.clone().autodiff();
        let sizes = [
            Sizes { input: width, hidden: HIDDEN, output: latent, blocks: 0 },
            Sizes { input: latent, hidden: HIDDEN, output: width, blocks: 0 },
        ];
        let mut source = Source::Random { rng: &mut rng, zero_last: false };
        let network = Network::build(&sizes, None, &mut source, &device)?;
        let loss = |network: &Network, chosen: &[usize]| {
            let rows: Vec<usize> = chosen.iter().map(|&row| training[row]).collect();
            let x = matrix(gather(&rows), width, &device);
            Ok((through(network, x.clone()) - x).powf_scalar(2.0).mean())
        };
        let validation = gather(&order);
        let validate = |weights: &[Vec<f32>]| -> Result<f64> {
            let network = Network::build(&sizes, None, &mut Source::Values(weights.iter()), &plain)?;
            let mut sum = 0.0;
            for block in validation.chunks(1_024 * width) {
                let restored = host(through(&network, matrix(block.to_vec(), width, &plain)));
                sum += block.iter().zip(restored).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
            }
            Ok(sum / validation.len() as f64)
        };
        let plan = Plan {
            stage: "autoencoder",
            steps_max: STEPS,
            batch: 256,
            learning_rate: 1e-3,
            weight_decay: Some(0.01),
            average: 0.998,
            schedule: Schedule::Cosine,
            select: Select::Validation { every: 50, patience: 8 },
        };
        let clock = TimeBudget { began: Instant::now(), time_max };
        let mut nobody: Option<Callback<'_>> = None;
        let fitted = fit(plan, network, training.len(), &mut rng, clock, &mut nobody, loss, validate)?;
        let network = Network::build(&sizes, None, &mut Source::Values(fitted.weights.iter()), &plain)?;
        let mut trained =
            Self { shape: records.shape(), mean, scale, steps: vec![1.0; latent], network, device: plain };
        let codes = trained.latent(records);
        let mut squares = vec![0.0_f64; latent];
        for row in codes.chunks_exact(latent) {
            squares.iter_mut().zip(row).for_each(|(sum, &z)| *sum += f64::from(z).powi(2));
        }
        let step = |sum: f64| REACH * (sum / records.len() as f64).sqrt() as f32 / LEVELS;
        trained.steps = squares.into_iter().map(|sum| step(sum).max(f32::MIN_POSITIVE)).collect();
        Ok(trained)
    }

    /// Trained weights.
    pub fn parameters(&self) -> usize {
        self.network.parameters()
    }

    /// Encodes records and decodes them again, each latent value rounded to its byte.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape) for records of another shape than those of the training.
    pub fn reconstruct(&self, records: &Records) -> Result<Records> {
        let (width, latent) = (self.mean.len(), self.steps.len());
        check_shape(self.shape, records.shape())?;
        let mut values = Vec::with_capacity(records.values().len());
        let mut codes = self.latent(records);
        for row in codes.chunks_exact_mut(latent) {
            row.iter_mut().zip(&self.steps).for_each(|(z, step)| {
                *z = (*z / step).round().clamp(-LEVELS, LEVELS) * step;
            });
        }
        for block in codes.chunks(1_024 * latent) {
            let restored =
                host(self.network.couplings[1].forward(matrix(block.to_vec(), latent, &self.device)));
            let row = |row: &[f32]| -> Vec<f32> {
                row.iter().zip(&self.mean).map(|(y, mean)| y / self.scale + mean).collect()
            };
            values.extend(restored.chunks_exact(width).flat_map(row));
        }
        Ok(Records::from_decoded(records.shape(), values))
    }

    /// `[record, latent]`
    fn latent(&self, records: &Records) -> Vec<f32> {
        let width = self.mean.len();
        let mut out = Vec::new();
        for block in records.values().chunks(1_024 * width) {
            let centred = block
                .chunks_exact(width)
                .flat_map(|row| row.iter().zip(&self.mean).map(|(x, mean)| (x - mean) * self.scale))
                .collect();
            out.extend(host(self.network.couplings[0].forward(matrix(centred, width, &self.device))));
        }
        out
    }
}

/// Encoder, then decoder: a [`Network`] holds them as its two sub-networks.
fn through(network: &Network, x: Tensor<2>) -> Tensor<2> {
    network.couplings[1].forward(network.couplings[0].forward(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_space_needs_one_byte() {
        let values = (0..400).flat_map(|i| {
            let t = (i * 7_919 % 400) as f32 / 200.0 - 1.0;
            [t, -t, 2.0 * t, 1.0]
        });
        let shape = apcm_format::RecordShape::new(&[4]).unwrap();
        let records = Records::from_values(shape, values.collect()).unwrap();
        let trained = Autoencoder::train(&records, 1, 1, None).unwrap();
        let restored = trained.reconstruct(&records).unwrap();
        let error: f32 =
            records.values().iter().zip(restored.values()).map(|(x, y)| (x - y).powi(2)).sum::<f32>()
                / 1_600.0;
        assert!(error < 0.01, "{error}");
        assert!(Autoencoder::train(&records, 0, 1, None).is_err());
    }
}
