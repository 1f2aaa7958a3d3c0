//! What a flow codec is made of besides its network, and its image.

use super::chain::Chain;
use super::network::Network;
use super::restore::PredictorScales;
use crate::codec::quantizer::Quantizer;
use crate::codec::weights;
use crate::error::Result;
use apcm_format::{CodecImage, FlowConfig, WeightPrecision};

/// The kind of a flow codec's image.
pub(crate) const KIND: &str = "flow";

/// The parts of a codec besides its network, on the host.
#[derive(Debug, Clone)]
pub(crate) struct FlowParameters {
    pub(crate) config: FlowConfig,
    /// Mean of the training data; none in the paper preset.
    pub(crate) mean: Option<Vec<f32>>,
    /// Principal axes, `[value, latent]`; none in the paper preset.
    pub(crate) rotation: Option<Vec<f32>>,
    pub(crate) scales: Option<PredictorScales>,
    pub(crate) quantizer: Quantizer,
}

impl FlowParameters {
    /// The codec as bytes would have it: weights rounded to the precision they are stored in.
    pub(crate) fn image(&self, chain: &Chain, network: &Network) -> Result<CodecImage> {
        let mut image = CodecImage::new(KIND, &self.config)?;
        let values = self.config.record_shape()?.values();
        if let Some(mean) = &self.mean {
            image.tensors.push(weights::tensor("mean".to_owned(), &[values], mean, WeightPrecision::F32));
        }
        if let Some(rotation) = &self.rotation {
            let dims = [values, self.config.latent as usize];
            image.tensors.push(weights::tensor(
                "rotation".to_owned(),
                &dims,
                rotation,
                self.config.precision,
            ));
        }
        chain.store(&mut image);
        self.quantizer.store(&mut image);
        if let (Some(scales), true) = (&self.scales, network.predictor.is_some()) {
            scales.store(&mut image);
        }
        network.store(&mut image, self.config.precision);
        Ok(image)
    }
}
