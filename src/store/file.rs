//! Opening and creating the file: probes, locks, and what a stranger's file is told apart by.

use super::guard::{Closing, guarded, storage};
use super::held::Held;
use super::medium::{Medium, Shared};
use super::overlay::Overlay;
use super::tables::{CODEC, HEADER, META, OWN_CODEC, codec_chunk, codec_place};
use crate::claim::reserve;
use crate::codec;
use crate::error::{Error, Result};
use crate::whole_file;
use apcm_format::{DecodeError, StoreHeader, StoreUuid, limits};
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, StorageBackend,
    TableError, WriteTransaction,
};
use std::fs::{File, OpenOptions, Permissions};
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

/// An open database, for writing or for reading only.
pub(super) enum Handle {
    Writable(Closing<Database>),
    ReadOnly(Closing<ReadOnlyDatabase>),
}

impl Handle {
    pub(super) fn begin_read(&self) -> Result<ReadTransaction> {
        match self {
            Self::Writable(database) => database.begin_read(),
            Self::ReadOnly(database) => database.begin_read(),
        }
        .map_err(storage("begin a read"))
    }

    pub(super) fn writable(&self) -> Result<&Database> {
        match self {
            Self::Writable(database) => Ok(database),
            Self::ReadOnly(_) => Err(Error::ReadOnly),
        }
    }
}

/// Opens a store for writing.
///
/// First through a layer that keeps writes in memory: what proves to be no store of a known version stays as it was, byte for
/// byte. Then, if it was not closed cleanly, everything is written again and synced, because the disk may lack pages that the
/// system's cache shows (see [`Held`]). All of it under one lock.
pub(super) fn open_writable(medium: &Medium) -> Result<(Handle, StoreHeader)> {
    let name = medium.name();
    let storage = match medium {
        Medium::File(path) => {
            check_magic(path)?;
            let file = OpenOptions::new().read(true).write(true).open(path).map_err(Error::io(path))?;
            let holes = file.try_clone().map_err(Error::io(path))?;
            let backend = FileBackend::new(file).map_err(|error| not_opened(path, error))?;
            Held::new(Shared::new(backend), Some(holes))
        }
        Medium::Backend(backend) => {
            if backend.len().map_err(Error::io(name))? == 0 {
                return Err(not_a_store(name, "it is empty"));
            }
            Held::new(backend.clone(), None)
        }
    };
    let unclean = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&unclean);
    let probe = || -> Result<StoreHeader> {
        let overlay = Overlay::before(storage.clone()).map_err(Error::io(name))?;
        let mut builder = builder();
        builder.set_repair_callback(move |_| seen.store(true, Ordering::Relaxed));
        let database =
            Closing::new(builder.create_with_backend(overlay).map_err(|error| not_opened(name, error))?);
        read_header(name, &database.begin_read().map_err(self::storage("begin a read"))?)
    };
    let header = foreign(name, guarded("look at the file", probe))?;
    check_writable(name, &header)?;
    let mut flags = [0];
    storage.read(REDB_FLAGS_AT, &mut flags).map_err(Error::io(name))?;
    if unclean.load(Ordering::Relaxed) || flags[0] & REDB_RECOVERY_REQUIRED != 0 {
        storage.settle().map_err(|error| match error.kind() {
            // A file system that copies on write needs space to write the same bytes again.
            std::io::ErrorKind::StorageFull => Error::NoSpace {
                needed: storage.len().unwrap_or(0),
                available: medium.available().unwrap_or(0),
            },
            _ => Error::io(name)(error),
        })?;
    }
    let database = guarded("open the file", || {
        builder().create_with_backend(storage).map_err(|error| not_opened(name, error))
    })?;
    Ok((Handle::Writable(Closing::new(database)), header))
}

fn check_writable(path: &Path, header: &StoreHeader) -> Result<()> {
    if header.features.writable() {
        return Ok(());
    }
    Err(Error::TooNew {
        path: path.to_owned(),
        cause: DecodeError::TooNew {
            what: "a feature of this store (it may be opened for reading)",
            found: header.features.read_only_compatible,
            known: apcm_format::Features::READ_ONLY_COMPATIBLE_KNOWN,
        },
    })
}

/// Opens a store for reading: other readers may have it open too.
pub(super) fn open_read_only(path: &Path) -> Result<(Handle, StoreHeader)> {
    check_magic(path)?;
    let open = || -> Result<(Handle, StoreHeader)> {
        let database = builder().open_read_only(path).map_err(|error| not_opened(path, error))?;
        let handle = Handle::ReadOnly(Closing::new(database));
        let header = read_header(path, &handle.begin_read()?)?;
        Ok((handle, header))
    };
    foreign(path, guarded("open the file", open))
}

/// A file seen for its own sake: whatever is done to this database stays in memory.
pub(super) struct Look {
    pub(super) database: Closing<Database>,
    pub(super) header: StoreHeader,
    /// Whether the file was not closed cleanly; the database seen here is the recovered one.
    pub(super) needs_recovery: bool,
}

/// Opens a file to look at it, beside other readers. What the database says of it is not softened: damage is what is
/// being looked for.
pub(super) fn look(path: &Path) -> Result<Look> {
    look_at(path, false)
}

/// As [`look`], for a file whose own account of its pages is damaged: the database is made to believe that it was not
/// closed cleanly, so that it makes that account again from what is there.
pub(super) fn look_recovering(path: &Path) -> Result<Look> {
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
        let mut builder = builder();
        builder.set_repair_callback(move |_| seen.store(true, Ordering::Relaxed));
        let database =
            Closing::new(builder.create_with_backend(overlay).map_err(|error| not_opened(path, error))?);
        let header = read_header(path, &database.begin_read().map_err(storage("begin a read"))?)?;
        Ok(Look { database, header, needs_recovery: needs_recovery.load(Ordering::Relaxed) })
    })
}

/// What a new store begins with.
pub(super) struct Contents<'a> {
    pub(super) header: &'a StoreHeader,
    /// The codec's image.
    pub(super) codec: &'a [u8],
    /// The framed state.
    pub(super) state: &'a [u8],
    /// Who may read and write the file; its owner alone by default.
    pub(super) permissions: Option<Permissions>,
}

impl Contents<'_> {
    fn write(&self, database: &Database) -> Result<()> {
        let transaction = database.begin_write().map_err(storage("begin a write"))?;
        {
            let mut meta = transaction.open_table(META).map_err(storage("open a table"))?;
            meta.insert(HEADER, self.header.encode().as_slice()).map_err(storage("write the header"))?;
            meta.insert(super::tables::STATE, self.state).map_err(storage("write the state"))?;
            write_codec(&transaction, self.header.uuid, OWN_CODEC, self.codec)?;
            super::create_tables(&transaction)?;
        }
        transaction.commit().map_err(storage("commit the new store"))
    }
}

/// Creates a store and opens it.
pub(super) fn create(medium: &Medium, contents: &Contents<'_>) -> Result<(Handle, StoreHeader)> {
    match medium {
        Medium::File(path) => {
            create_file(path, contents)?;
            open_writable(medium)
        }
        Medium::Backend(backend) => {
            let name = medium.name();
            if medium.len()? > 0 {
                return Err(Error::Exists { path: name.to_owned() });
            }
            let create = || -> Result<Database> {
                let database = builder()
                    .create_with_backend(backend.clone())
                    .map_err(|error| not_opened(name, error))?;
                contents.write(&database)?;
                Ok(database)
            };
            let database = Closing::new(guarded("create the store", create)?);
            Ok((Handle::Writable(database), contents.header.clone()))
        }
    }
}

fn create_file(path: &Path, contents: &Contents<'_>) -> Result<()> {
    build(path, "create the store", contents.permissions.clone(), |database| contents.write(database))
}

/// Makes a database that is there whole or not at all.
pub(super) fn build(
    path: &Path,
    during: &'static str,
    permissions: Option<Permissions>,
    fill: impl FnOnce(&mut Database) -> Result<()>,
) -> Result<()> {
    whole_file::create(path, permissions, |file| {
        guarded(during, || {
            let file = file.try_clone().map_err(Error::io(path))?;
            let database = builder().create_file(file).map_err(|error| not_opened(path, error))?;
            fill(&mut Closing::new(database))
        })
    })
}

/// Who may read and write a file: whoever may, may its copy, and nobody else.
pub(super) fn permissions_of(path: &Path) -> Option<Permissions> {
    std::fs::metadata(path).ok().map(|metadata| metadata.permissions())
}

/// The codec's image, whole: it has the fingerprint that the header names. As [`read_image`].
pub(super) fn read_codec(transaction: &ReadTransaction, header: &StoreHeader, limit: u64) -> Result<Vec<u8>> {
    let image = read_image(transaction, header.uuid, OWN_CODEC, limit)?;
    if codec::fingerprint(&image) != header.fingerprint {
        return Err(Error::Corrupt {
            what: "the codec in the store".to_owned(),
            cause: DecodeError::Checksum { what: "the codec's fingerprint" },
        });
    }
    Ok(image)
}

/// A codec's image, put together from its chunks; empty where there is none of this number. Opening it takes at most
/// `limit` bytes, asked before they are taken.
pub(super) fn read_image(
    transaction: &ReadTransaction,
    store: StoreUuid,
    number: u32,
    limit: u64,
) -> Result<Vec<u8>> {
    let chunks = transaction.open_table(CODEC).map_err(storage("open a table"))?;
    let mut image = Vec::new();
    let keys = codec_chunk(number, 0)..=codec_chunk(number, u32::MAX);
    for entry in chunks.range(keys).map_err(storage("read the codec"))? {
        let (key, value) = entry.map_err(storage("read the codec"))?;
        let value = value.value();
        let crc_fits = value.split_last_chunk::<4>().filter(|(chunk, crc)| {
            chunk.len() <= limits::CODEC_CHUNK_LEN
                && codec_place(store, key.value()).crc(&[chunk]) == u32::from_le_bytes(**crc)
        });
        let (chunk, _) = crc_fits.ok_or_else(|| Error::Corrupt {
            what: format!("chunk {} of the codec", key.value()),
            cause: DecodeError::Checksum { what: "a codec chunk" },
        })?;
        let needed = codec_memory(image.len() + chunk.len());
        if needed > limit {
            return Err(Error::MemoryLimit { what: "the codec in the store", needed, limit });
        }
        let len = image.len() + chunk.len();
        if len > image.capacity() {
            // Twice as much each time, or a long image would be copied once a chunk.
            let more = len.max(2 * image.len());
            reserve(&mut image, more).map_err(Error::memory("the codec in the store"))?;
        }
        image.extend_from_slice(chunk);
    }
    Ok(image)
}

/// Memory that a codec takes while it is loaded, at most: its image, twice while that grows; its tensors, of two bytes a
/// value there and four here; and those once more where they are computed with.
pub(super) fn codec_memory(image: usize) -> u64 {
    8 * image as u64
}

/// Writes a codec's image, chunk by chunk, in the place of what there was under its number.
pub(super) fn write_codec(
    transaction: &WriteTransaction,
    store: StoreUuid,
    number: u32,
    image: &[u8],
) -> Result<()> {
    let mut chunks = transaction.open_table(CODEC).map_err(storage("open a table"))?;
    let keys = codec_chunk(number, 0)..=codec_chunk(number, u32::MAX);
    chunks.retain_in(keys, |_, _| false).map_err(storage("write the codec"))?;
    for (chunk_number, chunk) in (0..).zip(image.chunks(limits::CODEC_CHUNK_LEN)) {
        let key = codec_chunk(number, chunk_number);
        let crc = codec_place(store, key).crc(&[chunk]);
        let value = [chunk, &crc.to_le_bytes()].concat();
        chunks.insert(key, value.as_slice()).map_err(storage("write the codec"))?;
    }
    Ok(())
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn check_magic(path: &Path) -> Result<()> {
    let mut first = Vec::new();
    // Asked before opening: opening a pipe would wait for somebody to write to it.
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

fn not_opened(path: &Path, error: DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            Error::Locked { path: path.to_owned(), holder: super::holder::of(path) }
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
