//! The error of residuals that no encoder writes.

use crate::error::Error;
use apcm_format::DecodeError;

pub(crate) fn malformed(cause: &str) -> Error {
    Error::Format(DecodeError::Malformed { what: "a residual", cause: cause.to_owned() })
}
