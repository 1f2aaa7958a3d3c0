//! Where a store's bytes are: in a file, or in storage of the user's own.

use crate::error::{Error, Result};
use crate::storage::{BackendError, StorageBackend, rewrite};
use crate::whole_file::folder_of;
use redb::backends::FileBackend;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a store's bytes are.
#[derive(Debug, Clone)]
pub(crate) enum Backing {
    File(PathBuf),
    Backend(SharedBackend),
}

impl Backing {
    /// Its name in messages.
    pub(crate) fn name(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Backend(_) => Path::new("the storage given"),
        }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Backend(_) => None,
        }
    }

    pub(crate) fn len(&self) -> Result<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).map(|metadata| metadata.len()),
            Self::Backend(backend) => redb::StorageBackend::len(backend),
        }
        .map_err(Error::io(self.name()))
    }

    /// Bytes that its contents take: of a file with holes those that are there, not those that its length
    /// claims.
    pub(crate) fn allocated(&self) -> Result<u64> {
        #[cfg(unix)]
        if let Self::File(path) = self {
            use std::os::unix::fs::MetadataExt;
            let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
            return Ok(metadata.len().min(metadata.blocks().saturating_mul(512)));
        }
        self.len()
    }

    /// Bytes that are free beside it. A medium that cannot say is written to all the same: it will say when it
    /// is full.
    pub(crate) fn available(&self) -> Option<u64> {
        fs4::available_space(folder_of(self.path()?)).ok()
    }
}

/// Storage that the store keeps a hold of after the database took it over, to ask its length.
#[derive(Debug, Clone)]
pub(crate) struct SharedBackend(Arc<dyn StorageBackend>);

impl SharedBackend {
    pub(crate) fn new(backend: impl StorageBackend) -> Self {
        Self(Arc::new(backend))
    }

    pub(crate) fn discard_cache(&self) -> io::Result<()> {
        self.0.discard_cache()
    }
}

/// As the database has it.
fn lock_error(error: BackendError) -> redb::BackendError {
    match error {
        BackendError::Unsupported => redb::BackendError::Unsupported,
        BackendError::Io(error) => redb::BackendError::Io(error),
    }
}

impl redb::StorageBackend for SharedBackend {
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

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.0.try_lock_range(start, end).map_err(lock_error)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.0.try_lock_shared_range(start, end).map_err(lock_error)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.0.lock_range(start, end).map_err(lock_error)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.0.lock_shared_range(start, end).map_err(lock_error)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.0.unlock_range(start, end).map_err(lock_error)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.0.query_lock_range(start, end).map_err(lock_error)
    }
}

/// A file, as the database accesses files; locked as the database locks it.
#[derive(Debug)]
pub(crate) struct FileStorage {
    backend: FileBackend,
    /// The same file, to find its holes.
    file: File,
}

impl FileStorage {
    /// `same` is another handle of the file.
    pub(crate) fn new(file: File, same: File) -> Result<Self, redb::DatabaseError> {
        Ok(Self { backend: FileBackend::new(file)?, file: same })
    }
}

/// As this crate has it.
fn our_error(error: redb::BackendError) -> BackendError {
    match error {
        redb::BackendError::Unsupported => BackendError::Unsupported,
        redb::BackendError::Io(error) => BackendError::Io(error),
        other => BackendError::Io(io::Error::other(format!("{other:?}"))),
    }
}

impl StorageBackend for FileStorage {
    fn len(&self) -> io::Result<u64> {
        redb::StorageBackend::len(&self.backend)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        redb::StorageBackend::read(&self.backend, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        redb::StorageBackend::set_len(&self.backend, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        redb::StorageBackend::sync_data(&self.backend)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        redb::StorageBackend::write(&self.backend, offset, data)
    }

    fn discard_cache(&self) -> io::Result<()> {
        rewrite(self, |start, end| is_hole(&self.file, start, end))
    }

    fn close(&self) -> io::Result<()> {
        redb::StorageBackend::close(&self.backend)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        redb::StorageBackend::try_lock_range(&self.backend, start, end).map_err(our_error)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        redb::StorageBackend::try_lock_shared_range(&self.backend, start, end).map_err(our_error)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        redb::StorageBackend::lock_range(&self.backend, start, end).map_err(our_error)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        redb::StorageBackend::lock_shared_range(&self.backend, start, end).map_err(our_error)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        redb::StorageBackend::unlock_range(&self.backend, start, end).map_err(our_error)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        redb::StorageBackend::query_lock_range(&self.backend, start, end).map_err(our_error)
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
