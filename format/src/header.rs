//! The store header: 128 bytes, written at creation and again when the policy changes.

use crate::preamble::{Preamble, capacity, sealed, search_dims};
use crate::{DecodeError, Fingerprint, Policy, RecordShape, StoreUuid};

const WHAT: &str = "an apcm store header";
const PREAMBLE: Preamble =
    Preamble { what: WHAT, file: WHAT, magic: *b"\x89APCM\r\n\x1a", major: 1, minor: 0 };
const LEN: usize = 128;

/// Feature bits in the manner of ext4: what a reader may do when it meets one it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Unknown bits may be ignored.
    pub compatible: u64,
    /// Unknown bits allow reading, never writing.
    pub read_only_compatible: u64,
    /// Unknown bits forbid opening.
    pub incompatible: u64,
}

/// Names of feature bits, those of later versions included: a refusal says which feature it is about.
const INCOMPATIBLE_NAMES: [(u32, &str); 9] = [
    (0, "slot records of layout 2 (a feature of format 1.1)"),
    (1, "residual forms beyond bounded and lossless (a feature of format 1.1)"),
    (2, "a codec outside the file (a feature of format 1.1)"),
    (3, "memories without a vector (a feature of format 1.1)"),
    (4, "metadata values of bytes (a feature of format 1.1)"),
    (5, "items of several slots (a feature of format 1.1)"),
    (6, "records shorter than the shape (a feature of format 1.1)"),
    (7, "quantized stream states (a feature of format 1.1)"),
    (32, "encrypted values (a feature of a later format)"),
];
const READ_ONLY_COMPATIBLE_NAMES: [(u32, &str); 1] =
    [(0, "an index on metadata fields (a feature of format 1.1; the store may be opened for reading)")];

/// The name of the lowest unknown bit.
fn name_of(unknown: u64, names: &[(u32, &'static str)], otherwise: &'static str) -> &'static str {
    let lowest = unknown.trailing_zeros();
    names.iter().find(|(bit, _)| *bit == lowest).map_or(otherwise, |(_, name)| name)
}

impl Features {
    /// The name of the lowest feature that this version cannot read; none if it can read the file.
    pub fn unreadable(&self) -> Option<&'static str> {
        let unknown = self.incompatible & !Self::INCOMPATIBLE_KNOWN;
        (unknown != 0).then(|| name_of(unknown, &INCOMPATIBLE_NAMES, "a feature of this store"))
    }

    /// The name of the lowest feature that this version would break by writing; none if it may write.
    pub fn unwritable(&self) -> Option<&'static str> {
        let unknown = self.read_only_compatible & !Self::READ_ONLY_COMPATIBLE_KNOWN;
        let otherwise = "a feature of this store (it may be opened for reading)";
        (unknown != 0).then(|| name_of(unknown, &READ_ONLY_COMPATIBLE_NAMES, otherwise))
    }

    /// Bits of `read_only_compatible` this version writes correctly.
    pub const READ_ONLY_COMPATIBLE_KNOWN: u64 = 0;
    /// Bits of `incompatible` this version understands.
    pub const INCOMPATIBLE_KNOWN: u64 = 0;

    /// Whether this version may write to a store with these features.
    pub fn writable(&self) -> bool {
        self.unwritable().is_none()
    }
}

/// What nearness means in this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Similarity {
    /// Approximates the cosine of the records.
    Cosine,
    /// Approximates the cosine about the mean of the training data: better when all records share a large mean.
    CentredCosine,
}

crate::named!(Similarity, "a similarity", Cosine => "cosine", CentredCosine => "centred-cosine");

impl Similarity {
    /// As headers keep it.
    pub(crate) fn stored(self) -> u8 {
        match self {
            Self::Cosine => 0,
            Self::CentredCosine => 1,
        }
    }

    pub(crate) fn from_stored(byte: u8) -> Result<Self, DecodeError> {
        match byte {
            0 => Ok(Self::Cosine),
            1 => Ok(Self::CentredCosine),
            found => {
                Err(DecodeError::TooNew { what: "the store's similarity", found: found.into(), known: 1 })
            }
        }
    }
}

/// What a store is. What changes with every commit is [`StoreState`](crate::StoreState).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHeader {
    /// The store's name, which keys its checksums.
    pub uuid: StoreUuid,
    /// Feature bits.
    pub features: Features,
    /// How many slots.
    pub capacity: u32,
    /// The eviction policy: the one field that may change later.
    pub policy: Policy,
    /// What cosine compares.
    pub similarity: Similarity,
    /// Shape of every record.
    pub shape: RecordShape,
    /// Length of a search vector.
    pub search_dims: u32,
    /// The codec that wrote the codes.
    pub fingerprint: Fingerprint,
    /// When the store was created, in seconds since 1970.
    pub created_at: u64,
}

impl StoreHeader {
    /// Lays the header out.
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = PREAMBLE.encode(LEN);
        out.extend_from_slice(&self.features.compatible.to_le_bytes());
        out.extend_from_slice(&self.features.read_only_compatible.to_le_bytes());
        out.extend_from_slice(&self.features.incompatible.to_le_bytes());
        out.extend_from_slice(&self.uuid.0);
        out.extend_from_slice(&self.capacity.to_le_bytes());
        let (rank, dims) = self.shape.stored();
        let (policy, policy_word) = self.policy.stored();
        out.extend_from_slice(&[policy, self.similarity.stored(), rank, 0]);
        for dim in dims {
            out.extend_from_slice(&dim.to_le_bytes());
        }
        out.extend_from_slice(&self.search_dims.to_le_bytes());
        out.extend_from_slice(&self.fingerprint.0);
        out.extend_from_slice(&self.created_at.to_le_bytes());
        out.extend_from_slice(&policy_word.to_le_bytes());
        sealed(out)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`Magic`](DecodeError::Magic) when the bytes are something else, [`TooNew`](DecodeError::TooNew) for a
    /// newer major version or unknown incompatible features, and the other variants for damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = PREAMBLE.fields(bytes, LEN)?;
        let features = Features {
            compatible: reader.u64()?,
            read_only_compatible: reader.u64()?,
            incompatible: reader.u64()?,
        };
        if let Some(what) = features.unreadable() {
            return Err(DecodeError::TooNew {
                what,
                found: features.incompatible,
                known: Features::INCOMPATIBLE_KNOWN,
            });
        }
        let uuid = StoreUuid(reader.array()?);
        let capacity = capacity(&mut reader)?;
        let policy = reader.u8()?;
        let similarity = Similarity::from_stored(reader.u8()?)?;
        let rank = reader.u8()?;
        let reserved = reader.u8()?;
        if reserved != 0 {
            return Err(DecodeError::Invalid {
                what: "a reserved byte of the header",
                found: reserved.into(),
            });
        }
        let stored = [reader.u32()?, reader.u32()?, reader.u32()?];
        let shape = RecordShape::from_stored(rank, stored)?;
        let search_dims = search_dims(&mut reader, shape)?;
        let fingerprint = Fingerprint(reader.array()?);
        let created_at = reader.u64()?;
        let policy = Policy::from_stored(policy, reader.u32()?)?;
        let _crc = reader.u32()?;
        reader.finish()?;
        Ok(Self { uuid, features, capacity, policy, similarity, shape, search_dims, fingerprint, created_at })
    }
}
