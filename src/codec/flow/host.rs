//! The network on the CPU, for encoding and decoding: a few records a thread, all layers one after the other.
//!
//! burn goes layer by layer over the whole batch, so that each layer's activations go to memory and come back,
//! and its products are half as fast as faer's. Here a share of the batch goes through all layers while it lies
//! in the second cache. Training, and every other device, is burn's; both compute the same network, and a test
//! holds them together. Measured beside PyTorch and burn in `docs/numbers.md`.

use super::chain::{Geometry, inverted};
use super::elementwise::{couple, gate, normalize, scaled};
use super::network::{Network, Sizes};
use super::restore::PredictorScales;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Records that go through all layers together, at most: enough to use each weight well, few enough for the
/// second cache.
const SHARE: usize = 256;
/// Values of theirs, at most.
const SHARE_VALUES: usize = 1 << 19;

/// Rows of a larger matrix: where they begin, and how far they are apart.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
}

/// `x W + b`.
#[derive(Debug)]
struct Dense {
    input: usize,
    /// `[input, output]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Dense {
    fn take(weights: &mut impl Iterator<Item = Vec<f32>>, input: usize) -> Self {
        let (weight, bias) = (weights.next().unwrap_or_default(), weights.next().unwrap_or_default());
        Self { input, weight, bias }
    }

    /// Two of the same input, side by side: one product instead of two.
    fn beside(&self, other: &Self) -> Self {
        let widths = (self.bias.len().max(1), other.bias.len().max(1));
        let rows = self.weight.chunks_exact(widths.0).zip(other.weight.chunks_exact(widths.1));
        let weight = rows.flat_map(|(a, b)| a.iter().chain(b).copied()).collect();
        let bias = self.bias.iter().chain(&other.bias).copied().collect();
        Self { input: self.input, weight, bias }
    }

    /// `x W` without the bias; the next pass over the result adds it.
    fn without_bias(&self, x: Rows<'_>, rows: usize, out: &mut Vec<f32>) {
        out.resize(rows * self.bias.len(), 0.0);
        multiply(x, rows, self.input, &self.weight, out, Accum::Replace);
    }

    /// Writes rows of the output, or adds to what is there.
    fn apply(&self, x: Rows<'_>, rows: usize, out: &mut Vec<f32>, add: bool) {
        let width = self.bias.len();
        if !add {
            out.resize(rows * width, 0.0);
        }
        for row in out.chunks_exact_mut(width) {
            if add {
                row.iter_mut().zip(&self.bias).for_each(|(out, bias)| *out += bias);
            } else {
                row.copy_from_slice(&self.bias);
            }
        }
        multiply(x, rows, self.input, &self.weight, out, Accum::Add);
    }
}

/// `out (+)= x W`, rows by rows.
fn multiply(x: Rows<'_>, rows: usize, inner: usize, weight: &[f32], out: &mut [f32], accum: Accum) {
    let width = out.len() / rows;
    matmul(
        MatMut::from_row_major_slice_mut(out, rows, width),
        accum,
        MatRef::from_row_major_slice_with_stride(x.values, rows, inner, x.stride),
        MatRef::from_row_major_slice(weight, inner, width),
        1.0,
        Par::Seq,
    );
}

/// `silu(inner x) * outer x`.
#[derive(Debug)]
struct Gate(Dense);

impl Gate {
    fn take(weights: &mut impl Iterator<Item = Vec<f32>>, width: usize) -> Self {
        let (inner, outer) = (Dense::take(weights, width), Dense::take(weights, width));
        Self(inner.beside(&outer))
    }

    fn apply(&self, rows: usize, scratch: &mut Scratch) {
        let width = self.0.input;
        self.0.without_bias(Rows { values: &scratch.entered, stride: width }, rows, &mut scratch.both);
        gate(&scratch.both, &self.0.bias, &mut scratch.entered);
    }
}

#[derive(Debug)]
struct HostBlock {
    scale: Vec<f32>,
    shift: Vec<f32>,
    enter: Dense,
    gate: Gate,
    leave: Dense,
}

/// `Linear -> SwiGLU -> HostBlock x blocks -> Linear`.
#[derive(Debug)]
struct SubNetwork {
    enter: Dense,
    gate: Gate,
    blocks: Vec<HostBlock>,
    leave: Dense,
}

/// Activations of one share, kept from layer to layer.
#[derive(Default)]
struct Scratch {
    input: Vec<f32>,
    entered: Vec<f32>,
    both: Vec<f32>,
    hidden: Vec<f32>,
    normalized: Vec<f32>,
    out: Vec<f32>,
    permuted: Vec<f32>,
}

impl SubNetwork {
    /// Weights in the order of [`Network::weights`].
    fn take(weights: &mut impl Iterator<Item = Vec<f32>>, sizes: Sizes) -> Self {
        let hidden = sizes.hidden;
        let (enter, gate) = (Dense::take(weights, sizes.input), Gate::take(weights, hidden));
        let block = |_| HostBlock {
            scale: weights.next().unwrap_or_default(),
            shift: weights.next().unwrap_or_default(),
            enter: Dense::take(weights, hidden),
            gate: Gate::take(weights, hidden),
            leave: Dense::take(weights, hidden),
        };
        let blocks = (0..sizes.blocks).map(block).collect();
        Self { enter, gate, blocks, leave: Dense::take(weights, hidden) }
    }

    /// Leaves its answer in `scratch.out`, all but the last bias.
    fn forward(&self, x: Rows<'_>, rows: usize, scratch: &mut Scratch) {
        let width = self.gate.0.input;
        self.enter.apply(x, rows, &mut scratch.entered, false);
        self.gate.apply(rows, scratch);
        std::mem::swap(&mut scratch.hidden, &mut scratch.entered);
        for block in &self.blocks {
            scratch.normalized.resize(rows * width, 0.0);
            normalize(&scratch.hidden, &block.scale, &block.shift, &mut scratch.normalized);
            let normalized = Rows { values: &scratch.normalized, stride: width };
            block.enter.apply(normalized, rows, &mut scratch.entered, false);
            block.gate.apply(rows, scratch);
            let entered = Rows { values: &scratch.entered, stride: width };
            block.leave.apply(entered, rows, &mut scratch.hidden, true);
        }
        self.leave.without_bias(Rows { values: &scratch.hidden, stride: width }, rows, &mut scratch.out);
    }
}

/// A codec's network and everything around it that computes.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    geometry: Geometry,
    /// The inverses of its permutations.
    back: Vec<Vec<u32>>,
    couplings: Vec<SubNetwork>,
    predictor: Option<SubNetwork>,
    scales: Option<PredictorScales>,
}

/// The rotation and what it turns around: `[value, latent]` and `[value]`.
#[derive(Clone, Copy)]
pub(crate) struct Rotation<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) rotation: &'a [f32],
}

impl HostNetwork {
    pub(crate) fn new(
        geometry: Geometry,
        network: &Network,
        sizes: &[Sizes],
        predictor: Option<Sizes>,
        scales: Option<PredictorScales>,
    ) -> Self {
        let mut weights = network.weights().into_iter();
        let couplings = sizes.iter().map(|&sizes| SubNetwork::take(&mut weights, sizes)).collect();
        let predictor = predictor.map(|sizes| SubNetwork::take(&mut weights, sizes));
        let back = geometry.permutations.iter().map(|order| inverted(order)).collect();
        Self { geometry, back, couplings, predictor, scales }
    }

    /// Records `[record, value]` to `z` `[record, latent]`.
    pub(crate) fn forward(&self, records: &[f32], width: usize, frame: Option<Rotation<'_>>) -> Vec<f32> {
        let latent = self.geometry.latent;
        in_shares(records, width, latent, |x, rows, scratch, out| {
            let mut z = vec![0.0; rows * latent];
            match frame {
                Some(frame) => {
                    scratch.input.resize(x.len(), 0.0);
                    for (centred, x) in scratch.input.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        let values = x.iter().zip(frame.mean);
                        centred.iter_mut().zip(values).for_each(|(centred, (x, mean))| *centred = x - mean);
                    }
                    let x = Rows { values: &scratch.input, stride: width };
                    multiply(x, rows, width, frame.rotation, &mut z, Accum::Replace);
                }
                None => z.copy_from_slice(x),
            }
            for (index, net) in self.couplings.iter().enumerate() {
                self.couple(index, net, rows, &mut z, scratch, false);
                if let Some(order) = self.geometry.permutations.get(index) {
                    permute(&mut z, order, scratch);
                }
            }
            out.copy_from_slice(&z);
        })
    }

    /// `z_comp` `[record, kept]`, dequantized, to the whole of `z`: the discarded half predicted, or zero.
    pub(crate) fn restored(&self, kept: &[f32], predict: bool) -> Vec<f32> {
        let Geometry { kept: width, latent, .. } = self.geometry;
        in_shares(kept, width, latent, |x, rows, scratch, out| {
            for (out, x) in out.chunks_exact_mut(latent).zip(x.chunks_exact(width)) {
                out[..width].copy_from_slice(x);
            }
            let Some(predictor) = self.predictor.as_ref().filter(|_| predict) else { return };
            match &self.scales {
                None => {
                    predictor.forward(Rows { values: x, stride: width }, rows, scratch);
                    let predicted = scratch.out.chunks_exact(latent - width);
                    for (out, aux) in out.chunks_exact_mut(latent).zip(predicted) {
                        let aux = aux.iter().zip(&predictor.leave.bias).map(|(aux, bias)| aux + bias);
                        out[width..].iter_mut().zip(aux).for_each(|(out, aux)| *out = aux);
                    }
                }
                Some(scales) => {
                    let mut input = std::mem::take(&mut scratch.input);
                    input.resize(x.len(), 0.0);
                    for (input, x) in input.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        scaled(x, &scales.input, super::restore::INPUT_CLAMP, input);
                    }
                    predictor.forward(Rows { values: &input, stride: width }, rows, scratch);
                    scratch.input = input;
                    for (out, mean) in out.chunks_exact_mut(latent).zip(scratch.out.chunks_exact(latent)) {
                        let mean = mean.iter().zip(&predictor.leave.bias).map(|(mean, bias)| mean + bias);
                        let scaled = mean.zip(&scales.output).map(|(mean, scale)| mean * scale);
                        out.iter_mut().zip(scaled).for_each(|(out, mean)| *out += mean);
                    }
                }
            }
        })
    }

    /// `z` `[record, latent]` to records `[record, value]`.
    pub(crate) fn inverse(&self, z: &[f32], width: usize, frame: Option<Rotation<'_>>) -> Vec<f32> {
        let latent = self.geometry.latent;
        in_shares(z, latent, width, |z, rows, scratch, out| {
            let mut x = z.to_vec();
            for (index, net) in self.couplings.iter().enumerate().rev() {
                if let Some(order) = self.back.get(index) {
                    permute(&mut x, order, scratch);
                }
                self.couple(index, net, rows, &mut x, scratch, true);
            }
            let Some(frame) = frame else { return out.copy_from_slice(&x) };
            out.chunks_exact_mut(width).for_each(|out| out.copy_from_slice(frame.mean));
            matmul(
                MatMut::from_row_major_slice_mut(out, rows, width),
                Accum::Add,
                MatRef::from_row_major_slice(&x, rows, latent),
                MatRef::from_row_major_slice(frame.rotation, width, latent).transpose(),
                1.0,
                Par::Seq,
            );
        })
    }

    /// One coupling, in place.
    fn couple(
        &self,
        index: usize,
        net: &SubNetwork,
        rows: usize,
        x: &mut [f32],
        scratch: &mut Scratch,
        inverse: bool,
    ) {
        let latent = self.geometry.latent;
        let layer = &self.geometry.layers[index];
        match &self.geometry.input_scale {
            Some(scale) => {
                let mut input = std::mem::take(&mut scratch.input);
                let width = layer.passive.len();
                input.resize(rows * width, 0.0);
                for (input, x) in input.chunks_exact_mut(width).zip(x.chunks_exact(latent)) {
                    let (x, scale) = (&x[layer.passive.clone()], &scale[layer.passive.clone()]);
                    scaled(x, scale, super::chain::INPUT_CLAMP, input);
                }
                net.forward(Rows { values: &input, stride: width }, rows, scratch);
                scratch.input = input;
            }
            None => net.forward(Rows { values: &x[layer.passive.start..], stride: latent }, rows, scratch),
        }
        for (x, both) in x.chunks_exact_mut(latent).zip(scratch.out.chunks_exact(2 * layer.active.len())) {
            couple(&mut x[layer.active.clone()], both, &net.leave.bias, self.geometry.scale_clamp, inverse);
        }
    }
}

/// Gathers each row's coordinates from where they come from.
fn permute(x: &mut Vec<f32>, order: &[u32], scratch: &mut Scratch) {
    scratch.permuted.resize(x.len(), 0.0);
    let rows = x.chunks_exact(order.len());
    for (to, from) in scratch.permuted.chunks_exact_mut(order.len()).zip(rows) {
        to.iter_mut().zip(order).for_each(|(to, &at)| *to = from[at as usize]);
    }
    std::mem::swap(x, &mut scratch.permuted);
}

/// Runs a batch in shares, on all cores where there is more than one.
fn in_shares(
    x: &[f32],
    width: usize,
    out_width: usize,
    run: impl Fn(&[f32], usize, &mut Scratch, &mut [f32]) + Sync,
) -> Vec<f32> {
    let rows = x.len() / width;
    let mut out = vec![0.0; rows * out_width];
    // No share is smaller than what fills the vector units: half as many rows would take as long.
    let most = (SHARE_VALUES / width.max(out_width)).clamp(1, SHARE);
    let share = rows.div_ceil(rayon::current_num_threads()).clamp(16.min(most), most);
    let run = |x: &[f32], out: &mut [f32]| run(x, out.len() / out_width, &mut Scratch::default(), out);
    if rows <= share {
        run(x, &mut out);
    } else {
        out.par_chunks_mut(share * out_width)
            .zip(x.par_chunks(share * width))
            .for_each(|(out, x)| run(x, out));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::chain::Chain;
    use super::super::network::{Source, host, matrix};
    use super::super::restore::Restore;
    use super::*;
    use apcm_format::{FlowConfig, Preset, QuantizerKind, WeightPrecision};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn config(preset: Preset, latent: u32, kept: u32, couplings: u32, predictor: u32) -> FlowConfig {
        FlowConfig {
            preset,
            shape: [latent, 1, 1],
            rank: 1,
            latent,
            kept,
            code_len: 4 * kept,
            quantizer: QuantizerKind::F32,
            precision: WeightPrecision::F32,
            couplings,
            coupling_hidden: 24,
            scale_clamp: if preset == Preset::Paper { 0.0 } else { 1.5 },
            permuted: preset == Preset::Paper,
            predictor_hidden: predictor,
            predictor_blocks: u32::from(preset == Preset::Ordered),
        }
    }

    fn agree(ours: &[f32], burn: Vec<f32>, what: &str) {
        assert_eq!(ours.len(), burn.len(), "{what}");
        for (ours, burn) in ours.iter().zip(burn) {
            assert!((ours - burn).abs() <= 2e-5 * burn.abs().max(1.0), "{what}: {ours} here, {burn} in burn");
        }
    }

    /// In both presets, with odd sizes, all of it kept, no couplings, no predictor, and more rows than a share
    /// has.
    #[test]
    fn the_host_computes_what_burn_computes() {
        let device = crate::codec::Device::Cpu.burn().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for (preset, latent, kept, couplings, predictor) in [
            (Preset::Paper, 11, 4, 3, 8),
            (Preset::Paper, 64, 16, 6, 0),
            (Preset::Ordered, 11, 4, 3, 8),
            (Preset::Ordered, 33, 16, 4, 20),
            (Preset::Ordered, 9, 9, 0, 12),
            (Preset::Ordered, 12, 5, 0, 0),
        ] {
            let config = config(preset, latent, kept, couplings, predictor);
            let latent = latent as usize;
            let kept = kept as usize;
            let scale: Vec<f32> = (0..latent).map(|_| rng.random_range(0.5..2.0)).collect();
            let scale = (preset == Preset::Ordered && couplings > 0).then_some(scale);
            let chain = Chain::new(&config, scale, &mut rng, &device);
            let mut draw = |count: usize, most: f32| -> Vec<f32> {
                (0..count).map(|_| rng.random_range(-most..most)).collect()
            };
            let scales = (preset == Preset::Ordered && predictor > 0)
                .then(|| PredictorScales { input: draw(kept, 2.0), output: draw(latent, 2.0) });
            let (x, mean, rotation) = (draw(300 * 13, 3.0), draw(13, 1.0), draw(13 * latent, 0.5));
            let latents = draw(300 * latent, 3.0);
            let mut source = Source::Random { rng: &mut rng, zero_last: false };
            let (sizes, of_predictor) = (Chain::sizes(&config), Restore::sizes(&config));
            let network = Network::build(&sizes, of_predictor, &mut source, &device).unwrap();
            let ours =
                HostNetwork::new(chain.geometry().clone(), &network, &sizes, of_predictor, scales.clone());
            let what = format!("{preset:?}, {latent} to {kept}");

            let z = host(chain.forward(&network, matrix(latents.clone(), latent, &device)));
            agree(&ours.forward(&latents, latent, None), z, &what);
            let back = host(chain.inverse(&network, matrix(latents.clone(), latent, &device)));
            agree(&ours.inverse(&latents, latent, None), back, &what);

            let restore = Restore::new(&config, scales.as_ref(), &device);
            let some = &latents[..300 * kept.min(latent)];
            let restored = |predict: bool| {
                let z = matrix(some.to_vec(), kept, &device);
                host(if predict { restore.predicted(&network, z) } else { restore.unpredicted(z) })
            };
            agree(&ours.restored(some, true), restored(true), &what);
            agree(&ours.restored(some, false), restored(false), &what);

            let frame = Rotation { mean: &mean, rotation: &rotation };
            let turned: Vec<f32> = x
                .chunks_exact(13)
                .flat_map(|row| {
                    let turn = |axis: usize| -> f32 {
                        (0..13).map(|i| (row[i] - mean[i]) * rotation[i * latent + axis]).sum()
                    };
                    (0..latent).map(turn).collect::<Vec<f32>>()
                })
                .collect();
            let z = host(chain.forward(&network, matrix(turned, latent, &device)));
            agree(&ours.forward(&x, 13, Some(frame)), z, &what);
            let back = ours.inverse(&latents, 13, Some(frame));
            let inner = ours.inverse(&latents, latent, None);
            let expected = inner
                .chunks_exact(latent)
                .flat_map(|row| {
                    let turn = |i: usize| -> f32 {
                        let axes = &rotation[i * latent..(i + 1) * latent];
                        mean[i] + row.iter().zip(axes).map(|(z, axis)| z * axis).sum::<f32>()
                    };
                    (0..13).map(turn).collect::<Vec<f32>>()
                })
                .collect();
            agree(&back, expected, &what);
        }
    }
}
