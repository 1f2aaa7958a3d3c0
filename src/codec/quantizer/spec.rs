//! Which quantizer, and how much it may spend on a record.

/// Which quantizer, and how much it may spend on a record.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum QuantizerSpec {
    /// This many coordinates, four bytes each.
    F32(usize),
    /// This many coordinates, two bytes each.
    F16(usize),
    /// This many coordinates, one byte each.
    I8(usize),
    /// This many bytes, shared out by greedy water-filling over Lloyd-Max quantizers.
    Allocated(usize),
    /// This many bytes, each an entry of a codebook of 256: residual vector quantization with beam search.
    Residual(usize),
    /// Trellis quantization in charts, entropy coded: the fewest bytes at a given error.
    Entropy(EntropySpec),
}

/// How an entropy-coded quantizer spends its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EntropySpec {
    /// What to aim at.
    pub rate: Rate,
    /// Longest code of any single record; what would be longer is coded at a coarser step. Eight times the mean
    /// where nothing is said.
    pub max_bytes: Option<usize>,
    /// How many charts; by default one for every thousand records, at most 32.
    pub charts: Option<usize>,
}

/// The target of an entropy-coded quantizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// This many bytes on average, with [`counted_bytes`] counted: the code, its length, the flag it needs.
    Mean(usize),
    /// Codes of exactly this many bytes, each at the finest step that fits.
    Fixed(usize),
    /// This mean squared error per element on average, before the predictor; bytes as they come.
    Error(f64),
}

/// Bits that a code of varying length needs beside itself: a byte that says how long it is, and the flag that
/// says whether the predictor decodes it.
pub(crate) const CODE_OVERHEAD_BITS: u32 = 9;

/// Bytes of a code of varying length with what a decoder needs beside it: its length as a varint, and one flag
/// bit.
pub fn counted_bytes(code_len: usize) -> f64 {
    let length = if code_len < 128 { 1.0 } else { 2.0 };
    code_len as f64 + length + 0.125
}

impl QuantizerSpec {
    /// Entropy-coded, of this many bytes on average.
    pub fn entropy(bytes: usize) -> Self {
        Self::Entropy(EntropySpec { rate: Rate::Mean(bytes), max_bytes: None, charts: None })
    }

    /// Entropy-coded, of exactly this many bytes each.
    pub fn entropy_fixed(bytes: usize) -> Self {
        Self::Entropy(EntropySpec { rate: Rate::Fixed(bytes), max_bytes: None, charts: None })
    }

    /// Entropy-coded, of constant quality: this mean squared error per element on average, bytes as they come.
    pub fn entropy_error(error: f64) -> Self {
        Self::Entropy(EntropySpec { rate: Rate::Error(error), max_bytes: None, charts: None })
    }

    /// With no code longer than this; other quantizers have one length anyway.
    pub fn max_bytes(self, bytes: usize) -> Self {
        match self {
            Self::Entropy(spec) => Self::Entropy(EntropySpec { max_bytes: Some(bytes), ..spec }),
            other => other,
        }
    }

    /// Bytes of a code, or their mean; 0 where an error is aimed at and bytes come as they come.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32(values) => values.saturating_mul(4),
            Self::F16(values) => values.saturating_mul(2),
            Self::I8(bytes) | Self::Allocated(bytes) | Self::Residual(bytes) => bytes,
            Self::Entropy(EntropySpec { rate: Rate::Mean(bytes) | Rate::Fixed(bytes), .. }) => bytes,
            Self::Entropy(EntropySpec { rate: Rate::Error(_), .. }) => 0,
        }
    }

    /// The number of code values, where the quantizer fixes it in advance.
    pub fn values(self) -> Option<usize> {
        match self {
            Self::F32(values) | Self::F16(values) | Self::I8(values) => Some(values),
            Self::Allocated(_) | Self::Residual(_) | Self::Entropy(_) => None,
        }
    }
}
