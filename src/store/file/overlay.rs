//! A file seen through a layer that keeps writes in memory.
//!
//! redb's writable open writes to whatever file it is given: it marks it as in use, and repairs it if need be.
//! So a store is first opened through this layer. Only when it proves to be a store of a known version is the
//! file itself opened; every other file stays as it was, byte for byte.

use super::locked_storage::LockedStorage;
use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;

const BLOCK: u64 = 4_096;

/// The layer. Locks are the storage's own, so that a store in use is found to be in use.
#[derive(Debug)]
pub(crate) struct Overlay<B> {
    below: B,
    /// Nothing will follow that writes: other readers may look at the file too.
    shared: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// Bytes of the storage that still show through; one that shrank and grew again shows zeros.
    visible: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK as usize]>>,
}

impl Overlay<LockedStorage> {
    /// A layer before storage that will be opened for writing; its locks stay when the layer is closed.
    pub(crate) fn before(storage: LockedStorage) -> io::Result<Self> {
        Self::layer(storage, false)
    }
}

impl Overlay<FileBackend> {
    /// A layer before a file that others may read meanwhile.
    pub(crate) fn reading(file: File) -> io::Result<Self> {
        Self::layer(FileBackend::new(file).map_err(io::Error::other)?, true)
    }
}

impl<B: StorageBackend> Overlay<B> {
    fn layer(below: B, shared: bool) -> io::Result<Self> {
        let len = below.len()?;
        Ok(Self { below, shared, state: Mutex::new(State { len, visible: len, blocks: BTreeMap::new() }) })
    }

    fn load(&self, state: &State, block: u64) -> io::Result<Box<[u8; BLOCK as usize]>> {
        if let Some(bytes) = state.blocks.get(&block) {
            return Ok(bytes.clone());
        }
        let mut bytes = Box::new([0; BLOCK as usize]);
        let start = block * BLOCK;
        let there = state.visible.saturating_sub(start).min(BLOCK) as usize;
        if there > 0 {
            self.below.read(start, &mut bytes[..there])?;
        }
        Ok(bytes)
    }
}

/// The parts of `[offset, offset + len)` in each block: block, range inside it, range of the caller's slice.
fn parts(
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let end = offset + len as u64;
    (offset / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let from = offset.max(block * BLOCK);
        let to = end.min((block + 1) * BLOCK);
        let inside = (from - block * BLOCK) as usize..(to - block * BLOCK) as usize;
        (block, inside, (from - offset) as usize..(to - offset) as usize)
    })
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (block, inside, outside) in parts(offset, out.len()) {
            out[outside].copy_from_slice(&self.load(&state, block)?[inside]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if len < state.len {
            state.visible = state.visible.min(len);
            state.blocks.split_off(&len.div_ceil(BLOCK));
            let last = len / BLOCK;
            let start = (len % BLOCK) as usize;
            if let Some(bytes) = state.blocks.get_mut(&last) {
                bytes[start..].fill(0);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (block, inside, outside) in parts(offset, data.len()) {
            let mut bytes = self.load(&state, block)?;
            bytes[inside].copy_from_slice(&data[outside]);
            state.blocks.insert(block, bytes);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        if self.shared { self.below.close() } else { Ok(()) }
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        match self.shared {
            true => self.below.try_lock_shared_range(start, end),
            false => self.below.try_lock_range(start, end),
        }
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        match self.shared {
            true => self.below.lock_shared_range(start, end),
            false => self.below.lock_range(start, end),
        }
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.shared { self.below.unlock_range(start, end) } else { Ok(()) }
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.query_lock_range(start, end)
    }
}
