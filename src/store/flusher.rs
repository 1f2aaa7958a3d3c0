//! The thread that brings access counts to the disk when nobody else does.

use super::Inner;
use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest time a count waits.
const INTERVAL: Duration = Duration::from_secs(30);
/// Most bumps that wait.
pub(super) const BUMPS_MAX: u64 = 65_536;

/// What the store says to its thread.
#[derive(Debug, Default)]
pub(super) struct Signal {
    wake: Mutex<Wake>,
    changed: Condvar,
}

impl Signal {
    /// Called by the reader whose bump was one too many.
    pub(super) fn flush_soon(&self) {
        let mut wake = self.wake.lock();
        // A stop stays a stop.
        if *wake == Wake::Sleep {
            *wake = Wake::Flush;
            self.changed.notify_one();
        }
    }

    fn stop(&self) {
        *self.wake.lock() = Wake::Stop;
        self.changed.notify_one();
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Wake {
    #[default]
    Sleep,
    Flush,
    Stop,
}

/// A running flusher.
#[derive(Debug)]
pub(super) struct Flusher {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(inner: &Arc<Inner>) -> Result<Self> {
        let signal = Arc::clone(&inner.signal);
        let (theirs, store) = (Arc::clone(&signal), Arc::downgrade(inner));
        let thread = std::thread::Builder::new()
            .name("apcm-flusher".to_owned())
            .spawn(move || run(&theirs, &store))
            .map_err(|source| Error::Io { path: inner.medium.name().to_owned(), source })?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Ends the thread and waits for it.
    pub(super) fn join(mut self) {
        self.signal.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there was caught and poisoned the handle; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn run(signal: &Signal, store: &Weak<Inner>) {
    loop {
        let mut wake = signal.wake.lock();
        if *wake == Wake::Sleep {
            signal.changed.wait_for(&mut wake, INTERVAL);
        }
        match std::mem::take(&mut *wake) {
            Wake::Stop => return,
            Wake::Sleep | Wake::Flush => {}
        }
        drop(wake);
        let Some(store) = store.upgrade() else { return };
        match store.flush() {
            // The disk is full: the counts stay in memory, and it is tried again.
            Ok(()) | Err(Error::NoSpace { .. }) => {}
            Err(_) => return,
        }
    }
}
