//! Work that computes with no lock held, and begins again where another thread was faster.

use crate::error::{Error, Result};
use crate::store::staged::is_changed;
use std::time::{Duration, Instant};

/// Times that an append or a removal begins again because others were faster, and the time after which it does
/// no more: one that takes seconds to compute would otherwise begin again for hours.
const TRIES: u32 = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `attempt` until it succeeds, or fails by more than a stream that changed meanwhile.
pub(crate) fn until_unchanged<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let (began, mut passes) = (Instant::now(), 0);
    loop {
        passes += 1;
        match attempt() {
            Err(error) if !is_changed(&error) => return Err(error),
            Err(_) if passes >= TRIES || began.elapsed() > PATIENCE => return Err(Error::Busy { passes }),
            Err(_) => std::thread::yield_now(),
            done => return done,
        }
    }
}
