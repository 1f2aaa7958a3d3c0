//! How a codec is built: everything but its weights.

use crate::frame::Framed;
use crate::limits::{CODE_LEN_MAX, LAYERS_MAX, RECORD_VALUES_MAX, WIDTH_MAX};
use crate::{DecodeError, RecordShape};
use bincode::{BorrowDecode, Encode};

/// Which configuration of the one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The ApCM network as published: random halves, permutations, no rotation.
    Paper,
    /// Principal axes first, couplings between kept and aux, every stage gated on validation data.
    Ordered,
}

crate::named!(Preset, "a preset", Ordered => "ordered", Paper => "paper");

/// How the kept coordinates become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum QuantizerKind {
    /// Four bytes a coordinate.
    F32,
    /// Two bytes a coordinate.
    F16,
    /// One byte a coordinate, a scale for each.
    I8,
    /// Bits by greedy water-filling, Lloyd-Max levels.
    Allocated,
    /// Codebooks of 256 entries, each on what the ones before it left.
    Residual,
    /// Trellis quantization in charts, entropy coded: codes of any length.
    Entropy,
}

/// How weights and rotations are kept in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightPrecision {
    /// Two bytes a weight.
    F16,
    /// Four bytes a weight.
    F32,
}

crate::named!(WeightPrecision, "a precision of weights", F16 => "f16", F32 => "f32");

/// The configuration of a flow codec.
#[derive(Debug, Clone, PartialEq, Encode, BorrowDecode)]
pub struct FlowConfig {
    /// Which preset this is a configuration of.
    pub preset: Preset,
    /// Axes of a record.
    pub shape: [u32; 3],
    /// How many of those axes count.
    pub rank: u8,
    /// Coordinates after the rotation; equals the record's values without one.
    pub latent: u32,
    /// Coordinates that are kept, `m`.
    pub kept: u32,
    /// Bytes of the longest code; of every code, unless the quantizer is entropy coded.
    pub code_len: u32,
    /// How kept coordinates become bytes.
    pub quantizer: QuantizerKind,
    /// How weights are stored.
    pub precision: WeightPrecision,
    /// Coupling layers.
    pub couplings: u32,
    /// Width of a coupling's sub-network.
    pub coupling_hidden: u32,
    /// Bound of the log-scale `s`; 0 for none, as in the paper.
    pub scale_clamp: f32,
    /// Whether a permutation follows each coupling.
    pub permuted: bool,
    /// Width of the predictor; 0 when there is none.
    pub predictor_hidden: u32,
    /// Residual blocks of the predictor.
    pub predictor_blocks: u32,
}

impl Framed for FlowConfig {
    const KIND: u8 = 4;
    const SCHEMA: u8 = 1;
    const WHAT: &'static str = "a flow codec's configuration";
}

impl FlowConfig {
    /// The shape of a record.
    ///
    /// # Errors
    /// When the stored axes are not a shape.
    pub fn record_shape(&self) -> Result<RecordShape, DecodeError> {
        stored_shape(self.rank, self.shape)
    }

    /// Checks every number against the format's limits and against one another.
    ///
    /// # Errors
    /// The first number that no writer produces.
    pub fn check(&self) -> Result<(), DecodeError> {
        let values = self.record_shape()?.values() as u64;
        let at_most = |what, found: u64, max: u64| {
            if found > max { Err(DecodeError::Limit { what, found, max }) } else { Ok(()) }
        };
        let at_least_one = |what, found: u32| {
            if found == 0 { Err(DecodeError::Invalid { what, found: 0 }) } else { Ok(()) }
        };
        at_least_one("the number of latent coordinates", self.latent)?;
        at_least_one("the number of kept coordinates", self.kept)?;
        at_least_one("the length of a code", self.code_len)?;
        at_most("the number of latent coordinates", self.latent.into(), values)?;
        at_most("the number of kept coordinates", self.kept.into(), self.latent.into())?;
        at_most("the length of a code", self.code_len.into(), CODE_LEN_MAX as u64)?;
        at_most("the number of couplings", self.couplings.into(), LAYERS_MAX.into())?;
        at_most("the width of a coupling", self.coupling_hidden.into(), WIDTH_MAX.into())?;
        at_most("the width of the predictor", self.predictor_hidden.into(), WIDTH_MAX.into())?;
        at_most("the blocks of the predictor", self.predictor_blocks.into(), LAYERS_MAX.into())?;
        if !(self.scale_clamp >= 0.0 && self.scale_clamp.is_finite()) {
            return Err(DecodeError::Invalid {
                what: "the bound of a coupling's scale",
                found: self.scale_clamp.to_bits().into(),
            });
        }
        if self.couplings > 0 {
            at_least_one("the width of a coupling", self.coupling_hidden)?;
            let nothing_to_couple = match self.preset {
                Preset::Paper => self.latent < 2,
                Preset::Ordered => self.latent == self.kept,
            };
            if nothing_to_couple {
                return Err(DecodeError::Invalid {
                    what: "the number of couplings",
                    found: self.couplings.into(),
                });
            }
        }
        if self.preset == Preset::Paper && u64::from(self.latent) != values {
            return Err(DecodeError::Invalid {
                what: "a rotation in the paper preset",
                found: self.latent.into(),
            });
        }
        Ok(())
    }
}

/// The configuration of a sweeper tree, which folds sequences.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
pub struct TreeConfig {
    /// Values of a state at each level, from the leaves up.
    pub states: Vec<u32>,
}

impl Framed for TreeConfig {
    const KIND: u8 = 6;
    const SCHEMA: u8 = 1;
    const WHAT: &'static str = "a sweeper tree's configuration";
}

/// The configuration of a recurrent network that follows a sweeper tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
pub struct RecurrenceConfig {
    /// Values of its memory.
    pub memory: u32,
    /// Values of an input.
    pub input: u32,
    /// Steps it can tell apart.
    pub positions: u32,
    /// Width of its hidden layers.
    pub hidden: u32,
}

impl Framed for RecurrenceConfig {
    const KIND: u8 = 7;
    const SCHEMA: u8 = 1;
    const WHAT: &'static str = "a recurrence's configuration";
}

impl RecurrenceConfig {
    /// Checks every number against the format's limits.
    ///
    /// # Errors
    /// The first number that no writer produces.
    pub fn check(&self) -> Result<(), DecodeError> {
        for (what, found) in [
            ("the values of a memory", self.memory),
            ("the values of an input", self.input),
            ("the steps of a recurrence", self.positions),
            ("the width of a recurrence", self.hidden),
        ] {
            if found == 0 || found > WIDTH_MAX {
                return Err(DecodeError::Limit { what, found: found.into(), max: WIDTH_MAX.into() });
            }
        }
        Ok(())
    }
}

/// The configuration of the plain codec, which keeps the first values of a record as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct PlainConfig {
    /// Axes of a record.
    pub shape: [u32; 3],
    /// How many of those axes count.
    pub rank: u8,
    /// How many values are kept.
    pub kept: u32,
}

impl Framed for PlainConfig {
    const KIND: u8 = 5;
    const SCHEMA: u8 = 1;
    const WHAT: &'static str = "a plain codec's configuration";
}

impl PlainConfig {
    /// The shape of a record.
    ///
    /// # Errors
    /// When the stored axes are not a shape, or more is kept than there is.
    pub fn record_shape(&self) -> Result<RecordShape, DecodeError> {
        let shape = stored_shape(self.rank, self.shape)?;
        let values = shape.values() as u64;
        if self.kept == 0 || u64::from(self.kept) > values {
            return Err(DecodeError::Limit { what: "the values kept", found: self.kept.into(), max: values });
        }
        Ok(shape)
    }
}

impl RecordShape {
    /// Rank and axes as configurations store them.
    pub fn to_stored(&self) -> (u8, [u32; 3]) {
        self.stored()
    }
}

fn stored_shape(rank: u8, dims: [u32; 3]) -> Result<RecordShape, DecodeError> {
    let axes: Vec<usize> = dims.iter().take(usize::from(rank)).map(|&dim| dim as usize).collect();
    RecordShape::new(&axes)
        .ok()
        .filter(|shape| {
            shape.stored() == (rank, dims) && shape.values() as u64 <= u64::from(RECORD_VALUES_MAX)
        })
        .ok_or(DecodeError::Invalid { what: "the record shape", found: rank.into() })
}
