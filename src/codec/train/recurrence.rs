//! Teaching a recurrence the trajectories of a teacher: first one step at a time, then a few in a row.

use super::fit::{Fitted, Plan, Schedule, Select, fit};
use super::progress::TimeBudget;
use super::report::StageReport;
use crate::codec::Device;
use crate::codec::flow::network::{Network, Source, host, matrix};
use crate::codec::flow::recurrence::{Recurrence, Scales, Step};
use crate::error::Result;
use crate::progress::Callback;
use apcm_format::RecurrenceConfig;
use burn::tensor::{Device as BurnDevice, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// Rows of a step of teacher forcing, and rollouts of a step.
const BATCH: usize = 256;
const ROLLOUTS: usize = 32;
/// Steps of a rollout.
const ROLLOUT: usize = 8;
const LEARNING_RATE: f64 = 2e-3;
/// A rollout's gradient goes through the network as often as the rollout has steps.
const ROLLOUT_RATE: f64 = 0.1;
const DECAY: f32 = 0.01;
const AVERAGE: f32 = 0.998;
/// One sequence in so many is for validation, one at least.
const VALIDATION: usize = 10;

/// The teacher's states, for sequences of one length `T`.
pub(crate) struct Trajectories {
    /// Length of a memory, and of an input.
    pub(crate) memory: usize,
    pub(crate) input: usize,
    /// Steps of a sequence.
    pub(crate) steps: usize,
    /// `[sequence, T + 1, memory]`.
    pub(crate) memories: Vec<f32>,
    /// `[sequence, T, input]`.
    pub(crate) inputs: Vec<f32>,
}

impl Trajectories {
    fn sequences(&self) -> usize {
        self.inputs.len() / (self.steps * self.input)
    }

    fn memory_at(&self, sequence: usize, step: usize) -> &[f32] {
        let at = (sequence * (self.steps + 1) + step) * self.memory;
        &self.memories[at..at + self.memory]
    }

    fn input_at(&self, sequence: usize, step: usize) -> &[f32] {
        let at = (sequence * self.steps + step) * self.input;
        &self.inputs[at..at + self.input]
    }

    /// Memories, or inputs, of these sequences at these steps, on a device.
    fn memories(&self, rows: &[(usize, usize)], device: &BurnDevice) -> Tensor<2> {
        let values = rows.iter().flat_map(|&(sequence, step)| self.memory_at(sequence, step)).copied();
        matrix(values.collect(), self.memory, device)
    }

    fn inputs(&self, rows: &[(usize, usize)], device: &BurnDevice) -> Tensor<2> {
        let values = rows.iter().flat_map(|&(sequence, step)| self.input_at(sequence, step)).copied();
        matrix(values.collect(), self.input, device)
    }

    /// Factors for what goes in, and deviations of what a step adds.
    fn scales(&self, sequences: usize) -> Scales {
        let mut memory = vec![0.0_f64; self.memory];
        let mut output = vec![0.0_f64; self.memory];
        let mut input = vec![0.0_f64; self.input];
        for sequence in 0..sequences {
            for step in 0..self.steps {
                let (now, next) = (self.memory_at(sequence, step), self.memory_at(sequence, step + 1));
                for (j, (&now, &next)) in now.iter().zip(next).enumerate() {
                    memory[j] += f64::from(next).powi(2);
                    output[j] += f64::from(next - now).powi(2);
                }
                let seen = input.iter_mut().zip(self.input_at(sequence, step));
                seen.for_each(|(sum, &value)| *sum += f64::from(value).powi(2));
            }
        }
        let rows = (sequences * self.steps) as f64;
        let deviation = |sum: &f64| (sum / rows).sqrt() as f32;
        // Unit variance for all would drown the few coordinates that matter in hundreds that hardly vary.
        let tempered = |sums: &[f64]| -> Vec<f32> {
            let strongest = sums.iter().fold(0.0_f64, |most, &sum| most.max(sum));
            let factor = |&sum: &f64| match sum > 0.0 {
                true => (1.0 / (deviation(&sum) * deviation(&strongest))).sqrt(),
                false => 0.0,
            };
            sums.iter().map(factor).collect()
        };
        Scales {
            memory: tempered(&memory),
            input: tempered(&input),
            output: output.iter().map(deviation).collect(),
        }
    }
}

/// How to teach.
pub(crate) struct Lessons<'a> {
    pub(crate) hidden: usize,
    pub(crate) steps: usize,
    pub(crate) seed: u64,
    pub(crate) device: Device,
    pub(crate) time_max: Option<Duration>,
    pub(crate) progress: Option<Callback<'a>>,
}

/// Teaches, of at least two sequences; what decides is how far off it ends up when it is left alone from the
/// beginning, on sequences set aside, as a share of the square of the teacher's memory.
pub(crate) fn teach(
    taught: &Trajectories,
    mut lessons: Lessons<'_>,
) -> Result<(Recurrence, Vec<StageReport>)> {
    let sequences = taught.sequences();
    let validation = (sequences / VALIDATION).max(1);
    let training = sequences - validation;
    let config = RecurrenceConfig {
        memory: taught.memory as u32,
        input: taught.input as u32,
        positions: taught.steps as u32,
        hidden: lessons.hidden as u32,
    };
    config.check()?;
    let scales = taught.scales(training);
    let plain = lessons.device.burn()?;
    let device = plain.clone().autodiff();
    let sizes = Some(Recurrence::sizes(&config));
    let (step, plain_step) =
        (Step::new(&scales, taught.steps, &device), Step::new(&scales, taught.steps, &plain));
    // A loss of 1 is that of a memory that never changes.
    let moved: f64 = scales.output.iter().map(|deviation| f64::from(*deviation).powi(2)).sum();
    let normal = |rows: usize| 1.0 / (moved.max(f64::MIN_POSITIVE) * rows as f64);

    let alone = |weights: &[Vec<f32>]| -> Result<f64> {
        let network = Network::build(&[], sizes, &mut Source::Values(weights.iter()), &plain)?;
        let at = |step: usize| -> Vec<(usize, usize)> { (training..sequences).map(|s| (s, step)).collect() };
        let mut memory = taught.memories(&at(0), &plain);
        let (mut off, mut all) = (0.0, 0.0);
        for position in 0..taught.steps {
            let input = taught.inputs(&at(position), &plain);
            memory = plain_step.apply(&network, memory, input, &vec![position; validation]);
            let exact = at(position + 1);
            let exact = exact.iter().flat_map(|&(sequence, step)| taught.memory_at(sequence, step));
            for (found, exact) in host(memory.clone()).iter().zip(exact) {
                off += f64::from(found - exact).powi(2);
                all += f64::from(*exact).powi(2);
            }
        }
        Ok(off / all.max(f64::MIN_POSITIVE))
    };
    let forced = |network: &Network, chosen: &[usize]| -> Result<Tensor<1>> {
        let rows: Vec<(usize, usize)> =
            chosen.iter().map(|&row| (row / taught.steps, row % taught.steps)).collect();
        let next: Vec<(usize, usize)> = rows.iter().map(|&(sequence, step)| (sequence, step + 1)).collect();
        let positions: Vec<usize> = rows.iter().map(|&(_, step)| step).collect();
        let memory = taught.memories(&rows, &device);
        let found = step.apply(network, memory, taught.inputs(&rows, &device), &positions);
        let off = found - taught.memories(&next, &device);
        Ok(off.powf_scalar(2.0).sum().mul_scalar(normal(rows.len())))
    };
    let rollout = ROLLOUT.min(taught.steps);
    let starts = taught.steps - rollout + 1;
    let rolled = |network: &Network, chosen: &[usize]| -> Result<Tensor<1>> {
        let rows: Vec<(usize, usize)> = chosen.iter().map(|&row| (row / starts, row % starts)).collect();
        let later =
            |by: usize| -> Vec<(usize, usize)> { rows.iter().map(|&(s, step)| (s, step + by)).collect() };
        let mut memory = taught.memories(&rows, &device);
        let mut total: Option<Tensor<1>> = None;
        for by in 0..rollout {
            let at = later(by);
            let positions: Vec<usize> = at.iter().map(|&(_, step)| step).collect();
            memory = step.apply(network, memory, taught.inputs(&at, &device), &positions);
            let off = (memory.clone() - taught.memories(&later(by + 1), &device)).powf_scalar(2.0).sum();
            total = Some(total.map_or(off.clone(), |total| total + off));
        }
        let total = total.unwrap_or_else(|| Tensor::zeros([1], &device));
        Ok(total.mul_scalar(normal(rows.len()) / rollout as f64))
    };

    let mut rng = ChaCha8Rng::seed_from_u64(lessons.seed);
    let clock = TimeBudget { began: Instant::now(), time_max: lessons.time_max };
    let mut source = Source::Random { rng: &mut rng, zero_last: true };
    let mut network = Network::build(&[], sizes, &mut source, &device)?;
    let mut reports = Vec::new();
    let mut best = network.weights();
    for (name, batch, rate, rows) in [
        ("teacher forcing", BATCH, 1.0, training * taught.steps),
        ("rollouts", ROLLOUTS, ROLLOUT_RATE, training * starts),
    ] {
        let plan = Plan {
            stage: name,
            steps_max: lessons.steps,
            batch,
            learning_rate: LEARNING_RATE * rate,
            weight_decay: Some(DECAY),
            average: AVERAGE,
            schedule: Schedule::Cosine,
            select: Select::Validation { every: (lessons.steps / 20).clamp(10, 100), patience: 20 },
        };
        let progress = &mut lessons.progress;
        let fitted = match name {
            "rollouts" => fit(plan, network, rows, &mut rng, clock, progress, rolled, alone)?,
            _ => fit(plan, network, rows, &mut rng, clock, progress, forced, alone)?,
        };
        let Fitted { weights, history, steps, ended_by } = fitted;
        let error = |point: Option<&super::LossPoint>| point.and_then(|point| point.validation);
        let (before, after) = (error(history.first()), Some(alone(&weights)?));
        best = weights;
        network = Network::build(&[], sizes, &mut Source::Values(best.iter()), &device)?;
        reports.push(StageReport {
            name,
            steps,
            ended_by,
            history,
            error_before: before,
            error_after: after,
            standard_error: None,
            accepted: before.zip(after).is_some_and(|(before, after)| after < before),
        });
    }
    Ok((Recurrence::new(config, scales, &best, lessons.device)?, reports))
}
