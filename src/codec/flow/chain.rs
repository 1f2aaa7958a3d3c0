//! The invertible chain: couplings, permutations, and which coordinates each coupling reads.
//!
//! Contract: [`Chain::inverse`] undoes [`Chain::forward`] up to rounding, for every weight, because a coupling
//! passes the half it reads through unchanged. `log|det J|` of an affine coupling is the sum of its log-scales.

use super::network::{Network, Sizes, row};
use crate::error::{Error, Result};
use apcm_format::{CodecImage, DecodeError, ElementType, FlowConfig, NamedTensor, Preset};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// Inputs of sub-networks are clamped here, in standard deviations: axes of almost no variance would otherwise
/// reach +-1,000 after scaling, and did (NaN) when this was tried without.
pub(super) const INPUT_CLAMP: f32 = 6.0;

/// One affine coupling: which coordinates it reads, which it changes.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) passive: Range<usize>,
    pub(super) active: Range<usize>,
}

/// Which coordinates each coupling reads; the weights are in a [`Network`].
#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    pub(super) layers: Vec<Layer>,
    pub(super) kept: usize,
    pub(super) latent: usize,
    /// Bound of the log-scale; none in the paper.
    pub(super) scale_clamp: Option<f32>,
    /// After each layer, where each output coordinate comes from; empty without permutations.
    pub(super) permutations: Vec<Vec<u32>>,
    /// Factors that bring the coordinates to unit variance; none in the paper, which feeds them raw.
    pub(super) input_scale: Option<Vec<f32>>,
}

/// A chain's geometry, and what of it lies on a device.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    geometry: Geometry,
    placed: Placed,
}

/// What the chain keeps on its device.
#[derive(Debug, Clone)]
struct Placed {
    forward: Vec<Tensor<1, Int>>,
    inverse: Vec<Tensor<1, Int>>,
    input_scale: Option<Tensor<2>>,
}

impl Chain {
    /// A new chain; permutations are drawn from `rng`.
    pub(crate) fn new(
        config: &FlowConfig,
        input_scale: Option<Vec<f32>>,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let permutations = if config.permuted {
            let draw = |_| {
                let mut order: Vec<u32> = (0..config.latent).collect();
                order.shuffle(rng);
                order
            };
            (0..config.couplings).map(draw).collect()
        } else {
            Vec::new()
        };
        Self::assemble(config, permutations, input_scale, device)
    }

    /// A stored chain.
    pub(crate) fn load(config: &FlowConfig, image: &CodecImage, device: &Device) -> Result<Self> {
        let latent = config.latent as usize;
        let permutation = |index| -> Result<Vec<u32>> {
            let tensor = image.tensor(&format!("permutation{index}"), ElementType::U32, &[latent])?;
            let order: Vec<u32> =
                tensor.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let mut seen = vec![false; latent];
            for &from in &order {
                match seen.get_mut(from as usize) {
                    Some(seen) if !*seen => *seen = true,
                    _ => {
                        return Err(Error::Format(DecodeError::Invalid {
                            what: "an entry of a permutation",
                            found: from.into(),
                        }));
                    }
                }
            }
            Ok(order)
        };
        let permutations = if config.permuted {
            (0..config.couplings).map(permutation).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        let input_scale = if config.preset == Preset::Ordered && config.couplings > 0 {
            Some(crate::codec::weights::floats(image.tensor(
                "chain.input_scale",
                ElementType::F32,
                &[latent],
            )?)?)
        } else {
            None
        };
        Ok(Self::assemble(config, permutations, input_scale, device))
    }

    fn assemble(
        config: &FlowConfig,
        permutations: Vec<Vec<u32>>,
        input_scale: Option<Vec<f32>>,
        device: &Device,
    ) -> Self {
        let (kept, latent) = (config.kept as usize, config.latent as usize);
        let layers = (0..config.couplings as usize)
            .map(|index| match config.preset {
                // Halves; the odd coordinate goes to the half that is read.
                Preset::Paper => {
                    let half = latent.div_ceil(2);
                    Layer { passive: 0..half, active: half..latent }
                }
                // Lifting: predict the aux from the kept, then let the aux bend the kept, and so on.
                Preset::Ordered if index % 2 == 0 => Layer { passive: 0..kept, active: kept..latent },
                Preset::Ordered => Layer { passive: kept..latent, active: 0..kept },
            })
            .collect();
        let ints = |order: &[u32]| {
            let order: Vec<i32> = order.iter().map(|&from| from as i32).collect();
            let len = order.len();
            Tensor::<1, Int>::from_data(TensorData::new(order, [len]), device)
        };
        let placed = Placed {
            forward: permutations.iter().map(|order| ints(order)).collect(),
            inverse: permutations.iter().map(|order| ints(&inverted(order))).collect(),
            input_scale: input_scale.clone().map(|scale| row(scale, device)),
        };
        let scale_clamp = (config.scale_clamp > 0.0).then_some(config.scale_clamp);
        let geometry = Geometry { layers, kept, latent, scale_clamp, permutations, input_scale };
        Self { geometry, placed }
    }

    /// The same chain on another device.
    pub(crate) fn on(&self, config: &FlowConfig, device: &Device) -> Self {
        Self::assemble(config, self.geometry.permutations.clone(), self.geometry.input_scale.clone(), device)
    }

    pub(crate) fn store(&self, image: &mut CodecImage) {
        for (index, order) in self.geometry.permutations.iter().enumerate() {
            image.tensors.push(NamedTensor {
                name: format!("permutation{index}"),
                element: ElementType::U32,
                dims: vec![order.len() as u32],
                bytes: order.iter().flat_map(|from| from.to_le_bytes()).collect(),
            });
        }
        if let Some(scale) = &self.geometry.input_scale
            && !self.geometry.layers.is_empty()
        {
            image.tensors.push(crate::codec::weights::tensor(
                "chain.input_scale".to_owned(),
                &[scale.len()],
                scale,
                apcm_format::WeightPrecision::F32,
            ));
        }
    }

    /// Sizes of the sub-network of each coupling.
    pub(crate) fn sizes(config: &FlowConfig) -> Vec<Sizes> {
        let (kept, latent) = (config.kept as usize, config.latent as usize);
        (0..config.couplings as usize)
            .map(|index| {
                let (input, active) = match config.preset {
                    Preset::Paper => (latent.div_ceil(2), latent / 2),
                    Preset::Ordered if index % 2 == 0 => (kept, latent - kept),
                    Preset::Ordered => (latent - kept, kept),
                };
                Sizes { input, hidden: config.coupling_hidden as usize, output: 2 * active, blocks: 2 }
            })
            .collect()
    }

    /// Coordinates to `z = [z_comp | z_aux]`.
    ///
    /// # Shapes
    /// - `x`: `[record, latent]`
    /// - returns `[record, latent]`, the first `kept` of them `z_comp`
    pub(crate) fn forward(&self, network: &Network, x: Tensor<2>) -> Tensor<2> {
        let mut x = x;
        for (index, (layer, net)) in self.geometry.layers.iter().zip(&network.couplings).enumerate() {
            let (s, t) = self.scale_and_shift(layer, net, &x);
            let active = columns(&x, &layer.active) * s.exp() + t;
            x = joined(layer, columns(&x, &layer.passive), active);
            if let Some(order) = self.placed.forward.get(index) {
                x = x.select(1, order.clone());
            }
        }
        x
    }

    /// Undoes [`forward`](Self::forward), up to rounding: about 1e-6 relative a layer.
    ///
    /// # Shapes
    /// - `z`: `[record, latent]`
    /// - returns `[record, latent]`
    pub(crate) fn inverse(&self, network: &Network, z: Tensor<2>) -> Tensor<2> {
        let mut z = z;
        for (index, (layer, net)) in self.geometry.layers.iter().zip(&network.couplings).enumerate().rev() {
            if let Some(order) = self.placed.inverse.get(index) {
                z = z.select(1, order.clone());
            }
            let (s, t) = self.scale_and_shift(layer, net, &z);
            let active = (columns(&z, &layer.active) - t) * s.neg().exp();
            z = joined(layer, columns(&z, &layer.passive), active);
        }
        z
    }

    /// The log-scale `s` and the shift `t` that a coupling reads off its passive half.
    fn scale_and_shift(
        &self,
        layer: &Layer,
        net: &super::network::SubNetwork,
        x: &Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>) {
        let mut input = columns(x, &layer.passive);
        if let Some(scale) = &self.placed.input_scale {
            input = (input * columns(scale, &layer.passive)).clamp(-INPUT_CLAMP, INPUT_CLAMP);
        }
        let both = net.forward(input);
        let width = layer.active.len();
        let s = columns(&both, &(0..width));
        let t = columns(&both, &(width..2 * width));
        match self.geometry.scale_clamp {
            Some(bound) => (s.div_scalar(bound).tanh().mul_scalar(bound), t),
            None => (s, t),
        }
    }

    /// Which coordinates each coupling reads.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Length of `z_comp`.
    pub(crate) fn kept(&self) -> usize {
        self.geometry.kept
    }

    /// Length of `z`.
    pub(crate) fn latent(&self) -> usize {
        self.geometry.latent
    }
}

/// The inverse of a permutation.
pub(super) fn inverted(order: &[u32]) -> Vec<u32> {
    let mut inverse = vec![0; order.len()];
    for (to, &from) in order.iter().enumerate() {
        inverse[from as usize] = to as u32;
    }
    inverse
}

/// The columns of a range.
pub(crate) fn columns(x: &Tensor<2>, range: &Range<usize>) -> Tensor<2> {
    let [rows, _] = x.dims();
    x.clone().slice([0..rows, range.clone()])
}

fn joined(layer: &Layer, passive: Tensor<2>, active: Tensor<2>) -> Tensor<2> {
    if layer.passive.start < layer.active.start {
        Tensor::cat(vec![passive, active], 1)
    } else {
        Tensor::cat(vec![active, passive], 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::flow::network::{Source, host, matrix};
    use crate::codec::flow::restore::Restore;
    use apcm_format::{QuantizerKind, WeightPrecision};
    use rand::{RngExt, SeedableRng};

    fn config(preset: Preset) -> FlowConfig {
        FlowConfig {
            preset,
            shape: [11, 1, 1],
            rank: 1,
            latent: 11,
            kept: 4,
            code_len: 16,
            quantizer: QuantizerKind::F32,
            precision: WeightPrecision::F32,
            couplings: 3,
            coupling_hidden: 8,
            scale_clamp: if preset == Preset::Paper { 0.0 } else { 1.0 },
            permuted: preset == Preset::Paper,
            predictor_hidden: 8,
            predictor_blocks: 1,
        }
    }

    /// With weights that do something, on an odd number of coordinates, in both presets.
    #[test]
    fn inverse_undoes_forward_and_the_log_determinant_is_the_sum_of_the_log_scales() {
        for preset in [Preset::Paper, Preset::Ordered] {
            let config = config(preset);
            let device = crate::codec::Device::Cpu.burn().unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let scale = (preset == Preset::Ordered).then(|| vec![1.0; 11]);
            let chain = Chain::new(&config, scale, &mut rng, &device);
            let mut source = Source::Random { rng: &mut rng, zero_last: false };
            let network =
                Network::build(&Chain::sizes(&config), Restore::sizes(&config), &mut source, &device)
                    .unwrap();
            let x: Vec<f32> = (0..11 * 5).map(|_| rng.random_range(-2.0..2.0)).collect();
            let z = chain.forward(&network, matrix(x.clone(), 11, &device));
            assert!(
                host(z.clone()).iter().zip(&x).any(|(z, x)| (z - x).abs() > 0.01),
                "{preset:?} does nothing"
            );
            let back = host(chain.inverse(&network, z));
            for (x, y) in x.iter().zip(back) {
                assert!((x - y).abs() < 1e-5, "{preset:?}: {x} came back as {y}");
            }
            // A coupling scales its active half by exp(s): the volume of a small cube around x changes by
            // sum(s).
            let one = &x[..11];
            let step = 1e-2_f32;
            let column = |j: usize, sign: f32| {
                let mut moved = one.to_vec();
                moved[j] += sign * step;
                host(chain.forward(&network, matrix(moved, 11, &device)))
            };
            let mut jacobian: Vec<Vec<f64>> = (0..11)
                .map(|j| {
                    let (plus, minus) = (column(j, 1.0), column(j, -1.0));
                    plus.iter().zip(&minus).map(|(p, m)| f64::from(p - m) / f64::from(2.0 * step)).collect()
                })
                .collect();
            let mut numeric = 0.0;
            for i in 0..11 {
                let pivot =
                    (i..11).max_by(|&a, &b| jacobian[a][i].abs().total_cmp(&jacobian[b][i].abs())).unwrap();
                jacobian.swap(i, pivot);
                numeric += jacobian[i][i].abs().ln();
                let pivot = jacobian[i].clone();
                for row in &mut jacobian[i + 1..] {
                    let factor = row[i] / pivot[i];
                    row.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
                }
            }
            let mut exact = 0.0;
            let mut at = matrix(one.to_vec(), 11, &device);
            for (index, (layer, net)) in chain.geometry.layers.iter().zip(&network.couplings).enumerate() {
                let (s, t) = chain.scale_and_shift(layer, net, &at);
                exact += host(s.clone()).iter().map(|&s| f64::from(s)).sum::<f64>();
                at = joined(layer, columns(&at, &layer.passive), columns(&at, &layer.active) * s.exp() + t);
                if let Some(order) = chain.placed.forward.get(index) {
                    at = at.select(1, order.clone());
                }
            }
            assert!((numeric - exact).abs() < 5e-3, "{preset:?}: {numeric} and {exact}");
        }
    }
}
