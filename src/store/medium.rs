//! Where a store's bytes are: in a file, or in storage of the user's own.

use crate::error::{Error, Result};
use crate::whole_file::folder_of;
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a store's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Medium {
    File(PathBuf),
    Backend(Shared),
}

impl Medium {
    /// What messages call it.
    pub(super) fn name(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Backend(_) => Path::new("the storage given"),
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Backend(_) => None,
        }
    }

    pub(super) fn len(&self) -> Result<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).map(|metadata| metadata.len()),
            Self::Backend(backend) => backend.len(),
        }
        .map_err(Error::io(self.name()))
    }

    /// Bytes that its contents take: of a file with holes those that are there, not those that its length claims.
    pub(super) fn allocated(&self) -> Result<u64> {
        #[cfg(unix)]
        if let Self::File(path) = self {
            use std::os::unix::fs::MetadataExt;
            let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
            return Ok(metadata.len().min(metadata.blocks().saturating_mul(512)));
        }
        self.len()
    }

    /// Bytes that are free beside it. A medium that cannot say is written to all the same: it will say when it is full.
    pub(super) fn available(&self) -> Option<u64> {
        fs4::available_space(folder_of(self.path()?)).ok()
    }
}

/// Storage that the store keeps a hold of after the database took it over, to ask its length.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<dyn StorageBackend>);

impl Shared {
    pub(super) fn new(backend: impl StorageBackend) -> Self {
        Self(Arc::new(backend))
    }
}

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
