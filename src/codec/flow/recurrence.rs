//! A memory that a network writes to, step by step: `m' = m + g(m, x, t)`.
//!
//! `g` is the sub-network that couplings and predictors are made of. The position goes in as a row of zeros
//! with a one: it opens the gates (SwiGLU) of the units that write what belongs to that position.

use super::network::{Network, Sizes, Source, host, matrix, row};
use crate::codec::{Device, weights};
use crate::error::{Error, Result};
use apcm_format::{CodecImage, DecodeError, ElementType, RecurrenceConfig, WeightPrecision};
use burn::tensor::{Device as BurnDevice, Tensor};

/// Inputs are clamped here, in standard deviations.
const INPUT_CLAMP: f32 = 6.0;

/// Names a recurrence among the images of codecs.
pub(crate) const KIND: &str = "recurrence";

/// Factors around the network. What goes in keeps some of its order: strong coordinates stay the stronger ones.
#[derive(Debug, Clone)]
pub(crate) struct Scales {
    pub(crate) memory: Vec<f32>,
    pub(crate) input: Vec<f32>,
    pub(crate) output: Vec<f32>,
}

/// The network and what stands around it.
#[derive(Debug)]
pub(crate) struct Recurrence {
    config: RecurrenceConfig,
    scales: Scales,
    network: Network,
    step: Step,
}

/// Constants of a step, on a device.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    memory: Tensor<2>,
    input: Tensor<2>,
    output: Tensor<2>,
    positions: usize,
    /// Weight of the position input: as much as all other inputs together, or no gate would see it.
    weight: f32,
    device: BurnDevice,
}

impl Step {
    pub(crate) fn new(scales: &Scales, positions: usize, device: &BurnDevice) -> Self {
        Self {
            memory: row(scales.memory.clone(), device),
            input: row(scales.input.clone(), device),
            output: row(scales.output.clone(), device),
            positions,
            weight: ((scales.memory.len() + scales.input.len()) as f32).sqrt(),
            device: device.clone(),
        }
    }

    /// One step.
    ///
    /// # Shapes
    /// - `memory`: `[row, memory]`; `input`: `[row, input]`; `positions`: one a row
    /// - returns `[row, memory]`
    pub(crate) fn apply(
        &self,
        network: &Network,
        memory: Tensor<2>,
        input: Tensor<2>,
        positions: &[usize],
    ) -> Tensor<2> {
        let Some(g) = &network.predictor else { return memory };
        let mut ones = vec![0.0; positions.len() * self.positions];
        for (row, &position) in ones.chunks_exact_mut(self.positions).zip(positions) {
            row[position] = self.weight;
        }
        let seen = Tensor::cat(
            vec![
                (memory.clone() * self.memory.clone()).clamp(-INPUT_CLAMP, INPUT_CLAMP),
                (input * self.input.clone()).clamp(-INPUT_CLAMP, INPUT_CLAMP),
                matrix(ones, self.positions, &self.device),
            ],
            1,
        );
        memory + g.forward(seen) * self.output.clone()
    }
}

impl Recurrence {
    pub(crate) fn sizes(config: &RecurrenceConfig) -> Sizes {
        Sizes {
            input: (config.memory + config.input + config.positions) as usize,
            hidden: config.hidden as usize,
            output: config.memory as usize,
            blocks: 0,
        }
    }

    /// One with these weights, rounded as they are stored.
    pub(crate) fn new(
        config: RecurrenceConfig,
        scales: Scales,
        weights: &[Vec<f32>],
        device: Device,
    ) -> Result<Self> {
        let mut source = Source::Values(weights.iter());
        let network = Network::build(&[], Some(Self::sizes(&config)), &mut source, &device.burn()?)?;
        let made = Self::with(config, scales, network, &device.burn()?);
        Self::from_image(&made.image()?, device)
    }

    fn with(config: RecurrenceConfig, scales: Scales, network: Network, device: &BurnDevice) -> Self {
        let step = Step::new(&scales, config.positions as usize, device);
        Self { config, scales, network, step }
    }

    pub(crate) fn config(&self) -> &RecurrenceConfig {
        &self.config
    }

    /// The memory after a step, `[memory]`.
    pub(crate) fn next(&self, memory: &[f32], input: &[f32], position: usize) -> Vec<f32> {
        let memory = matrix(memory.to_vec(), memory.len(), &self.step.device);
        let input = matrix(input.to_vec(), input.len(), &self.step.device);
        host(self.step.apply(&self.network, memory, input, &[position]))
    }

    pub(crate) fn parameters(&self) -> u64 {
        self.network.parameters() as u64
    }

    pub(crate) fn image(&self) -> Result<CodecImage> {
        let mut image = CodecImage::new(KIND, &self.config)?;
        for (name, scale) in
            [("memory", &self.scales.memory), ("input", &self.scales.input), ("output", &self.scales.output)]
        {
            let name = format!("scale.{name}");
            image.tensors.push(weights::tensor(name, &[scale.len()], scale, WeightPrecision::F32));
        }
        self.network.store(&mut image, WeightPrecision::F16);
        Ok(image)
    }

    pub(crate) fn from_image(image: &CodecImage, device: Device) -> Result<Self> {
        if image.kind != KIND {
            return Err(Error::UnknownCodec { kind: image.kind.clone() });
        }
        let config: RecurrenceConfig = image.config()?;
        config.check().map_err(|cause: DecodeError| Error::Format(cause))?;
        let scale = |name: &str, len: u32| {
            weights::floats(image.tensor(&format!("scale.{name}"), ElementType::F32, &[len as usize])?)
        };
        let scales = Scales {
            memory: scale("memory", config.memory)?,
            input: scale("input", config.input)?,
            output: scale("output", config.memory)?,
        };
        let burn = device.burn()?;
        let mut source = Source::Image { image, precision: WeightPrecision::F16 };
        let network = Network::build(&[], Some(Self::sizes(&config)), &mut source, &burn)?;
        Ok(Self::with(config, scales, network, &burn))
    }
}
