//! Names of stores, codecs and memories.

use std::fmt;
use std::str::FromStr;

/// The random name a store gets when it is created. It keys every checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreUuid(pub [u8; 16]);

/// BLAKE3 of a codec's stored bytes: two codecs with one fingerprint decode alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Names one memory for good: a slot, and the number of the write that filled it.
///
/// Sequence numbers come from a persisted counter and never repeat, so an id outlives its memory harmlessly:
/// it finds nothing, never the slot's next occupant. Written and parsed as `slot@seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct MemoryId {
    /// The slot, from 0.
    pub slot: u32,
    /// The number of the write that filled it, from 1.
    pub seq: u64,
}

impl fmt::Display for MemoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.slot, self.seq)
    }
}

/// The text is not a memory id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseIdError(String);

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a memory id looks like 12@345 (slot@sequence), not {:?}", self.0)
    }
}

impl std::error::Error for ParseIdError {}

impl FromStr for MemoryId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('@')
            .and_then(|(slot, seq)| Some(Self { slot: slot.parse().ok()?, seq: seq.parse().ok()? }))
            .ok_or_else(|| ParseIdError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text() {
        let id = MemoryId { slot: 12, seq: 345 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "12", "@", "12@", "@3", "-1@3", "12@3@4", "4294967296@1"] {
            assert!(wrong.parse::<MemoryId>().is_err(), "{wrong}");
        }
    }
}
