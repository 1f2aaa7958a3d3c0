//! The training loop, the same for every stage: batches, a schedule, budgets, and the best weights kept.

use super::progress::TimeBudget;
use super::report::{EndedBy, LossPoint};
use crate::codec::flow::network::Network;
use crate::error::Result;
use crate::progress::{Callback, Progress};
use burn::grad_clipping::GradientClippingConfig;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams};
use burn::tensor::Tensor;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::time::Instant;

/// Steps between two averages of the weights; the decay is raised to this power.
const AVERAGE_EVERY: usize = 4;
/// Share of the steps over which the learning rate rises.
const WARM_UP: f64 = 0.05;
/// Steps between two calls of the progress callback.
const REPORT_EVERY: usize = 5;

/// How the learning rate goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Schedule {
    /// Warm-up, then half a cosine down to a hundredth.
    Cosine,
    /// Halved when the batch loss has not improved for this many steps: the paper's `ReduceLROnPlateau`.
    Plateau {
        /// Steps without improvement.
        patience: usize,
    },
}

/// Which weights are the best.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Select {
    /// Those of least error on the validation split; the weights are averaged over the last thousand steps or
    /// so.
    Validation {
        /// Steps between two looks.
        every: usize,
        /// Looks without improvement that end the training.
        patience: usize,
    },
    /// The weights of least batch loss, as in the paper.
    TrainingLoss,
}

/// How to train.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) stage: &'static str,
    pub(crate) steps_max: usize,
    pub(crate) batch: usize,
    pub(crate) learning_rate: f64,
    /// `None` for plain Adam with torch's defaults.
    pub(crate) weight_decay: Option<f32>,
    pub(crate) average: f32,
    pub(crate) schedule: Schedule,
    pub(crate) select: Select,
}

/// What came out.
pub(crate) struct Fitted {
    /// The best weights, in the order of [`Network::weights`].
    pub(crate) weights: Vec<Vec<f32>>,
    pub(crate) history: Vec<LossPoint>,
    pub(crate) steps: usize,
    pub(crate) ended_by: EndedBy,
}

/// Trains `network` on `rows` training rows.
///
/// `loss` gives the loss of a batch of row numbers; `validate` the validation error of given weights.
#[expect(clippy::too_many_arguments, reason = "one loop for every stage: what differs is what is passed")]
pub(crate) fn fit(
    plan: Plan,
    mut network: Network,
    rows: usize,
    rng: &mut ChaCha8Rng,
    time: TimeBudget,
    progress: &mut Option<Callback<'_>>,
    mut loss: impl FnMut(&Network, &[usize]) -> Result<Tensor<1>>,
    mut validate: impl FnMut(&[Vec<f32>]) -> Result<f64>,
) -> Result<Fitted> {
    let mut optimizer = match plan.weight_decay {
        Some(decay) => AdamWConfig::new()
            .with_weight_decay(decay)
            .with_epsilon(1e-8)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
            .init(),
        None => AdamConfig::new().with_epsilon(1e-8).init(),
    };
    let batch = plan.batch.min(rows);
    let mut order: Vec<usize> = Vec::new();
    let mut average = network.weights();
    let mut best = (f64::INFINITY, average.clone());
    let mut looks_without_gain = 0;
    let mut rate = Rate::new(plan);
    let mut history: Vec<LossPoint> = Vec::new();
    if matches!(plan.select, Select::Validation { .. }) {
        // Step 0 is a candidate like any other, and where the loss curve begins.
        best.0 = validate(&average)?;
        history.push(LossPoint { step: 0, training: 1.0, validation: Some(best.0) });
    }
    let mut since_point: Vec<f64> = Vec::new();
    let mut steps = 0;
    let began = Instant::now();
    let ended_by = loop {
        if steps == plan.steps_max {
            break EndedBy::Steps;
        }
        if time.is_over() {
            break EndedBy::Time;
        }
        if order.len() < batch {
            order = (0..rows).collect();
            order.shuffle(rng);
        }
        let chosen = order.split_off(order.len() - batch);
        let value = loss(&network, &chosen)?;
        let number = f64::from(value.clone().into_scalar::<f32>());
        if !number.is_finite() {
            break EndedBy::Diverged;
        }
        // The loss belongs to the weights before the step, so these are what it recommends.
        if matches!(plan.select, Select::TrainingLoss) && number < best.0 {
            best = (number, network.weights());
        }
        let gradients = GradientsParams::from_grads(value.backward(), &network);
        network = optimizer.step(rate.at(steps, number), network, gradients);
        steps += 1;
        since_point.push(number);
        let mut point = None;
        match plan.select {
            Select::Validation { every, patience } => {
                if steps % AVERAGE_EVERY == 0 || steps == plan.steps_max {
                    // The bias correction of Adam's kind: a young average leans on the young weights.
                    let decay = plan.average.powi(AVERAGE_EVERY as i32);
                    let decay = decay.min((1 + steps) as f32 / (10 + steps) as f32);
                    for (average, now) in average.iter_mut().flatten().zip(network.weights().iter().flatten())
                    {
                        *average += (1.0 - decay) * (now - *average);
                    }
                }
                if steps % every == 0 || steps == plan.steps_max {
                    let error = validate(&average)?;
                    point = Some(Some(error));
                    if error < best.0 {
                        best = (error, average.clone());
                        looks_without_gain = 0;
                    } else {
                        looks_without_gain += 1;
                    }
                    if looks_without_gain == patience {
                        push_point(&mut history, &mut since_point, steps, Some(error));
                        break EndedBy::EarlyStop;
                    }
                }
            }
            Select::TrainingLoss => {
                if steps % 20 == 0 || steps == plan.steps_max {
                    point = Some(None);
                }
            }
        }
        if let Some(validation) = point {
            push_point(&mut history, &mut since_point, steps, validation);
        }
        if steps % REPORT_EVERY == 0
            && let Some(callback) = progress
        {
            let loss = history.last().map(|point| point.training);
            let done = (steps as u64, plan.steps_max as u64);
            let seen = Progress::new(plan.stage, done, time.began, began).with_loss(loss);
            if callback(&seen).is_break() {
                break EndedBy::Cancelled;
            }
        }
    };
    // A budget that ended between two looks: the last average gets its look too.
    if matches!(plan.select, Select::Validation { .. })
        && matches!(ended_by, EndedBy::Time | EndedBy::Cancelled)
    {
        let error = validate(&average)?;
        push_point(&mut history, &mut since_point, steps, Some(error));
        if error < best.0 {
            best.1 = average;
        }
    }
    Ok(Fitted { weights: best.1, history, steps, ended_by })
}

fn push_point(history: &mut Vec<LossPoint>, since: &mut Vec<f64>, step: usize, validation: Option<f64>) {
    if !since.is_empty() {
        let training = since.iter().sum::<f64>() / since.len() as f64;
        history.push(LossPoint { step, training, validation });
        since.clear();
    }
}

/// The learning rate of each step. It looks at steps and losses only, never at the time: a training that ends
/// by steps can be repeated.
struct Rate {
    plan: Plan,
    factor: f64,
    best: f64,
    stale: usize,
}

impl Rate {
    fn new(plan: Plan) -> Self {
        Self { plan, factor: 1.0, best: f64::INFINITY, stale: 0 }
    }

    fn at(&mut self, step: usize, loss: f64) -> f64 {
        let full = self.plan.learning_rate;
        match self.plan.schedule {
            Schedule::Cosine => {
                let done = (step as f64 + 1.0) / self.plan.steps_max as f64;
                let warm = (done / WARM_UP).min(1.0);
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
                full * warm * (0.01 + 0.99 * cosine)
            }
            Schedule::Plateau { patience } => {
                // torch's defaults: relative threshold 1e-4, counted from the last improvement.
                if loss < self.best * (1.0 - 1e-4) {
                    self.best = loss;
                    self.stale = 0;
                } else {
                    self.stale += 1;
                    if self.stale > patience {
                        self.factor *= 0.5;
                        self.stale = 0;
                    }
                }
                full * self.factor
            }
        }
    }
}
