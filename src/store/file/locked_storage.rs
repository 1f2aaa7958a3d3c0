//! Storage that stays locked from the first inspection to the close.

use super::backing::SharedBackend;
use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

type Range = (Bound<u64>, Bound<u64>);

/// Storage whose locks are held from the first inspection until the database closes; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct LockedStorage(Arc<Storage>);

#[derive(Debug)]
struct Storage {
    backend: SharedBackend,
    /// Locks that were taken.
    locks: Mutex<Vec<Range>>,
    closed: Mutex<bool>,
}

impl LockedStorage {
    /// Makes the disk hold what reads return, before a recovery. Call it under the lock.
    pub(crate) fn discard_cache(&self) -> io::Result<()> {
        self.0.backend.discard_cache()
    }

    pub(crate) fn new(backend: SharedBackend) -> Self {
        Self(Arc::new(Storage { backend, locks: Mutex::default(), closed: Mutex::new(false) }))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if !*self.closed.lock() {
            // Inspected but not opened: release the locks.
            let _ = self.backend.close();
        }
    }
}

impl StorageBackend for LockedStorage {
    fn len(&self) -> io::Result<u64> {
        self.0.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        *self.0.closed.lock() = true;
        self.0.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        let mut locks = self.0.locks.lock();
        if locks.contains(&(start, end)) {
            return Ok(true);
        }
        let taken = self.0.backend.try_lock_range(start, end)?;
        if taken {
            locks.push((start, end));
        }
        Ok(taken)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.locks.lock().retain(|range| *range != (start, end));
        self.0.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.backend.query_lock_range(start, end)
    }
}
