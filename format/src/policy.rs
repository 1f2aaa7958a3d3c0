//! Which memory a full store evicts.

use crate::DecodeError;

/// Which memory a full store evicts. All of them are exact and deterministic, and break ties by age: the oldest
/// leaves.
///
/// A *use* is a counted read; writing a memory counts as one for [`Lru`](Self::Lru) and
/// [`LfuAged`](Self::LfuAged), so that a newcomer is not the next to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Least frequently used, the ApCM paper's rule: right where what is wanted stays the same. A newcomer has
    /// no reads, so a memory that is not read soon is evicted next, and one that was read often long ago stays.
    #[default]
    Lfu,
    /// Least frequently used, where a use weighs half as much as one that came `half_life` uses later: right
    /// where what is wanted changes slowly. A few times the capacity is a good half-life; a short one
    /// approaches [`Lru`](Self::Lru), a long one [`Lfu`](Self::Lfu).
    LfuAged {
        /// Uses of the whole store, reads and writes, after which one weighs half; at least 1.
        half_life: u32,
    },
    /// Least recently used: right where what was wanted just now will be wanted again.
    Lru,
    /// The oldest write leaves, however much it is read: a ring.
    Fifo,
}

impl Policy {
    /// As headers keep it: a number and a word of its own.
    pub(crate) fn stored(self) -> (u8, u32) {
        match self {
            Self::Lfu => (0, 0),
            Self::LfuAged { half_life } => (1, half_life),
            Self::Lru => (2, 0),
            Self::Fifo => (3, 0),
        }
    }

    pub(crate) fn from_stored(number: u8, word: u32) -> Result<Self, DecodeError> {
        match (number, word) {
            (0, 0) => Ok(Self::Lfu),
            (1, 1..) => Ok(Self::LfuAged { half_life: word }),
            (2, 0) => Ok(Self::Lru),
            (3, 0) => Ok(Self::Fifo),
            (0..=3, _) => {
                Err(DecodeError::Invalid { what: "the word beside the store's policy", found: word.into() })
            }
            (found, _) => {
                Err(DecodeError::TooNew { what: "the store's policy", found: found.into(), known: 3 })
            }
        }
    }
}

/// As text, like the command line has it.
impl serde::Serialize for Policy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lfu => f.write_str("lfu"),
            Self::LfuAged { half_life } => write!(f, "lfu-aged:{half_life}"),
            Self::Lru => f.write_str("lru"),
            Self::Fifo => f.write_str("fifo"),
        }
    }
}

impl std::str::FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text {
            "lfu" => Ok(Self::Lfu),
            "lru" => Ok(Self::Lru),
            "fifo" => Ok(Self::Fifo),
            _ => text
                .strip_prefix("lfu-aged:")
                .and_then(|half_life| half_life.parse().ok())
                .filter(|&half_life| half_life > 0)
                .map(|half_life| Self::LfuAged { half_life })
                .ok_or_else(|| UnknownPolicy { found: text.to_owned() }),
        }
    }
}

/// A text that names no [`Policy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPolicy {
    /// The text.
    pub found: String,
}

impl std::fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let expected = "lfu, lfu-aged:HALF_LIFE (in reads and writes, from 1), lru or fifo";
        write!(f, "expected {expected}, found {:?}", self.found)
    }
}

impl std::error::Error for UnknownPolicy {}
