//! The thread that writes access counts to disk when no transaction does.

use crate::error::{Error, Result};
use crate::store::engine::Engine;
use crate::store::resident::{Signal, Wake};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest time a count waits.
const INTERVAL: Duration = Duration::from_secs(30);
/// A running flusher.
#[derive(Debug)]
pub(crate) struct Flusher {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(crate) fn start(engine: &Arc<Engine>) -> Result<Self> {
        let signal = Arc::clone(&engine.signal);
        let (theirs, store) = (Arc::clone(&signal), Arc::downgrade(engine));
        let thread = std::thread::Builder::new()
            .name("apcm-flusher".to_owned())
            .spawn(move || run(&theirs, &store))
            .map_err(|source| Error::Io { path: engine.backing.name().to_owned(), source })?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Ends the thread and waits for it.
    pub(crate) fn join(mut self) {
        self.signal.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there was caught and poisoned the handle; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn run(signal: &Signal, store: &Weak<Engine>) {
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
