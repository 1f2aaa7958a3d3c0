//! The one place where the database's errors and panics become ours.
//!
//! redb checks no page on ordinary reads and can panic on a malformed one. Such a panic is caught here; the handle
//! that met it must not be used again, which is its owner's business.

use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A database error on its way to [`Error::Storage`].
pub(super) fn storage<E: Into<redb::Error>>(during: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Storage { during, source: Box::new(error.into()) }
}

/// Runs something that uses the database; a panic becomes an error.
pub(super) fn guarded<T>(during: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
            .unwrap_or_else(|| "no message".to_owned());
        Err(Error::Storage { during, source: format!("it panicked on a malformed page: {message}").into() })
    })
}

/// Whether an error means that the handle can no longer be trusted.
pub(super) fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::Storage { .. } | Error::OutcomeUnknown { .. })
}
