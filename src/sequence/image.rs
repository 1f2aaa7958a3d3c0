//! A tree as bytes: an image whose tensors are the images of its codecs.

use super::tree::{LEVELS_MAX, Level, SweeperTree};
use crate::codec::flow::pairs::Expectation;
use crate::codec::{Codec, Device, FlowCodec};
use crate::error::{Error, Result};
use crate::whole_file::{self, Taken};
use apcm_format::{CodecImage, DecodeError, ElementType, NamedTensor, TreeConfig};
use std::path::Path;

/// Names a tree among the images of codecs.
pub(crate) const KIND: &str = "sweeper-tree";

fn sweeper(level: usize) -> String {
    format!("level{level}.sweeper")
}

fn restorer(level: usize) -> String {
    format!("level{level}.restorer")
}

fn empty(level: usize) -> String {
    format!("level{level}.empty")
}

impl SweeperTree {
    /// The tree as bytes, in the form of a codec's image.
    ///
    /// # Errors
    /// When it is larger than the format allows.
    pub fn image(&self) -> Result<CodecImage> {
        let levels = self.levels.iter().map(|level| level.empty.len() as u32).collect();
        let mut image = CodecImage::new(KIND, &TreeConfig { states: levels })?;
        for (number, level) in self.levels.iter().enumerate() {
            image.tensors.push(nested(sweeper(number), &level.sweeper)?);
            if let Some(codec) = &level.restorer {
                image.tensors.push(nested(restorer(number), codec)?);
            }
            image.tensors.push(floats(&empty(number), &level.empty));
            image.tensors.push(floats(&format!("level{number}.next.take"), &level.next.take));
            image.tensors.push(floats(&format!("level{number}.next.give"), &level.next.give));
        }
        Ok(image)
    }

    /// Builds a tree from its image, on a device.
    ///
    /// # Errors
    /// [`Format`](Error::Format) when something is missing or does not fit together,
    /// [`UnknownCodec`](Error::UnknownCodec) for the image of something else, [`Device`](Error::Device).
    pub fn from_image(image: &CodecImage, device: Device) -> Result<Self> {
        if image.kind != KIND {
            return Err(Error::UnknownCodec { kind: image.kind.clone() });
        }
        let config: TreeConfig = image.config()?;
        if config.states.len() < 2 || config.states.len() > LEVELS_MAX + 1 {
            let found = config.states.len();
            return Err(misfit(format!("{found} levels, 2 to {} can be", LEVELS_MAX + 1)));
        }
        let mut levels: Vec<Level> = Vec::new();
        for (number, &state) in config.states.iter().enumerate() {
            let state = state as usize;
            let codec = load(image, &sweeper(number), device)?
                .ok_or_else(|| misfit(format!("the sweeper of level {number} is missing")))?;
            let takes_pairs =
                levels.last().is_none_or(|below| codec.shape().dims() == [2, below.empty.len()]);
            if codec.config().kept as usize != state || !takes_pairs {
                return Err(misfit(format!("the sweeper of level {number} is of other states")));
            }
            let restorer = load(image, &restorer(number), device)?;
            let first = levels.first().map_or(codec.shape(), |leaf| leaf.sweeper.shape());
            if restorer.as_ref().is_some_and(|restorer| restorer.shape() != first) {
                return Err(misfit(format!("the restorer of level {number} is of other records")));
            }
            let empty = read_floats(image, &empty(number), state)?;
            let next = expectation(image, number, state)?;
            levels.push(Level { sweeper: codec, restorer, empty, next });
        }
        Ok(Self { levels })
    }

    /// Writes the tree to a new file of its own: under that name there is all of it or nothing, durably.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Io`](Error::Io); an older file of that name is unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        whole_file::write(path.as_ref(), &self.image()?.encode()?, Taken::Refuse)
    }

    /// The same, replacing an older file, which is unchanged until the new one is complete.
    ///
    /// # Errors
    /// [`Io`](Error::Io).
    pub fn save_over(&self, path: impl AsRef<Path>) -> Result<()> {
        whole_file::write(path.as_ref(), &self.image()?.encode()?, Taken::Replace)
    }

    /// Loads a tree from a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Io`](Error::Io), and as [`from_image`](Self::from_image).
    pub fn load(path: impl AsRef<Path>, device: Device) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::from_image(&CodecImage::decode(&bytes)?, device)
    }
}

/// The conditional mean of a level, from its tensors.
fn expectation(image: &CodecImage, number: usize, width: usize) -> Result<Expectation> {
    let name = |side: &str| format!("level{number}.next.{side}");
    let stored = image.tensors.iter().find(|tensor| tensor.name == name("take"));
    let len = stored.map_or(0, |tensor| tensor.bytes.len() / 4);
    if !len.is_multiple_of(width) {
        return Err(misfit(format!("what level {number} expects is of other states")));
    }
    let read = |side: &str| read_floats(image, &name(side), len);
    Ok(Expectation { width, take: read("take")?, give: read("give")? })
}

/// Numbers as a tensor.
pub(super) fn floats(name: &str, values: &[f32]) -> NamedTensor {
    NamedTensor {
        name: name.to_owned(),
        element: ElementType::F32,
        dims: vec![values.len() as u32],
        bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

/// As many finite numbers of a tensor as there must be.
pub(super) fn read_floats(image: &CodecImage, name: &str, len: usize) -> Result<Vec<f32>> {
    let stored = image.tensor(name, ElementType::F32, &[len])?;
    let values = stored.bytes.chunks_exact(4);
    let values: Vec<f32> = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(misfit(format!("{name} is not finite"))),
    }
}

fn nested(name: String, codec: &FlowCodec) -> Result<NamedTensor> {
    let bytes = codec.image()?.encode()?;
    Ok(NamedTensor { name, element: ElementType::U8, dims: vec![bytes.len() as u32], bytes })
}

fn load(image: &CodecImage, name: &str, device: Device) -> Result<Option<FlowCodec>> {
    let Some(tensor) = image.tensors.iter().find(|tensor| tensor.name == name) else { return Ok(None) };
    FlowCodec::from_image(&CodecImage::decode(&tensor.bytes)?, device).map(Some)
}

fn misfit(cause: String) -> Error {
    Error::Format(DecodeError::Malformed { what: "a tree's image", cause })
}
