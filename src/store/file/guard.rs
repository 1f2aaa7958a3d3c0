//! The one place where the database's errors and panics become ours.
//!
//! redb checks no page on ordinary reads and can panic on a malformed one. Such a panic is caught here; the
//! handle that met it must not be used again, which is its owner's business.

use crate::error::{Error, Result};
use std::any::Any;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A database error on its way to [`Error::Storage`].
pub(crate) fn storage<E: Into<redb::Error>>(during: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Storage { during, source: Box::new(error.into()) }
}

thread_local! {
    /// How many calls of [`guarded`] this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic of this thread, now, is caught by the store and becomes an error: a panic hook that prints
/// it would only confuse.
///
/// ```
/// let print = std::panic::take_hook();
/// std::panic::set_hook(Box::new(move |panic| {
///     if !apcm::panic_becomes_error() {
///         print(panic);
///     }
/// }));
/// ```
pub fn panic_becomes_error() -> bool {
    DEPTH.get() > 0
}

/// A panic of the caller's code, on its way through [`guarded`].
struct CallersPanic(Box<dyn Any + Send>);

/// Runs code of the caller's own: a clock, a callback, a codec. Its panic says nothing about the file, so it
/// passes through [`guarded`] and reaches the caller as it was.
pub(crate) fn callers<T>(run: impl FnOnce() -> T) -> T {
    let depth = DEPTH.replace(0);
    let result = catch_unwind(AssertUnwindSafe(run));
    DEPTH.set(depth);
    result.unwrap_or_else(|panic| pass_on(CallersPanic(panic)))
}

fn pass_on(panic: CallersPanic) -> ! {
    resume_unwind(if DEPTH.get() == 0 { panic.0 } else { Box::new(panic) })
}

/// Runs something that uses the database; a panic becomes an error.
pub(crate) fn guarded<T>(during: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
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

/// A database whose closing cannot panic. redb writes when it is dropped, and on a damaged file it can panic
/// there as well as anywhere; in a build without redb's own assertions twice at once, which aborts the process.
#[derive(Debug)]
pub(crate) struct Closing<T> {
    database: Option<T>,
    /// Whether closing may write.
    writes: bool,
}

impl<T> Closing<T> {
    pub(crate) fn new(database: T) -> Self {
        Self { database: Some(database), writes: true }
    }

    /// A database that is only inspected.
    pub(crate) fn inspected(database: T) -> Self {
        Self { database: Some(database), writes: false }
    }

    /// Closing writes nothing from now on; the next open recovers the file.
    pub(crate) fn abandon(&mut self) {
        self.writes = false;
    }
}

impl<T> Deref for Closing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.database {
            Some(database) => database,
            None => unreachable!("it is taken by drop alone"),
        }
    }
}

impl<T> DerefMut for Closing<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.database {
            Some(database) => database,
            None => unreachable!("it is taken by drop alone"),
        }
    }
}

impl<T> Drop for Closing<T> {
    fn drop(&mut self) {
        let database = self.database.take();
        if !self.writes {
            // redb writes nothing where it is dropped by a panic. This one prints nothing and ends here.
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let _dropped_by_the_panic = database;
                resume_unwind(Box::new(()))
            }));
            drop::<std::thread::Result<()>>(ended);
            return;
        }
        // A destructor cannot return the error; the next open finds that the file was not closed cleanly.
        let _ = guarded("close the file", || {
            drop(database);
            Ok(())
        });
    }
}

impl Error {
    /// Whether this says that contents of the file are damaged, and not that they could not be read or written.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            // Of a panic on a malformed page there is no error of the database.
            Self::Storage { source, .. } => !matches!(
                source.downcast_ref::<redb::Error>(),
                Some(redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::LockPoisoned(_))
            ),
            _ => false,
        }
    }
}

/// Whether an error means that the handle can no longer be trusted.
pub(crate) fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::Storage { .. } | Error::OutcomeUnknown { .. })
}
