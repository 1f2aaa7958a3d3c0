//! How a command ends: exit codes and messages of failures.

use crate::interrupt;
use apcm::Error;

/// Exit codes, as `apcm --help` documents them.
pub(crate) mod exit {
    pub(crate) const FAILURE: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const NOT_FOUND: u8 = 3;
    pub(crate) const NOT_A_STORE: u8 = 4;
    pub(crate) const LOCKED: u8 = 5;
    pub(crate) const CODEC_MISMATCH: u8 = 6;
    pub(crate) const NEEDS_RECOVERY: u8 = 7;
    /// What shells report of a process that SIGINT ended.
    pub(crate) const STOPPED: u8 = 130;
}

/// Why a command failed.
pub(crate) enum Failure {
    Library(Error),
    /// There is no memory with this key.
    NoKey(String),
    /// There is nothing of a stream of this name.
    NoStream(String),
    /// The findings were printed: the store is damaged.
    Damaged,
    /// A signal stopped it; how to go on.
    Stopped(String),
    /// Standard output was closed: nothing can be printed.
    Pipe,
}

impl Failure {
    /// A command that a signal stopped says how to go on; all other errors stay what they are.
    pub(crate) fn stopped(how: impl FnOnce() -> String) -> impl FnOnce(Error) -> Self {
        |error| match error {
            Error::Cancelled if interrupt::is_stopped() => Self::Stopped(how()),
            other => Self::Library(other),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

pub(crate) type Outcome = Result<(), Failure>;

pub(crate) fn code(error: &Error) -> u8 {
    match error {
        Error::Argument { .. } | Error::Filter { .. } => exit::USAGE,
        Error::NotFound { .. } | Error::Forgotten { .. } => exit::NOT_FOUND,
        Error::NotAStore { .. }
        | Error::NotAPack { .. }
        | Error::TooNew { .. }
        | Error::Corrupt { .. }
        | Error::Format(_) => exit::NOT_A_STORE,
        error if error.is_damage() => exit::NOT_A_STORE,
        Error::Locked { .. } => exit::LOCKED,
        Error::CodecMismatch { .. } | Error::UnknownCodec { .. } => exit::CODEC_MISMATCH,
        Error::NeedsRecovery { .. } => exit::NEEDS_RECOVERY,
        _ => exit::FAILURE,
    }
}

pub(crate) fn hint(error: &Error) -> Option<&'static str> {
    match error {
        Error::Storage { .. } if error.is_damage() => Some("`apcm verify` says what is damaged"),
        Error::NotAStore { .. } => Some("`apcm create` makes one"),
        Error::NotAPack { .. } => Some("`apcm pack STORE --out PACK` makes one"),
        Error::Locked { .. } => Some("close the program that has it open for writing"),
        Error::NeedsRecovery { .. } => Some("`apcm stats STORE --recover` does that"),
        Error::OverBudget { .. } => {
            Some("keep fewer records losslessly, unpin some, or make a store with a larger budget")
        }
        Error::Forgotten { .. } => Some("`apcm stream recall` without --from and --to gives what is left"),
        Error::AllPinned { .. } => Some("`apcm pin STORE KEY --off` unpins"),
        Error::RecordShape { .. } => Some("`apcm stats STORE` shows the shape a store holds"),
        Error::TooLittleData { .. } => Some("give more records, or ask for fewer bytes"),
        Error::Exists { .. } => Some("choose another name, or move it away"),
        Error::MemoryLimit { .. } => Some("in a program, StoreBuilder::memory_limit allows more"),
        Error::Filter { .. } => Some("for example: kind = 'note' and year >= 2025"),
        _ => None,
    }
}
