//! The one place where the database's errors and panics become ours.
//!
//! redb checks no page on ordinary reads and can panic on a malformed one. Such a panic is caught here; the handle
//! that met it must not be used again, which is its owner's business.

use crate::error::{Error, Result};
use std::any::Any;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A database error on its way to [`Error::Storage`].
pub(super) fn storage<E: Into<redb::Error>>(during: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Storage { during, source: Box::new(error.into()) }
}

thread_local! {
    /// How many calls of [`guarded`] this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic of this thread would be caught and become an error, so that its message would only confuse.
#[cfg(feature = "cli")]
pub(crate) fn is_guarded() -> bool {
    DEPTH.get() > 0
}

/// A panic on its way through [`guarded`] to the caller whose it is.
struct CallersPanic(Box<dyn Any + Send>);

/// Runs code of the caller's own: a clock, a callback, a codec. Its panic says nothing about the file, so it passes
/// through [`guarded`] and reaches the caller as it was.
pub(super) fn callers<T>(run: impl FnOnce() -> T) -> T {
    let depth = DEPTH.replace(0);
    let result = catch_unwind(AssertUnwindSafe(run));
    DEPTH.set(depth);
    result.unwrap_or_else(|panic| pass_on(CallersPanic(panic)))
}

fn pass_on(panic: CallersPanic) -> ! {
    resume_unwind(if DEPTH.get() == 0 { panic.0 } else { Box::new(panic) })
}

/// Runs something that uses the database; a panic becomes an error.
pub(super) fn guarded<T>(during: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(run));
    DEPTH.set(DEPTH.get() - 1);
    result.unwrap_or_else(|panic| {
        let panic = match panic.downcast::<CallersPanic>() {
            Ok(callers) => pass_on(*callers),
            Err(panic) => panic,
        };
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
            .unwrap_or_else(|| "no message".to_owned());
        Err(Error::Storage { during, source: format!("it panicked on a malformed page: {message}").into() })
    })
}

/// A database whose closing cannot panic. redb writes when it is dropped, and on a damaged file it can panic there as
/// well as anywhere.
#[derive(Debug)]
pub(super) struct Closing<T>(Option<T>);

impl<T> Closing<T> {
    pub(super) fn new(database: T) -> Self {
        Self(Some(database))
    }
}

impl<T> Deref for Closing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(database) => database,
            None => unreachable!("it is taken by drop alone"),
        }
    }
}

impl<T> DerefMut for Closing<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(database) => database,
            None => unreachable!("it is taken by drop alone"),
        }
    }
}

impl<T> Drop for Closing<T> {
    fn drop(&mut self) {
        let database = self.0.take();
        // Nobody is left to tell: the file says at the next opening that it was not closed cleanly.
        let _ = guarded("close the file", || {
            drop(database);
            Ok(())
        });
    }
}

/// Whether a storage error speaks of what the file holds, and not of reading it.
#[cfg(feature = "cli")]
pub(crate) fn is_damage(error: &Error) -> bool {
    let Error::Storage { source, .. } = error else { return false };
    !matches!(source.downcast_ref::<redb::Error>(), Some(redb::Error::Io(_)))
}

/// Whether an error means that the handle can no longer be trusted.
pub(super) fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::Storage { .. } | Error::OutcomeUnknown { .. })
}
