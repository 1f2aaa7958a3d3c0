//! Storage of the user's own: the bytes that a store lives in.
//!
//! # Why an unclean store is rewritten before it is recovered
//! When a sync fails, Linux marks the dirty pages it could not write clean and keeps them in its cache; the
//! next sync succeeds (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020). A recovery
//! that reads such a page builds on bytes that the disk does not have. [`StorageBackend::discard_cache`]
//! therefore writes everything again as the cache shows it, and syncs. If that sync succeeds, the disk holds
//! what the recovery will read. If it fails, opening fails and nothing depends on the lost pages.
//!
//! A crash during the rewrite is harmless: every page on the disk is either its old version or the cached one,
//! a subset of the writes of the failed commit. That is the state after a power loss, and the database recovers
//! from it (F3 of docs/reliability.md).
//!
//! Rejected: `posix_fadvise(DONTNEED)`, a hint; direct I/O, which not every file system supports; rewriting
//! only the pages that the recovery read, because a recovery from redb's saved allocator state reads few of
//! them.

use parking_lot::RwLock;
use std::fmt::Debug;
use std::io;
use std::ops::Bound;

/// Bytes that are written again at a time.
const CHUNK: u64 = 1 << 20;
/// Bytes that a file system allocates at a time, or more.
const BLOCK: usize = 4_096;

/// Why a byte range could not be locked.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackendError {
    /// The storage has no locks.
    Unsupported,
    /// The storage failed.
    Io(io::Error),
}

impl std::fmt::Display for BackendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsupported => f.write_str("the storage has no locks"),
            Self::Io(error) => std::fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for BackendError {}

impl From<BackendError> for io::Error {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Unsupported => io::ErrorKind::Unsupported.into(),
            BackendError::Io(error) => error,
        }
    }
}

impl From<io::Error> for BackendError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Io(error),
        }
    }
}

/// Bytes that a store lives in: in memory, on a device, under encryption. See
/// [`StoreBuilder::create_on`](crate::StoreBuilder::create_on).
///
/// Methods are called from several threads at once. After a method returned an error the store uses the storage
/// only to close it.
pub trait StorageBackend: Debug + Send + Sync + 'static {
    /// How many bytes there are.
    ///
    /// # Errors
    /// Of the storage.
    fn len(&self) -> io::Result<u64>;

    /// Whether there are none.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// Of the storage; also for a range that ends behind the last byte.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Makes the storage longer, by zeros, or shorter.
    ///
    /// # Errors
    /// Of the storage.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes everything durable that was written before the call.
    ///
    /// # Errors
    /// Of the storage. What was written since the last sync may then be durable or not, and each part by
    /// itself.
    fn sync_data(&self) -> io::Result<()>;

    /// Writes `data` at `offset`, inside the length.
    ///
    /// # Errors
    /// Of the storage.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes what is durable and what reads return the same, before an unclean store is recovered.
    ///
    /// Storage that shows written bytes after it failed to make them durable, as files do, must not skip this.
    /// By default everything is read, written again and synced. Storage that can drop its cache may do that
    /// instead.
    ///
    /// # Errors
    /// Of the storage.
    fn discard_cache(&self) -> io::Result<()> {
        rewrite(self, |_, _| false)
    }

    /// Ends the use of the storage and releases its locks; called once.
    ///
    /// # Errors
    /// Of the storage.
    fn close(&self) -> io::Result<()> {
        Ok(())
    }

    /// Locks a range for this handle alone, or returns `false` where another has it.
    ///
    /// # Errors
    /// [`Unsupported`](BackendError::Unsupported) by default: then nothing keeps two handles apart.
    fn try_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Err(BackendError::Unsupported)
    }

    /// Locks a range beside other handles that do the same, or returns `false`.
    ///
    /// # Errors
    /// As [`try_lock_range`](Self::try_lock_range).
    fn try_lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Err(BackendError::Unsupported)
    }

    /// Locks a range for this handle alone, and waits for it.
    ///
    /// # Errors
    /// As [`try_lock_range`](Self::try_lock_range).
    fn lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Err(BackendError::Unsupported)
    }

    /// Locks a range beside other handles that do the same, and waits for it.
    ///
    /// # Errors
    /// As [`try_lock_range`](Self::try_lock_range).
    fn lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Err(BackendError::Unsupported)
    }

    /// Releases a range.
    ///
    /// # Errors
    /// As [`try_lock_range`](Self::try_lock_range).
    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Err(BackendError::Unsupported)
    }

    /// Whether another handle has locked any of a range.
    ///
    /// # Errors
    /// As [`try_lock_range`](Self::try_lock_range).
    fn query_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Err(BackendError::Unsupported)
    }
}

/// Storage in memory, gone with the store: for tests, and for stores that need not last.
#[derive(Default)]
pub struct InMemoryBackend(RwLock<Vec<u8>>);

impl std::fmt::Debug for InMemoryBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InMemoryBackend").field("len", &self.0.read().len()).finish()
    }
}

impl InMemoryBackend {
    /// Empty storage.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The part of a buffer that a read or write asks for.
fn range(len: usize, offset: u64, bytes: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok().filter(|&start| start <= len);
    let range =
        start.and_then(|start| Some(start..start.checked_add(bytes)?)).filter(|range| range.end <= len);
    range.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl StorageBackend for InMemoryBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read();
        out.copy_from_slice(&bytes[range(bytes.len(), offset, out.len())?]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = self.0.write();
        let more = len.saturating_sub(bytes.len());
        bytes.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write();
        let range = range(bytes.len(), offset, data.len())?;
        bytes[range].copy_from_slice(data);
        Ok(())
    }

    /// Nothing to do: what reads return is all there is.
    fn discard_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads everything, writes it again and syncs. `is_hole` says whether nothing is allocated between two
/// offsets.
///
/// Cost: reads and writes the storage once. Call it under the lock.
pub(crate) fn rewrite<S: StorageBackend + ?Sized>(
    storage: &S,
    is_hole: impl Fn(u64, u64) -> bool,
) -> io::Result<()> {
    let len = storage.len()?;
    let mut chunk = Vec::new();
    for start in (0..len).step_by(CHUNK as usize) {
        let end = len.min(start + CHUNK);
        chunk.resize((end - start) as usize, 0);
        // A block that cannot be read is left as it is: redb judges it by its checksum, if it is in use.
        let mut unreadable = Vec::new();
        if storage.read(start, &mut chunk).is_err() {
            for (at, block) in (start..).step_by(BLOCK).zip(chunk.chunks_mut(BLOCK)) {
                if storage.read(at, block).is_err() {
                    unreadable.push(at);
                }
            }
        }
        // A hole reads as zeros after a power loss too, and writing it would take disk space. All bytes of a
        // block are looked at, many at a time: the first that is not zero comes early or never.
        let left_out = |block: &[u8], at: u64| {
            unreadable.contains(&at)
                || (block.iter().fold(0, |any, byte| any | byte) == 0 && is_hole(at, at + block.len() as u64))
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
            storage.write(at, &chunk[from..from + len])?;
        }
    }
    storage.sync_data()
}
