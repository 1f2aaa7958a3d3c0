//! Memory whose size comes from a file: asked for, and refused as an error instead of an abort.
//!
//! What std and redb allocate in small pieces aborts the process all the same when nothing is left.

use std::fmt;

/// The system has no such memory left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Bytes that were asked for.
    pub(crate) bytes: u64,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of memory were refused", self.bytes)
    }
}

/// Makes a vector hold `len` values without asking again.
pub(crate) fn reserve<T>(values: &mut Vec<T>, len: usize) -> Result<(), Refused> {
    let more = len.saturating_sub(values.len());
    if more <= values.capacity() - values.len() {
        return Ok(());
    }
    let refused = Refused { bytes: (more as u64).saturating_mul(size_of::<T>() as u64) };
    if hook::refuses() {
        return Err(refused);
    }
    values.try_reserve_exact(more).map_err(|_| refused)
}

/// Tests refuse each request in turn.
#[cfg(test)]
pub(crate) mod hook {
    use std::cell::Cell;

    thread_local! {
        /// Requests until one is refused; none is without a number.
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Refuses the request after so many others on this thread; gives whether it came.
    pub(crate) fn refuse<T>(after: u32, run: impl FnOnce() -> T) -> (T, bool) {
        LEFT.set(Some(after));
        let value = run();
        (value, LEFT.take().is_none())
    }

    pub(super) fn refuses() -> bool {
        match LEFT.get() {
            None => false,
            Some(0) => {
                LEFT.set(None);
                true
            }
            Some(left) => {
                LEFT.set(Some(left - 1));
                false
            }
        }
    }
}

#[cfg(not(test))]
mod hook {
    pub(super) fn refuses() -> bool {
        false
    }
}
