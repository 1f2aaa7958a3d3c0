//! How a counted read, or the closing of a store, wakes the flusher.

use parking_lot::{Condvar, Mutex};

/// Most bumps that wait.
pub(crate) const BUMPS_MAX: u64 = 65_536;

/// Messages to the flusher thread.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    pub(crate) wake: Mutex<Wake>,
    pub(crate) changed: Condvar,
}

impl Signal {
    /// Called by the reader whose access reached the limit.
    pub(crate) fn flush_soon(&self) {
        let mut wake = self.wake.lock();
        // A stop stays a stop.
        if *wake == Wake::Sleep {
            *wake = Wake::Flush;
            self.changed.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        *self.wake.lock() = Wake::Stop;
        self.changed.notify_one();
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) enum Wake {
    #[default]
    Sleep,
    Flush,
    Stop,
}
