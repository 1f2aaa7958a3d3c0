//! The sub-network of couplings and predictor, and the network they form.
//!
//! One type serves all: `Linear -> SwiGLU -> ResidualBlock x blocks -> Linear`. With two blocks it is the
//! paper's coupling sub-network, with none the paper's predictor.

use crate::codec::weights;
use crate::error::Result;
use apcm_format::{CodecImage, WeightPrecision};
use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, SwiGlu, SwiGluConfig};
use burn::tensor::{Device, Tensor, TensorData, activation::silu};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Sizes of a sub-network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) input: usize,
    pub(crate) hidden: usize,
    pub(crate) output: usize,
    pub(crate) blocks: usize,
}

/// Where weights come from.
pub(crate) enum Source<'a> {
    /// Uniform in `+-1/sqrt(inputs)`; the last layer of each sub-network zero where `zero_last` says so.
    Random { rng: &'a mut ChaCha8Rng, zero_last: bool },
    /// A stored codec.
    Image { image: &'a CodecImage, precision: WeightPrecision },
    /// Weights in the order of [`Network::weights`].
    Values(std::slice::Iter<'a, Vec<f32>>),
}

impl Source<'_> {
    fn take(&mut self, name: &str, dims: &[usize], fan_in: usize, init: Init) -> Result<Vec<f32>> {
        let count = dims.iter().product();
        match self {
            Self::Random { rng, zero_last } => Ok(match init {
                Init::Ones => vec![1.0; count],
                Init::Zeros => vec![0.0; count],
                Init::Last if *zero_last => vec![0.0; count],
                Init::Last | Init::Uniform => {
                    let bound = 1.0 / (fan_in as f32).sqrt();
                    (0..count).map(|_| rng.random_range(-bound..bound)).collect()
                }
            }),
            Self::Image { image, precision } => {
                weights::floats(image.tensor(name, weights::element(*precision), dims)?)
            }
            Self::Values(values) => Ok(values.next().cloned().unwrap_or_else(|| vec![0.0; count])),
        }
    }
}

#[derive(Clone, Copy)]
enum Init {
    Uniform,
    Last,
    Ones,
    Zeros,
}

/// `x + Linear(SwiGLU(Linear(LayerNorm(x))))`.
#[derive(Module, Debug)]
struct ResidualBlock {
    norm: LayerNorm,
    enter: Linear,
    gate: SwiGlu,
    leave: Linear,
}

/// `Linear -> SwiGLU -> ResidualBlock x blocks -> Linear`.
#[derive(Module, Debug)]
pub(crate) struct SubNetwork {
    enter: Linear,
    gate: SwiGlu,
    blocks: Vec<ResidualBlock>,
    leave: Linear,
}

impl SubNetwork {
    pub(crate) fn build(sizes: Sizes, name: &str, source: &mut Source<'_>, device: &Device) -> Result<Self> {
        let Sizes { input, hidden, output, blocks } = sizes;
        let block = |index: usize, source: &mut Source<'_>| -> Result<ResidualBlock> {
            let name = format!("{name}.block{index}");
            let mut norm = LayerNormConfig::new(hidden).init(device);
            norm.gamma =
                vector(source.take(&format!("{name}.norm.scale"), &[hidden], hidden, Init::Ones)?, device);
            norm.beta = Some(vector(
                source.take(&format!("{name}.norm.shift"), &[hidden], hidden, Init::Zeros)?,
                device,
            ));
            Ok(ResidualBlock {
                norm,
                enter: linear(hidden, hidden, &format!("{name}.enter"), Init::Uniform, source, device)?,
                gate: gate(hidden, &format!("{name}.gate"), source, device)?,
                leave: linear(hidden, hidden, &format!("{name}.leave"), Init::Uniform, source, device)?,
            })
        };
        Ok(Self {
            enter: linear(input, hidden, &format!("{name}.enter"), Init::Uniform, source, device)?,
            gate: gate(hidden, &format!("{name}.gate"), source, device)?,
            blocks: (0..blocks).map(|index| block(index, source)).collect::<Result<_>>()?,
            leave: linear(hidden, output, &format!("{name}.leave"), Init::Last, source, device)?,
        })
    }

    /// # Shapes
    /// - `x`: `[record, input]`
    /// - returns `[record, output]`
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut hidden = swiglu(&self.gate, self.enter.forward(x));
        for block in &self.blocks {
            let inner = swiglu(&block.gate, block.enter.forward(block.norm.forward(hidden.clone())));
            hidden = hidden + block.leave.forward(inner);
        }
        self.leave.forward(hidden)
    }

    fn visit(&self, name: &str, each: &mut impl FnMut(String, Weight<'_>)) {
        visit_linear(&format!("{name}.enter"), &self.enter, each);
        visit_gate(&format!("{name}.gate"), &self.gate, each);
        for (index, block) in self.blocks.iter().enumerate() {
            let name = format!("{name}.block{index}");
            each(format!("{name}.norm.scale"), Weight::Vector(&block.norm.gamma));
            if let Some(shift) = &block.norm.beta {
                each(format!("{name}.norm.shift"), Weight::Vector(shift));
            }
            visit_linear(&format!("{name}.enter"), &block.enter, each);
            visit_gate(&format!("{name}.gate"), &block.gate, each);
            visit_linear(&format!("{name}.leave"), &block.leave, each);
        }
        visit_linear(&format!("{name}.leave"), &self.leave, each);
    }
}

fn visit_linear(name: &str, layer: &Linear, each: &mut impl FnMut(String, Weight<'_>)) {
    each(format!("{name}.weight"), Weight::Matrix(&layer.weight));
    if let Some(bias) = &layer.bias {
        each(format!("{name}.bias"), Weight::Vector(bias));
    }
}

fn visit_gate(name: &str, gate: &SwiGlu, each: &mut impl FnMut(String, Weight<'_>)) {
    visit_linear(&format!("{name}.inner"), &gate.linear_inner, each);
    visit_linear(&format!("{name}.outer"), &gate.linear_outer, each);
}

/// Gate first, as the paper writes it: `silu(inner x) * outer x`.
fn swiglu(gate: &SwiGlu, x: Tensor<2>) -> Tensor<2> {
    silu(gate.linear_inner.forward(x.clone())) * gate.linear_outer.forward(x)
}

enum Weight<'a> {
    Matrix(&'a Param<Tensor<2>>),
    Vector(&'a Param<Tensor<1>>),
}

/// Every trained weight of a codec: the couplings' sub-networks and the predictor.
#[derive(Module, Debug)]
pub(crate) struct Network {
    pub(crate) couplings: Vec<SubNetwork>,
    pub(crate) predictor: Option<SubNetwork>,
}

impl Network {
    pub(crate) fn build(
        couplings: &[Sizes],
        predictor: Option<Sizes>,
        source: &mut Source<'_>,
        device: &Device,
    ) -> Result<Self> {
        let couplings = couplings
            .iter()
            .enumerate()
            .map(|(index, &sizes)| SubNetwork::build(sizes, &format!("coupling{index}"), source, device))
            .collect::<Result<_>>()?;
        let predictor =
            predictor.map(|sizes| SubNetwork::build(sizes, "predictor", source, device)).transpose()?;
        Ok(Self { couplings, predictor })
    }

    fn visit_weights(&self, each: &mut impl FnMut(String, Weight<'_>)) {
        for (index, coupling) in self.couplings.iter().enumerate() {
            coupling.visit(&format!("coupling{index}"), each);
        }
        if let Some(predictor) = &self.predictor {
            predictor.visit("predictor", each);
        }
    }

    /// Copies of all weights, in one fixed order.
    pub(crate) fn weights(&self) -> Vec<Vec<f32>> {
        let mut all = Vec::new();
        self.visit_weights(&mut |_, weight| all.push(weight.values().1));
        all
    }

    /// Adds all weights to an image.
    pub(crate) fn store(&self, image: &mut CodecImage, precision: WeightPrecision) {
        self.visit_weights(&mut |name, weight| {
            let (dims, values) = weight.values();
            image.tensors.push(weights::tensor(name, &dims, &values, precision));
        });
    }

    /// How many weights there are.
    pub(crate) fn parameters(&self) -> usize {
        let mut count = 0;
        self.visit_weights(&mut |_, weight| {
            count += match weight {
                Weight::Matrix(param) => param.val().shape().num_elements(),
                Weight::Vector(param) => param.val().shape().num_elements(),
            };
        });
        count
    }
}

impl Weight<'_> {
    fn values(&self) -> (Vec<usize>, Vec<f32>) {
        match self {
            Self::Matrix(param) => (param.val().dims().to_vec(), host(param.val())),
            Self::Vector(param) => (param.val().dims().to_vec(), host(param.val())),
        }
    }
}

/// A tensor's values on the host.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// `[rows, columns]` on a device.
pub(crate) fn matrix(values: Vec<f32>, columns: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / columns;
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// `[1, columns]` on a device, to be spread over rows.
pub(crate) fn row(values: Vec<f32>, device: &Device) -> Tensor<2> {
    let columns = values.len();
    matrix(values, columns, device)
}

fn vector(values: Vec<f32>, device: &Device) -> Param<Tensor<1>> {
    let len = values.len();
    Param::from_data(TensorData::new(values, [len]), device)
}

fn linear(
    input: usize,
    output: usize,
    name: &str,
    init: Init,
    source: &mut Source<'_>,
    device: &Device,
) -> Result<Linear> {
    let weight = source.take(&format!("{name}.weight"), &[input, output], input, init)?;
    let bias = source.take(&format!("{name}.bias"), &[output], input, init)?;
    let mut layer = LinearConfig::new(1, 1).init(device);
    layer.weight = Param::from_data(TensorData::new(weight, [input, output]), device);
    layer.bias = Some(vector(bias, device));
    Ok(layer)
}

fn gate(width: usize, name: &str, source: &mut Source<'_>, device: &Device) -> Result<SwiGlu> {
    let mut gate = SwiGluConfig::new(1, 1).with_bias(true).init(device);
    gate.linear_inner = linear(width, width, &format!("{name}.inner"), Init::Uniform, source, device)?;
    gate.linear_outer = linear(width, width, &format!("{name}.outer"), Init::Uniform, source, device)?;
    Ok(gate)
}
