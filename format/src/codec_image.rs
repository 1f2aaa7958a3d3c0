//! A codec as bytes: a kind, a configuration, named tensors. What a `.codec` file and the `codec` table hold.
//!
//! ```text
//! 0..8    magic
//! 8..10   version
//! 10      length of the kind's name, then the name
//! ..+4    length of the configuration, then the configuration (the payload of a frame)
//! ..+4    number of tensors
//!         for each: name length u8, name, element type u8, rank u8, axes u32 each
//! ..      the tensors' values, one after the other, in the order of the list
//! last 4  CRC-32
//! ```
//! No offsets are stored: they follow from the list, so none can lie. The end of the last tensor must be the
//! end of the image.

use crate::bytes::{Reader, split_crc};
use crate::frame::{self, Framed};
use crate::limits::{
    CODEC_CONFIG_LEN_MAX, CODEC_KIND_LEN_MAX, CODEC_LEN_MAX, TENSOR_NAME_LEN_MAX, TENSORS_MAX,
};
use crate::{DecodeError, Place, StoreUuid, Table};

const WHAT: &str = "a codec image";
const MAGIC: [u8; 8] = *b"\x89APCC\r\n\x1a";
const VERSION: u16 = 1;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ElementType {
    /// `f32`, little-endian.
    F32 = 1,
    /// IEEE half precision, little-endian.
    F16 = 2,
    /// Bytes.
    U8 = 3,
    /// `u32`, little-endian.
    U32 = 4,
    /// `u16`, little-endian.
    U16 = 5,
}

impl ElementType {
    fn len(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::U16 => 2,
            Self::U8 => 1,
        }
    }
}

/// One named array of a codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTensor {
    /// Its name, unique in the image.
    pub name: String,
    /// Type of its elements.
    pub element: ElementType,
    /// Its axes; empty for a single value.
    pub dims: Vec<u32>,
    /// Its elements, little-endian, the last axis fastest.
    pub bytes: Vec<u8>,
}

/// A codec as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CodecImage {
    /// Which codec can read it: `flow`, `plain`, or a name of the user's own.
    pub kind: String,
    /// The codec's configuration, in a form of the codec's own.
    pub config: Vec<u8>,
    /// Its arrays.
    pub tensors: Vec<NamedTensor>,
}

// The image is hashed as a whole and checked as a whole; it is not keyed, because the same image is a file of
// its own before it becomes part of a store.
const PLACE: Place = Place { store: StoreUuid([0; 16]), table: Table::Codec, key: 0 };

impl CodecImage {
    /// An image with a framed configuration and no tensors yet. A codec of your own fills in the public fields
    /// instead.
    ///
    /// # Errors
    /// When the configuration is too long.
    pub fn new<T: Framed>(kind: &str, config: &T) -> Result<Self, DecodeError> {
        Ok(Self { kind: kind.to_owned(), config: frame::seal(config, PLACE)?, tensors: Vec::new() })
    }

    /// Reads the configuration as a `T`.
    ///
    /// # Errors
    /// When the configuration is another's, newer or damaged.
    pub fn config<T: Framed>(&self) -> Result<T, DecodeError> {
        frame::open(&self.config, PLACE)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// When there is none, or its type or axes differ from what the codec expects.
    pub fn tensor(
        &self,
        name: &str,
        element: ElementType,
        dims: &[usize],
    ) -> Result<&NamedTensor, DecodeError> {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| {
            DecodeError::Malformed { what: WHAT, cause: format!("the tensor {name:?} is missing") }
        })?;
        let same = tensor.dims.len() == dims.len()
            && tensor.dims.iter().zip(dims).all(|(&found, &expected)| found as usize == expected);
        if tensor.element != element || !same {
            return Err(DecodeError::Malformed {
                what: WHAT,
                cause: format!(
                    "the tensor {name:?} is {:?} {:?}, expected {element:?} {dims:?}",
                    tensor.element, tensor.dims
                ),
            });
        }
        Ok(tensor)
    }

    /// Lays the image out.
    ///
    /// # Errors
    /// [`Limit`](DecodeError::Limit) when a name, the configuration, the list or the whole is too long, and
    /// [`Invalid`](DecodeError::Invalid) when a tensor's bytes are not those of its axes.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let at_most = |what, found: usize, max: usize| {
            if found > max {
                Err(DecodeError::Limit { what, found: found as u64, max: max as u64 })
            } else {
                Ok(())
            }
        };
        at_most("the name of a codec's kind", self.kind.len(), CODEC_KIND_LEN_MAX)?;
        at_most("a codec's configuration", self.config.len(), CODEC_CONFIG_LEN_MAX)?;
        at_most("the number of a codec's tensors", self.tensors.len(), TENSORS_MAX)?;
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(self.kind.len() as u8);
        out.extend_from_slice(self.kind.as_bytes());
        out.extend_from_slice(&(self.config.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.config);
        out.extend_from_slice(&(self.tensors.len() as u32).to_le_bytes());
        for tensor in &self.tensors {
            at_most("the name of a tensor", tensor.name.len(), TENSOR_NAME_LEN_MAX)?;
            at_most("the axes of a tensor", tensor.dims.len(), 4)?;
            if byte_len(tensor.element, &tensor.dims) != Some(tensor.bytes.len() as u64) {
                return Err(DecodeError::Invalid {
                    what: "the length of a tensor",
                    found: tensor.bytes.len() as u64,
                });
            }
            out.push(tensor.name.len() as u8);
            out.extend_from_slice(tensor.name.as_bytes());
            out.extend_from_slice(&[tensor.element as u8, tensor.dims.len() as u8]);
            for dim in &tensor.dims {
                out.extend_from_slice(&dim.to_le_bytes());
            }
        }
        for tensor in &self.tensors {
            out.extend_from_slice(&tensor.bytes);
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        if out.len() as u64 > CODEC_LEN_MAX {
            return Err(DecodeError::Limit { what: WHAT, found: out.len() as u64, max: CODEC_LEN_MAX });
        }
        Ok(out)
    }

    /// Reads an image.
    ///
    /// # Errors
    /// Anything that [`encode`](Self::encode) would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(WHAT, bytes);
        if reader.array()? != MAGIC {
            return Err(DecodeError::Magic { what: WHAT });
        }
        let version = reader.u16()?;
        if version != VERSION {
            return Err(DecodeError::TooNew { what: WHAT, found: version.into(), known: VERSION.into() });
        }
        let (body, crc) = split_crc(WHAT, bytes)?;
        if crc32fast::hash(body) != crc {
            return Err(DecodeError::Checksum { what: WHAT });
        }
        let header_len = bytes.len().saturating_sub(reader.rest().len());
        let mut reader = Reader::new(WHAT, body.get(header_len..).unwrap_or_default());
        let kind_len = usize::from(reader.u8()?);
        if kind_len > CODEC_KIND_LEN_MAX {
            return Err(DecodeError::Limit {
                what: "the name of a codec's kind",
                found: kind_len as u64,
                max: CODEC_KIND_LEN_MAX as u64,
            });
        }
        let kind = text(reader.take(kind_len)?)?;
        let config_len = reader.u32()? as usize;
        if config_len > CODEC_CONFIG_LEN_MAX {
            return Err(DecodeError::Limit {
                what: "a codec's configuration",
                found: config_len as u64,
                max: CODEC_CONFIG_LEN_MAX as u64,
            });
        }
        let config = reader.take(config_len)?.to_vec();
        let count = reader.u32()? as usize;
        if count > TENSORS_MAX {
            return Err(DecodeError::Limit {
                what: "the number of a codec's tensors",
                found: count as u64,
                max: TENSORS_MAX as u64,
            });
        }
        let mut tensors: Vec<NamedTensor> = Vec::new();
        let mut lens: Vec<usize> = Vec::new();
        for _ in 0..count {
            let name_len = usize::from(reader.u8()?);
            let name = text(reader.take(name_len)?)?;
            if tensors.iter().any(|tensor| tensor.name == name) {
                return Err(DecodeError::Malformed {
                    what: WHAT,
                    cause: format!("the tensor {name:?} is there twice"),
                });
            }
            let element = match reader.u8()? {
                1 => ElementType::F32,
                2 => ElementType::F16,
                3 => ElementType::U8,
                4 => ElementType::U32,
                5 => ElementType::U16,
                other => {
                    return Err(DecodeError::Invalid {
                        what: "a tensor's element type",
                        found: other.into(),
                    });
                }
            };
            let rank = reader.u8()?;
            if rank > 4 {
                return Err(DecodeError::Limit { what: "the axes of a tensor", found: rank.into(), max: 4 });
            }
            let dims = (0..rank).map(|_| reader.u32()).collect::<Result<Vec<u32>, _>>()?;
            let len = byte_len(element, &dims).and_then(|len| usize::try_from(len).ok()).ok_or(
                DecodeError::Limit { what: "the length of a tensor", found: u64::MAX, max: CODEC_LEN_MAX },
            )?;
            lens.push(len);
            tensors.push(NamedTensor { name, element, dims, bytes: Vec::new() });
        }
        for (tensor, len) in tensors.iter_mut().zip(lens) {
            tensor.bytes = reader.take(len)?.to_vec();
        }
        reader.finish()?;
        Ok(Self { kind, config, tensors })
    }
}

fn byte_len(element: ElementType, dims: &[u32]) -> Option<u64> {
    dims.iter().try_fold(element.len() as u64, |len, &dim| {
        len.checked_mul(u64::from(dim)).filter(|&len| len <= CODEC_LEN_MAX)
    })
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    String::from_utf8(bytes.to_vec())
        .map_err(|cause| DecodeError::Malformed { what: WHAT, cause: cause.to_string() })
}
