//! Opening the file: probes, locks, and how a file of another program is recognized.

use super::backing::{Backing, FileStorage, SharedBackend};
use super::guard::{Closing, guarded, storage};
use super::handle::Handle;
use super::locked_storage::LockedStorage;
use super::overlay::Overlay;
use super::tables::{HEADER, META};
use crate::error::{Error, Result};
use apcm_format::{DecodeError, StoreHeader};
use redb::{Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageBackend, TableError};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Memory redb may use for pages; its default of 1 GiB is not for an embedded store.
const CACHE_BYTES: usize = 64 << 20;
/// First bytes of every redb file.
const REDB_MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

/// Where redb's header says how the file was left (its design document, "super-header").
const REDB_FLAGS_AT: u64 = 9;
const REDB_RECOVERY_REQUIRED: u8 = 2;
const REDB_TWO_PHASE: u8 = 4;

/// Opens a store for writing.
///
/// First through a layer that keeps writes in memory: what proves to be no store of a known version stays as it
/// was, byte for byte. Then, if it was not closed cleanly, everything is written again and synced, because the
/// disk may lack pages that the system's cache shows (see [`storage`](crate::storage)). All of it under one
/// lock.
pub(crate) fn open_writable(backing: &Backing) -> Result<(Handle, StoreHeader)> {
    let name = backing.name();
    let locked = match backing {
        Backing::File(path) => {
            check_magic(path)?;
            let file = OpenOptions::new().read(true).write(true).open(path).map_err(Error::io(path))?;
            let same = file.try_clone().map_err(Error::io(path))?;
            let storage = FileStorage::new(file, same).map_err(|error| not_opened(path, error))?;
            LockedStorage::new(SharedBackend::new(storage))
        }
        Backing::Backend(backend) => {
            if backend.len().map_err(Error::io(name))? == 0 {
                return Err(not_a_store(name, "it is empty"));
            }
            LockedStorage::new(backend.clone())
        }
    };
    let unclean = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&unclean);
    let probe = || -> Result<StoreHeader> {
        let overlay = Overlay::before(locked.clone()).map_err(Error::io(name))?;
        let mut builder = database_options();
        builder.set_repair_callback(move |_| seen.store(true, Ordering::Relaxed));
        let database = Closing::inspected(
            builder.create_with_backend(overlay).map_err(|error| not_opened(name, error))?,
        );
        read_header(name, &database.begin_read().map_err(storage("begin a read"))?)
    };
    let header = foreign(name, guarded("look at the file", probe))?;
    check_writable(name, &header)?;
    let mut flags = [0];
    locked.read(REDB_FLAGS_AT, &mut flags).map_err(Error::io(name))?;
    if unclean.load(Ordering::Relaxed) || flags[0] & REDB_RECOVERY_REQUIRED != 0 {
        locked.discard_cache().map_err(|error| match error.kind() {
            // A file system that copies on write needs space to write the same bytes again.
            std::io::ErrorKind::StorageFull => Error::NoSpace {
                needed: locked.len().unwrap_or(0),
                available: backing.available().unwrap_or(0),
            },
            _ => Error::io(name)(error),
        })?;
    }
    let database = guarded("open the file", || {
        database_options().create_with_backend(locked).map_err(|error| not_opened(name, error))
    })?;
    Ok((Handle::Writable(Closing::new(database)), header))
}

fn check_writable(path: &Path, header: &StoreHeader) -> Result<()> {
    let Some(what) = header.features.unwritable() else { return Ok(()) };
    Err(Error::TooNew {
        path: path.to_owned(),
        cause: DecodeError::TooNew {
            what,
            found: header.features.read_only_compatible,
            known: apcm_format::Features::READ_ONLY_COMPATIBLE_KNOWN,
        },
    })
}

/// Opens a store for reading: other readers may have it open too.
pub(crate) fn open_read_only(path: &Path) -> Result<(Handle, StoreHeader)> {
    check_magic(path)?;
    let open = || -> Result<(Handle, StoreHeader)> {
        let database = database_options().open_read_only(path).map_err(|error| not_opened(path, error))?;
        let handle = Handle::ReadOnly(Closing::new(database));
        let header = read_header(path, &handle.begin_read()?)?;
        Ok((handle, header))
    };
    foreign(path, guarded("open the file", open))
}

/// A file seen for its own sake: whatever is done to this database stays in memory.
pub(crate) struct Look {
    pub(crate) database: Closing<Database>,
    pub(crate) header: StoreHeader,
    /// Whether the file was not closed cleanly; the database seen here is the recovered one.
    pub(crate) needs_recovery: bool,
}

/// Opens a file for inspection only, beside other readers; writes stay in memory. The database's errors are
/// returned as they are: this looks for damage.
pub(crate) fn look(path: &Path) -> Result<Look> {
    look_at(path, false)
}

/// As [`look`], for a file whose own account of its pages is damaged: the database is made to believe that it
/// was not closed cleanly, so that it makes that account again from what is there.
pub(crate) fn look_recovering(path: &Path) -> Result<Look> {
    look_at(path, true)
}

fn look_at(path: &Path, recovering: bool) -> Result<Look> {
    check_magic(path)?;
    guarded("look at the file", || {
        let overlay = File::open(path).and_then(Overlay::reading).map_err(Error::io(path))?;
        if recovering {
            let mut flags = [0];
            overlay.read(REDB_FLAGS_AT, &mut flags).map_err(Error::io(path))?;
            flags[0] = (flags[0] | REDB_RECOVERY_REQUIRED) & !REDB_TWO_PHASE;
            overlay.write(REDB_FLAGS_AT, &flags).map_err(Error::io(path))?;
        }
        let needs_recovery = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&needs_recovery);
        let mut builder = database_options();
        builder.set_repair_callback(move |_| seen.store(true, Ordering::Relaxed));
        let database = Closing::inspected(
            builder.create_with_backend(overlay).map_err(|error| not_opened(path, error))?,
        );
        let header = read_header(path, &database.begin_read().map_err(storage("begin a read"))?)?;
        Ok(Look { database, header, needs_recovery: needs_recovery.load(Ordering::Relaxed) })
    })
}

/// How every database here is opened.
pub(crate) fn database_options() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn check_magic(path: &Path) -> Result<()> {
    let mut first = Vec::new();
    // Asked before opening: opening a pipe would block until a writer opens it.
    if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
        return Err(not_a_store(path, "not a regular file"));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(REDB_MAGIC.len() as u64).read_to_end(&mut first).map_err(Error::io(path))?;
    if first.is_empty() {
        return Err(not_a_store(path, "the file is empty"));
    }
    if first != REDB_MAGIC {
        return Err(not_a_store(path, "its first bytes are others"));
    }
    Ok(())
}

fn read_header(path: &Path, transaction: &ReadTransaction) -> Result<StoreHeader> {
    let stranger = "a redb database of another program";
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(storage("open a table")(error)),
        Err(_) => return Err(not_a_store(path, stranger)),
    };
    let header = meta.get(HEADER).map_err(storage("read the header"))?;
    let header = header.ok_or_else(|| not_a_store(path, stranger))?;
    StoreHeader::decode(header.value()).map_err(|cause| match cause {
        DecodeError::Magic { .. } => not_a_store(path, stranger),
        DecodeError::TooNew { .. } => Error::TooNew { path: path.to_owned(), cause },
        _ => Error::Corrupt { what: "the store's header".to_owned(), cause },
    })
}

fn not_a_store(path: &Path, cause: &str) -> Error {
    Error::NotAStore { path: path.to_owned(), cause: cause.to_owned() }
}

pub(crate) fn not_opened(path: &Path, error: DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            Error::Locked { path: path.to_owned(), holder: super::lock_holder::lock_holder(path) }
        }
        DatabaseError::RepairAborted => Error::NeedsRecovery { path: path.to_owned() },
        DatabaseError::UpgradeRequired(version) => {
            not_a_store(path, &format!("a redb database in the old file format {version}"))
        }
        other => storage("open the file")(other),
    }
}

/// A file that the database cannot read is no store that this handle may repair: cut short, garbled or foreign.
fn foreign<T>(path: &Path, result: Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        Error::Storage { source, .. } => {
            not_a_store(path, &format!("cut short, damaged or foreign: {source}"))
        }
        other => other,
    })
}
