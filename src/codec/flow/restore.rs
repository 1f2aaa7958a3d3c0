//! From the kept coordinates to the whole latent: what a read predicts again.

use super::chain::columns;
use super::network::{Network, Sizes, row};
use crate::codec::weights;
use crate::error::Result;
use apcm_format::{CodecImage, ElementType, FlowConfig, Preset, WeightPrecision};
use burn::tensor::{Device, Tensor};

/// Inputs of the predictor are clamped here, in standard deviations.
pub(super) const INPUT_CLAMP: f32 = 6.0;

/// Factors around the predictor: its inputs come at unit variance, and so do the outputs asked of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PredictorScales {
    /// One over the deviation of each dequantized coordinate, `[kept]`.
    pub(crate) input: Vec<f32>,
    /// The deviation of what is asked of each output, `[latent]`.
    pub(crate) output: Vec<f32>,
}

impl PredictorScales {
    pub(crate) fn store(&self, image: &mut CodecImage) {
        for (name, scale) in
            [("predictor.input_scale", &self.input), ("predictor.output_scale", &self.output)]
        {
            image.tensors.push(weights::tensor(name.to_owned(), &[scale.len()], scale, WeightPrecision::F32));
        }
    }

    pub(crate) fn load(config: &FlowConfig, image: &CodecImage) -> Result<Option<Self>> {
        if config.predictor_hidden == 0 || config.preset == Preset::Paper {
            return Ok(None);
        }
        let take = |name, len: u32| weights::floats(image.tensor(name, ElementType::F32, &[len as usize])?);
        Ok(Some(Self {
            input: take("predictor.input_scale", config.kept)?,
            output: take("predictor.output_scale", config.latent)?,
        }))
    }
}

/// Fills in what was not stored.
///
/// The paper's predictor gives `z_aux` from `z_comp`. In the ordered preset it gives the conditional mean of
/// the *whole* latent given the dequantized code, so it restores what was dropped and what rounding lost.
#[derive(Debug, Clone)]
pub(crate) struct Restore {
    kept: usize,
    latent: usize,
    scales: Option<(Tensor<2>, Tensor<2>)>,
}

impl Restore {
    pub(crate) fn new(config: &FlowConfig, scales: Option<&PredictorScales>, device: &Device) -> Self {
        Self {
            kept: config.kept as usize,
            latent: config.latent as usize,
            scales: scales
                .map(|scales| (row(scales.input.clone(), device), row(scales.output.clone(), device))),
        }
    }

    /// Sizes of the predictor, if the configuration has one.
    pub(crate) fn sizes(config: &FlowConfig) -> Option<Sizes> {
        let output = match config.preset {
            Preset::Paper => config.latent - config.kept,
            Preset::Ordered => config.latent,
        };
        (config.predictor_hidden > 0 && output > 0).then_some(Sizes {
            input: config.kept as usize,
            hidden: config.predictor_hidden as usize,
            output: output as usize,
            blocks: config.predictor_blocks as usize,
        })
    }

    /// The whole latent, the discarded part predicted.
    ///
    /// # Shapes
    /// - `kept`: `[record, kept]`, dequantized
    /// - returns `[record, latent]`
    pub(crate) fn predicted(&self, network: &Network, kept: Tensor<2>) -> Tensor<2> {
        match (&network.predictor, &self.scales) {
            (None, _) => self.unpredicted(kept),
            (Some(predictor), None) => Tensor::cat(vec![kept.clone(), predictor.forward(kept)], 1),
            (Some(predictor), Some((input, output))) => {
                let scaled = (kept.clone() * input.clone()).clamp(-INPUT_CLAMP, INPUT_CLAMP);
                let mean = predictor.forward(scaled) * output.clone();
                let corrected = kept + columns(&mean, &(0..self.kept));
                if self.kept == self.latent {
                    corrected
                } else {
                    Tensor::cat(vec![corrected, columns(&mean, &(self.kept..self.latent))], 1)
                }
            }
        }
    }

    /// The whole latent, the discarded part zero.
    pub(crate) fn unpredicted(&self, kept: Tensor<2>) -> Tensor<2> {
        let [rows, _] = kept.dims();
        if self.kept == self.latent {
            return kept;
        }
        let zeros = Tensor::zeros([rows, self.latent - self.kept], &kept.device());
        Tensor::cat(vec![kept, zeros], 1)
    }
}
