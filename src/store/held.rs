//! Storage that stays locked from the first inspection to the close, and the rewrite that precedes a recovery.
//!
//! # Why an unclean file is rewritten before it is recovered
//! When a sync fails, Linux marks the dirty pages it could not write clean and keeps them in its cache; the next sync
//! succeeds (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020). A recovery that reads such a page
//! builds on bytes that the disk does not have. [`Held::settle`] therefore writes every page again as the cache shows it, and
//! syncs. If that sync succeeds, the disk holds what the recovery will read. If it fails, opening fails and nothing depends
//! on the lost pages.
//!
//! A crash during the rewrite is harmless: every page on the disk is either its old version or the cached one, a subset of
//! the writes of the failed commit. That is the state after a power loss, and the database recovers from it (F3 of
//! docs/reliability.md).
//!
//! Rejected: `posix_fadvise(DONTNEED)`, a hint; direct I/O, which not every file system supports; rewriting only the pages
//! that the recovery read, because a recovery from redb's saved allocator state reads few of them.

use super::medium::Shared;
use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// Bytes that are written again at a time.
const CHUNK: u64 = 1 << 20;
/// Bytes that a file system allocates at a time, or more.
const BLOCK: usize = 4_096;

type Range = (Bound<u64>, Bound<u64>);

/// Storage whose locks are held from the first inspection until the database closes; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Held(Arc<Storage>);

#[derive(Debug)]
struct Storage {
    backend: Shared,
    /// The file behind it, to find its holes.
    file: Option<File>,
    /// Locks that were taken.
    locks: Mutex<Vec<Range>>,
    closed: Mutex<bool>,
}

impl Held {
    pub(super) fn new(backend: Shared, file: Option<File>) -> Self {
        Self(Arc::new(Storage { backend, file, locks: Mutex::default(), closed: Mutex::new(false) }))
    }

    /// Makes the disk hold what reads return: rewrites everything and syncs.
    ///
    /// Cost: reads and writes the storage once. Call it under the lock.
    pub(super) fn settle(&self) -> io::Result<()> {
        let len = self.len()?;
        let mut chunk = Vec::new();
        for start in (0..len).step_by(CHUNK as usize) {
            let end = len.min(start + CHUNK);
            chunk.resize((end - start) as usize, 0);
            // A block that cannot be read is left as it is: redb judges it by its checksum, if it is in use.
            let mut unreadable = Vec::new();
            if self.read(start, &mut chunk).is_err() {
                for (at, block) in (start..).step_by(BLOCK).zip(chunk.chunks_mut(BLOCK)) {
                    if self.read(at, block).is_err() {
                        unreadable.push(at);
                    }
                }
            }
            // A hole reads as zeros after a power loss too, and writing it would take disk space.
            let left_out = |block: &[u8], at: u64| {
                if unreadable.contains(&at) {
                    return true;
                }
                // All bytes are looked at, many at a time: the first that is not zero comes early or never.
                let zeros = || block.iter().fold(0, |any, byte| any | byte) == 0;
                let hole = |file| is_hole(file, at, at + block.len() as u64);
                self.0.file.as_ref().is_some_and(|file| zeros() && hole(file))
            };
            let mut blocks = (start..).step_by(BLOCK).zip(chunk.chunks(BLOCK)).peekable();
            while let Some((at, block)) = blocks.next() {
                if left_out(block, at) {
                    continue;
                }
                // Adjacent blocks go in one write.
                let mut len = block.len();
                while let Some((_, block)) = blocks.next_if(|(at, block)| !left_out(block, *at)) {
                    len += block.len();
                }
                let from = (at - start) as usize;
                self.write(at, &chunk[from..from + len])?;
            }
        }
        self.sync_data()
    }
}

/// Whether nothing is allocated for these bytes of a file, as far as the file system can say.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "macos"))]
fn is_hole(file: &File, start: u64, end: u64) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(start)) {
        Ok(data) => data >= end,
        Err(error) => error == rustix::io::Errno::NXIO,
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "macos")))]
fn is_hole(_: &File, _: u64, _: u64) -> bool {
    false
}

impl Drop for Storage {
    fn drop(&mut self) {
        if !*self.closed.lock() {
            // Inspected but not opened: release the locks.
            let _ = self.backend.close();
        }
    }
}

impl StorageBackend for Held {
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
