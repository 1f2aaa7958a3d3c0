//! Errors of decoding.

use std::fmt;

/// Why bytes could not be decoded. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ended too early.
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes it needs.
        needed: u64,
        /// Bytes that were left.
        found: u64,
    },
    /// The checksum does not match: damage, or a value that belongs elsewhere.
    Checksum {
        /// What was being read.
        what: &'static str,
    },
    /// The first bytes are not those of this kind of value.
    Magic {
        /// What was being read.
        what: &'static str,
    },
    /// The value was written by a newer version that this one must not guess at.
    TooNew {
        /// What was being read.
        what: &'static str,
        /// The version, or the unknown feature bits, found.
        found: u64,
        /// The newest version, or the feature bits, known.
        known: u64,
    },
    /// A number is above the format's limit.
    Limit {
        /// What was being read.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A field has a value that no writer produces.
    Invalid {
        /// What was being read.
        what: &'static str,
        /// The value found.
        found: u64,
    },
    /// Bytes were left after the value.
    Trailing {
        /// What was being read.
        what: &'static str,
        /// How many bytes were left.
        bytes: u64,
    },
    /// A framed payload does not follow its schema.
    Malformed {
        /// What was being read.
        what: &'static str,
        /// The payload decoder's message.
        cause: String,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { what, needed, found } => {
                write!(f, "{what} needs {needed} bytes, only {found} are there")
            }
            Self::Checksum { what } => {
                write!(f, "{what} failed its checksum: damaged, or from another place")
            }
            Self::Magic { what } => write!(f, "this is not {what}: its first bytes are others"),
            Self::TooNew { what, found, known } => {
                write!(
                    f,
                    "{what} was written by a newer version: found {found:#x}, known are up to {known:#x}"
                )
            }
            Self::Limit { what, found, max } => write!(f, "{what} is {found}, at most {max} is allowed"),
            Self::Invalid { what, found } => write!(f, "{what} has the impossible value {found}"),
            Self::Trailing { what, bytes } => write!(f, "{bytes} bytes are left over after {what}"),
            Self::Malformed { what, cause } => write!(f, "{what} is malformed: {cause}"),
        }
    }
}

impl std::error::Error for DecodeError {}
