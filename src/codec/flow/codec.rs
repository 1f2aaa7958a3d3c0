//! The codec: encode in batches, measure, decode.

use super::chain::Chain;
use super::host::{HostNetwork, Rotation};
use super::network::{Network, Source, host, matrix, row};
use super::parameters::FlowParameters;
use super::restore::{PredictorScales, Restore};
use crate::codec::quantizer::Quantizer;
use crate::codec::{Codec, CodecInfo, Device, Encoded, StoredCode, error_and_norm, mean_record, weights};
use crate::error::Result;
use crate::record::{Records, check_shape, column_means};
use crate::whole_file::{self, Taken};
use apcm_format::{CodecImage, ElementType, FlowConfig, Preset, RecordShape, Similarity, limits};
use burn::tensor::{Device as BurnDevice, Tensor};
use rayon::prelude::*;
use std::path::Path;

/// Records that go through the network at a time: enough to fill the cores.
const BATCH: usize = 1_024;
/// Values that go through the network at a time: little enough to stay in memory, whatever a record's size.
const BATCH_VALUES: usize = 1 << 24;

/// A codec around an invertible network.
///
/// Made by a [`Trainer`](crate::Trainer), by [`pca`](Self::pca), or loaded from a file. Encoding and decoding
/// work in batches on all cores, or on a GPU; one record costs nearly as much as thirty.
///
/// ```
/// use apcm::{Codec, FlowCodec, QuantizerSpec, Records};
/// # fn main() -> apcm::Result<()> {
/// // Points on a line in space: one coordinate says it all.
/// let mut records = Records::with_dims(&[3])?;
/// for i in 0..100 {
///     let t = i as f32 / 50.0 - 1.0;
///     records.push_values(&[t, 2.0 * t, -t])?;
/// }
/// let codec = FlowCodec::pca(&records, QuantizerSpec::F16(1))?;
/// let encoded = codec.encode(&records)?;
/// assert_eq!(encoded[0].code.len(), 2);
/// assert!(encoded.iter().all(|encoded| encoded.error < 1e-6));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct FlowCodec {
    parameters: FlowParameters,
    shape: RecordShape,
    computes: Computes,
    /// Projection of the mean on the kept axes, and the length of what no kept axis carries.
    mean_search: Option<(Vec<f32>, f32)>,
    chain: Chain,
    network: Network,
}

/// Where encoding and decoding happen.
#[derive(Debug)]
enum Computes {
    /// On the CPU's cores, by themselves.
    Host(Box<HostNetwork>),
    /// On a device, by burn.
    Device(Box<OnDevice>),
}

/// Everything around the network, on its device.
#[derive(Debug)]
struct OnDevice {
    device: BurnDevice,
    mean: Option<Tensor<2>>,
    rotation: Option<Tensor<2>>,
    rotation_back: Option<Tensor<2>>,
    restore: Restore,
}

impl FlowCodec {
    /// Loads a codec from a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io) and [`Format`](crate::Error::Format).
    pub fn load(path: impl AsRef<Path>, device: Device) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(crate::Error::io(path))?;
        Self::from_image(&CodecImage::decode(&bytes)?, device)
    }

    /// Writes the codec to a new file of its own: under that name there is all of it or nothing, durably.
    ///
    /// # Errors
    /// [`Exists`](crate::Error::Exists), [`Io`](crate::Error::Io); an older file of that name is unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        whole_file::write(path.as_ref(), &self.image()?.encode()?, Taken::Refuse)
    }

    /// The same, replacing an older file, which is unchanged until the new one is complete.
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io).
    pub fn save_over(&self, path: impl AsRef<Path>) -> Result<()> {
        whole_file::write(path.as_ref(), &self.image()?.encode()?, Taken::Replace)
    }

    /// Builds a codec from its image, on a device.
    ///
    /// # Errors
    /// [`Format`](crate::Error::Format) when a tensor is missing or of another size,
    /// [`Device`](crate::Error::Device) when the device cannot be used.
    pub fn from_image(image: &CodecImage, device: Device) -> Result<Self> {
        let config: FlowConfig = image.config()?;
        config.check()?;
        let burn = device.burn()?;
        let shape = config.record_shape()?;
        let (values, latent) = (shape.values(), config.latent as usize);
        let ordered = config.preset == Preset::Ordered;
        let mean = ordered
            .then(|| weights::floats(image.tensor("mean", ElementType::F32, &[values])?))
            .transpose()?;
        let rotation = ordered
            .then(|| {
                weights::floats(image.tensor(
                    "rotation",
                    weights::element(config.precision),
                    &[values, latent],
                )?)
            })
            .transpose()?;
        let quantizer =
            Quantizer::load(config.quantizer, config.kept as usize, config.code_len as usize, image)?;
        let scales = PredictorScales::load(&config, image)?;
        let chain = Chain::load(&config, image, &burn)?;
        let (sizes, predictor) = (Chain::sizes(&config), Restore::sizes(&config));
        let mut source = Source::Image { image, precision: config.precision };
        let network = Network::build(&sizes, predictor, &mut source, &burn)?;
        let parameters = FlowParameters { config, mean, rotation, scales, quantizer };
        let computes = match device {
            Device::Cpu => {
                let scales = parameters.scales.clone();
                Computes::Host(Box::new(HostNetwork::new(
                    chain.geometry().clone(),
                    &network,
                    &sizes,
                    predictor,
                    scales,
                )))
            }
            _ => Computes::Device(Box::new(OnDevice::new(&parameters, latent, burn))),
        };
        let mean_search = mean_search(&parameters, chain.latent(), chain.kept());
        Ok(Self { parameters, shape, computes, mean_search, chain, network })
    }

    /// The configuration: preset, sizes, quantizer.
    pub fn config(&self) -> &FlowConfig {
        &self.parameters.config
    }

    /// The quantizer between coordinates and bytes.
    pub fn quantizer(&self) -> &Quantizer {
        &self.parameters.quantizer
    }

    /// `z = [z_comp | z_aux]` of records, before the quantizer: `[record, latent]`.
    ///
    /// # Errors
    /// [`RecordShape`](crate::Error::RecordShape).
    pub fn forward(&self, records: &Records) -> Result<Vec<f32>> {
        check_shape(self.shape, records.shape())?;
        let mut out = Vec::with_capacity(records.len() * self.chain.latent());
        for block in records.values().chunks(self.batch() * self.shape.values()) {
            out.extend(self.to_latent(block));
        }
        Ok(out)
    }

    /// Records from a whole `z`, as if `z_aux` had been stored: the chain alone is invertible.
    ///
    /// # Errors
    /// [`Argument`](crate::Error::Argument) when the length is not a multiple of the latent's.
    pub fn inverse(&self, z: &[f32]) -> Result<Records> {
        let latent = self.chain.latent();
        if !z.len().is_multiple_of(latent) {
            return Err(crate::Error::argument(
                "the length of z",
                format!("a multiple of {latent}"),
                z.len(),
            ));
        }
        let mut values = Vec::with_capacity(z.len() / latent * self.shape.values());
        for block in z.chunks(self.batch() * latent) {
            values.extend(match &self.computes {
                Computes::Host(network) => honest(network.inverse(block, self.shape.values(), self.frame())),
                Computes::Device(on) => self.to_records(on, matrix(block.to_vec(), latent, &on.device)),
            });
        }
        Ok(Records::from_decoded(self.shape, values))
    }

    /// Records that go through the network at a time.
    fn batch(&self) -> usize {
        (BATCH_VALUES / self.shape.values()).clamp(1, BATCH)
    }

    /// The rotation, for the loops on the host.
    fn frame(&self) -> Option<Rotation<'_>> {
        let (mean, rotation) = (self.parameters.mean.as_ref()?, self.parameters.rotation.as_ref()?);
        Some(Rotation { mean, rotation })
    }

    fn to_latent(&self, values: &[f32]) -> Vec<f32> {
        match &self.computes {
            Computes::Host(network) => network.forward(values, self.shape.values(), self.frame()),
            Computes::Device(on) => {
                let mut x = matrix(values.to_vec(), self.shape.values(), &on.device);
                if let Some(mean) = &on.mean {
                    x = x - mean.clone();
                }
                if let Some(rotation) = &on.rotation {
                    x = x.matmul(rotation.clone());
                }
                host(self.chain.forward(&self.network, x))
            }
        }
    }

    /// On a device: `z` to records.
    fn to_records(&self, on: &OnDevice, z: Tensor<2>) -> Vec<f32> {
        let mut x = self.chain.inverse(&self.network, z);
        if let Some(back) = &on.rotation_back {
            x = x.matmul(back.clone());
        }
        if let Some(mean) = &on.mean {
            x = x + mean.clone();
        }
        honest(host(x))
    }

    /// Dequantized coordinates of codes, `[code, kept]`.
    fn dequantize(&self, codes: &[&[u8]]) -> Result<Vec<f32>> {
        let kept = self.chain.kept();
        let mut out = vec![0.0; codes.len() * kept];
        out.par_chunks_exact_mut(kept)
            .zip(codes)
            .try_for_each(|(row, code)| self.parameters.quantizer.decode(code, row))?;
        Ok(out)
    }

    fn decode_kept(&self, kept: &[f32], predict: bool) -> Vec<f32> {
        match &self.computes {
            Computes::Host(network) => {
                let z = network.restored(kept, predict);
                honest(network.inverse(&z, self.shape.values(), self.frame()))
            }
            Computes::Device(on) => {
                let kept = matrix(kept.to_vec(), self.chain.kept(), &on.device);
                let z = if predict {
                    on.restore.predicted(&self.network, kept)
                } else {
                    on.restore.unpredicted(kept)
                };
                self.to_records(on, z)
            }
        }
    }

    /// `z_comp` of records before the quantizer, `[record, kept]`.
    pub(crate) fn coordinates(&self, records: &Records) -> Result<Vec<f32>> {
        check_shape(self.shape, records.shape())?;
        let blocks = records.values().chunks(self.batch() * self.shape.values());
        Ok(blocks.flat_map(|block| self.to_kept(block)).collect())
    }

    /// Records from `z_comp`, the rest predicted.
    pub(crate) fn restored(&self, kept: &[f32]) -> Records {
        let blocks = kept.chunks(self.batch() * self.chain.kept());
        let values = blocks.flat_map(|block| self.decode_kept(block, true)).collect();
        Records::from_decoded(self.shape, values)
    }

    /// Adds the predictor's correction to approximate records; no change without a predictor.
    pub(crate) fn correct(&self, records: &mut Records) -> Result<()> {
        if self.network.predictor.is_none() {
            return Ok(());
        }
        let kept = self.coordinates(records)?;
        let width = self.shape.values();
        let values = kept.chunks(self.batch() * self.chain.kept()).flat_map(|block| {
            let (with, without) = (self.decode_kept(block, true), self.decode_kept(block, false));
            with.into_iter().zip(without).map(|(with, without)| with - without).collect::<Vec<f32>>()
        });
        let corrections: Vec<f32> = values.collect();
        for (index, correction) in corrections.chunks_exact(width).enumerate() {
            records.row_mut(index).iter_mut().zip(correction).for_each(|(value, by)| *value += by);
        }
        Ok(())
    }

    /// `z_comp` of records, `[record, kept]`.
    fn to_kept(&self, block: &[f32]) -> Vec<f32> {
        let (latent, kept) = (self.chain.latent(), self.chain.kept());
        self.to_latent(block).chunks_exact(latent).flat_map(|row| &row[..kept]).copied().collect()
    }

    /// Quantizes `z_comp`, decodes again, and measures against what the codes stand for.
    ///
    /// Also returns the dequantized coordinates, `[record, kept]`.
    fn measure(&self, z: &[f32], block: &[f32]) -> Result<(Vec<Encoded>, Vec<f32>)> {
        let width = self.shape.values();
        let codes = self.parameters.quantizer.encode_all(z);
        let views: Vec<&[u8]> = codes.iter().map(Vec::as_slice).collect();
        let dequantized = self.dequantize(&views)?;
        let predicts = self.network.predictor.is_some();
        let without = self.decode_kept(&dequantized, false);
        let with = if predicts { self.decode_kept(&dequantized, true) } else { Vec::new() };
        let measured = |(index, code): (usize, Vec<u8>)| {
            let rows = index * width..(index + 1) * width;
            let record = &block[rows.clone()];
            let (plain, norm) = error_and_norm(record, &without[rows.clone()]);
            let predicted = with.get(rows).map(|decoded| error_and_norm(record, decoded).0);
            let without_predictor = predicted.is_some_and(|predicted| plain < predicted);
            let error = if without_predictor { plain } else { predicted.unwrap_or(plain) };
            Encoded { code, error: error as f32, norm, without_predictor }
        };
        let encoded = codes.into_par_iter().enumerate().map(measured).collect();
        Ok((encoded, dequantized))
    }

    /// Converts kept coordinates to search vectors, adding the mean if needed.
    fn searchable(&self, kept: &[f32], similarity: Similarity) -> Vec<f32> {
        match (&self.mean_search, similarity) {
            (Some((mean, rest)), Similarity::Cosine) => kept
                .chunks_exact(self.chain.kept())
                .flat_map(|row| row.iter().zip(mean).map(|(value, mean)| value + mean).chain([*rest]))
                .collect(),
            _ => kept.to_vec(),
        }
    }
}

impl OnDevice {
    fn new(parameters: &FlowParameters, latent: usize, device: BurnDevice) -> Self {
        let rotation = parameters.rotation.as_ref().map(|values| matrix(values.clone(), latent, &device));
        Self {
            mean: parameters.mean.as_ref().map(|mean| row(mean.clone(), &device)),
            rotation_back: rotation.as_ref().map(|rotation| rotation.clone().transpose()),
            rotation,
            restore: Restore::new(&parameters.config, parameters.scales.as_ref(), &device),
            device,
        }
    }
}

/// An unclamped coupling can overflow on records unlike any it was trained on: "nothing" is the honest value
/// then, and the measured error says how wrong it is.
fn honest(mut values: Vec<f32>) -> Vec<f32> {
    values.iter_mut().filter(|value| !value.is_finite()).for_each(|value| *value = 0.0);
    values
}

/// Projection of the mean on the kept axes, and the length of what no kept axis carries.
fn mean_search(parameters: &FlowParameters, latent: usize, kept: usize) -> Option<(Vec<f32>, f32)> {
    let (mean, rotation) = (parameters.mean.as_ref()?, parameters.rotation.as_ref()?);
    let project = |axis: usize| -> f64 {
        let values = mean.iter().enumerate();
        values.map(|(i, &value)| f64::from(value) * f64::from(rotation[i * latent + axis])).sum()
    };
    let projected: Vec<f64> = (0..kept).map(project).collect();
    let squared = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let rest = squared(&mut mean.iter().map(|&value| value.into())) - squared(&mut projected.iter().copied());
    Some((projected.into_iter().map(|value| value as f32).collect(), rest.max(0.0).sqrt() as f32))
}

impl Codec for FlowCodec {
    fn shape(&self) -> RecordShape {
        self.shape
    }

    fn code_len_max(&self) -> usize {
        self.parameters.quantizer.code_len_max().min(limits::CODE_LEN_MAX)
    }

    fn encode(&self, records: &Records) -> Result<Vec<Encoded>> {
        check_shape(self.shape, records.shape())?;
        let mut out = Vec::with_capacity(records.len());
        for block in records.values().chunks(self.batch() * self.shape.values()) {
            out.extend(self.measure(&self.to_kept(block), block)?.0);
        }
        Ok(out)
    }

    fn encode_for_search(
        &self,
        records: &Records,
        similarity: Similarity,
    ) -> Result<(Vec<Encoded>, Vec<f32>)> {
        check_shape(self.shape, records.shape())?;
        let (mut all, mut vectors) = (Vec::with_capacity(records.len()), Vec::new());
        for block in records.values().chunks(self.batch() * self.shape.values()) {
            let (encoded, dequantized) = self.measure(&self.to_kept(block), block)?;
            all.extend(encoded);
            vectors.extend(self.searchable(&dequantized, similarity));
        }
        Ok((all, vectors))
    }

    /// Averages `z_comp` over the batch, as the paper writes it, not the records.
    fn encode_mean(&self, batch: &Records) -> Result<Encoded> {
        check_shape(self.shape, batch.shape())?;
        let mean = mean_record(batch)?;
        let z = self.coordinates(batch)?;
        let (encoded, _) = self.measure(&column_means(&z, self.chain.kept()), mean.values())?;
        encoded.into_iter().next().ok_or_else(|| crate::Error::argument("the codes of a batch", "1", 0))
    }

    fn decode(&self, codes: &[StoredCode<'_>]) -> Result<Records> {
        let (width, kept) = (self.shape.values(), self.chain.kept());
        let mut values = vec![0.0; codes.len() * width];
        // Records with and without the predictor go through the network apart, and back to their places.
        for predict in [true, false] {
            let chosen: Vec<usize> =
                (0..codes.len()).filter(|&i| codes[i].without_predictor != predict).collect();
            for block in chosen.chunks(self.batch()) {
                let views: Vec<&[u8]> = block.iter().map(|&i| codes[i].bytes).collect();
                let dequantized = self.dequantize(&views)?;
                debug_assert_eq!(dequantized.len(), block.len() * kept);
                let decoded = self.decode_kept(&dequantized, predict);
                for (&i, row) in block.iter().zip(decoded.chunks_exact(width)) {
                    values[i * width..(i + 1) * width].copy_from_slice(row);
                }
            }
        }
        Ok(Records::from_decoded(self.shape, values))
    }

    /// The mean of the dequantized `z_comp`, through the predictor unless most of the weight is on codes that
    /// do without.
    fn blend(&self, codes: &[StoredCode<'_>], weights: &[f32]) -> Result<Records> {
        let views: Vec<&[u8]> = codes.iter().map(|code| code.bytes).collect();
        let mut mean = vec![0.0_f64; self.chain.kept()];
        for (row, &weight) in self.dequantize(&views)?.chunks_exact(self.chain.kept()).zip(weights) {
            mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(weight) * f64::from(value));
        }
        let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
        let doing_without: f32 = codes
            .iter()
            .zip(weights)
            .filter(|(code, _)| code.without_predictor)
            .map(|(_, &weight)| weight)
            .sum();
        Ok(Records::from_decoded(self.shape, self.decode_kept(&mean, doing_without <= 0.5)))
    }

    fn reconstruction_scale(&self) -> f32 {
        self.parameters.mean.iter().flatten().fold(0.0, |largest, x| x.abs().max(largest))
    }

    fn search_dims(&self, similarity: Similarity) -> usize {
        match (&self.mean_search, similarity) {
            (Some(_), Similarity::Cosine) => self.chain.kept() + 1,
            _ => self.chain.kept(),
        }
    }

    fn search_vectors(&self, codes: &[&[u8]], similarity: Similarity) -> Result<Vec<f32>> {
        Ok(self.searchable(&self.dequantize(codes)?, similarity))
    }

    fn query_vectors(&self, records: &Records, similarity: Similarity) -> Result<Vec<f32>> {
        Ok(self.searchable(&self.coordinates(records)?, similarity))
    }

    fn image(&self) -> Result<CodecImage> {
        self.parameters.image(&self.chain, &self.network)
    }

    fn info(&self) -> CodecInfo {
        let config = &self.parameters.config;
        let name = |value: serde_json::Result<String>| value.unwrap_or_default().replace('"', "");
        CodecInfo {
            preset: name(serde_json::to_string(&config.preset)),
            quantizer: name(serde_json::to_string(&config.quantizer)),
            parameters: (self.network.parameters() + self.parameters.rotation.as_ref().map_or(0, Vec::len))
                as u64,
        }
    }
}
