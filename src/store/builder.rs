//! Creating and opening stores.

use super::engine::Engine;
use super::file::{self, Backing, Contents, Handle, STATE, SharedBackend, Snapshot, guarded, meta_place};
use super::resident::{Trees, load};
use super::staged::Group;
use super::store::{OnClose, Store};
use super::write::{Flusher, check_policy};
use crate::clock::{self, Clock};
use crate::codec::{self, Codec, Device};
use crate::error::{Error, Result};
use crate::storage::StorageBackend;
use apcm_format::{
    DecodeError, Features, Policy, Similarity, StoreHeader, StoreState, StoreUuid, frame, limits,
};
use parking_lot::{Mutex, RwLock};
use rand::TryRng;
use std::fs::Permissions;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The default memory limit of an open: this, or this many times the file's allocated size.
const MEMORY_LIMIT: u64 = 1 << 30;
const MEMORY_PER_FILE_BYTE: u64 = 256;

/// Options for creating or opening a store.
///
/// ```
/// use apcm::{PlainCodec, Similarity, Store};
/// # fn main() -> apcm::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("memory.apcm");
/// let store = Store::builder()
///     .capacity(1_000)
///     .similarity(Similarity::CentredCosine)
///     .create(&path, PlainCodec::new(&[384], 384)?)?;
/// assert_eq!(store.description().capacity, 1_000);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing by itself"]
pub struct StoreBuilder {
    capacity: u32,
    similarity: Similarity,
    policy: Policy,
    pub(crate) byte_budget: Option<u64>,
    memory_limit: Option<u64>,
    pub(crate) permissions: Option<Permissions>,
    aborts: bool,
    pub(crate) device: Device,
    clock: Clock,
}

impl Store {
    /// Starts creating or opening a store with options.
    pub fn builder() -> StoreBuilder {
        StoreBuilder::new()
    }

    /// Opens a store for reading and writing; the codec comes from the file.
    ///
    /// Cost: reads every slot record once and derives the search vectors, on all cores.
    ///
    /// # Errors
    /// [`NotAStore`](Error::NotAStore) and [`TooNew`](Error::TooNew) leave the file untouched, byte for byte;
    /// [`Locked`](Error::Locked), [`Io`](Error::Io), [`UnknownCodec`](Error::UnknownCodec).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Opens a store for reading, beside any number of other readers. Nothing is counted.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`NeedsRecovery`](Error::NeedsRecovery) after a crash.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open_read_only(path)
    }
}

impl std::fmt::Debug for StoreBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreBuilder")
            .field("capacity", &self.capacity)
            .field("similarity", &self.similarity)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl StoreBuilder {
    pub(crate) fn new() -> Self {
        Self {
            capacity: 10_000,
            similarity: Similarity::Cosine,
            policy: Policy::default(),
            byte_budget: None,
            memory_limit: None,
            permissions: None,
            aborts: false,
            device: Device::default(),
            clock: clock::system(),
        }
    }

    /// How many slots a new store has; 10,000 by default. It stays so.
    pub fn capacity(mut self, slots: u32) -> Self {
        self.capacity = slots;
        self
    }

    /// Most bytes of everything that a new store keeps for its slots together; none by default. Under pressure
    /// residuals of the least used memories are dropped first, and memories last.
    pub fn byte_budget(mut self, bytes: u64) -> Self {
        self.byte_budget = Some(bytes);
        self
    }

    /// Most bytes of memory that opening a store may take for its codec, search vectors and occupancy.
    ///
    /// By default 1 GiB, or 256 times what the file takes on the disk where that is more: then a small file
    /// from a stranger, or one that is long and mostly holes, cannot ask for more than a gibibyte. Pages are
    /// read beside that, through a cache of 64 MiB. A store of short codes and long search vectors may need
    /// more than that once it is large; its error names both numbers.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Permissions of a new store's file; its owner alone by default.
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = Some(permissions);
        self
    }

    /// Opens stores in a program that is built with `panic = "abort"` too, which is refused otherwise.
    ///
    /// The database can panic on a malformed page. That becomes an error here, in a program whose panics
    /// unwind; in one whose panics abort, a damaged file ends the process.
    pub fn accept_aborts(mut self) -> Self {
        self.aborts = true;
        self
    }

    /// What nearness means in a new store.
    pub fn similarity(mut self, similarity: Similarity) -> Self {
        self.similarity = similarity;
        self
    }

    /// The eviction policy of a new store; by default the least frequently used memory leaves.
    /// [`Store::set_policy`] changes it later.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Where the codec from the file computes.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Where the time comes from, in seconds since 1970; the system's clock by default.
    pub fn clock(mut self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The same without a byte budget.
    pub(crate) fn without_budget(&self) -> Self {
        Self { byte_budget: None, ..self.clone() }
    }

    /// With the clock of another store.
    pub(crate) fn shared_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Creates a store with this codec inside, and opens it.
    ///
    /// The file is built under a temporary name, synced, and renamed: a crash leaves the whole store or none.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Argument`](Error::Argument) for a capacity of 0 or above the format's
    /// limit, or a half-life of 0, [`Io`](Error::Io).
    pub fn create(self, path: impl AsRef<Path>, codec: impl Codec) -> Result<Store> {
        self.create_in(Backing::File(path.as_ref().to_owned()), Box::new(codec))
    }

    /// Creates a store in storage of your own instead of a file: in memory, on a device, under encryption.
    ///
    /// The storage must be empty. It need not lock, but then nothing keeps two handles apart. A crash before
    /// this returns may leave it half made: begin again with empty storage.
    ///
    /// ```
    /// use apcm::{InMemoryBackend, PlainCodec, Record, Store};
    /// # fn main() -> apcm::Result<()> {
    /// let store = Store::builder().capacity(8).create_on(InMemoryBackend::new(), PlainCodec::new(&[2], 2)?)?;
    /// store.insert(&Record::vector(vec![1.0, 0.0])?)?;
    /// assert_eq!((store.len(), store.path()), (1, None));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_on(self, backend: impl StorageBackend, codec: impl Codec) -> Result<Store> {
        self.create_in(Backing::Backend(SharedBackend::new(backend)), Box::new(codec))
    }

    pub(crate) fn create_in(self, backing: Backing, codec: Box<dyn Codec>) -> Result<Store> {
        if self.capacity == 0 || self.capacity > limits::CAPACITY_MAX {
            return Err(Error::argument(
                "the capacity",
                format!("1 to {} slots", limits::CAPACITY_MAX),
                self.capacity,
            ));
        }
        check_policy(self.policy)?;
        self.check_panics(cfg!(panic = "abort"))?;
        if self.byte_budget == Some(0) {
            return Err(Error::argument("the byte budget", "at least 1", 0));
        }
        let mut uuid = [0; 16];
        rand::rngs::SysRng.try_fill_bytes(&mut uuid).map_err(|error| Error::Io {
            path: backing.name().to_owned(),
            source: std::io::Error::other(error.to_string()),
        })?;
        let image = codec.image()?.encode()?;
        let header = StoreHeader {
            uuid: StoreUuid(uuid),
            features: Features::default(),
            capacity: self.capacity,
            policy: self.policy,
            similarity: self.similarity,
            shape: codec.shape(),
            search_dims: codec.search_dims(self.similarity) as u32,
            fingerprint: codec::fingerprint(&image),
            created_at: (self.clock)(),
        };
        // What could not be opened is not created: a codec of the user's own may have impossible sizes.
        StoreHeader::decode(&header.encode())?;
        let state = StoreState { next_seq: 1, byte_budget: self.byte_budget, ..StoreState::default() };
        let state = frame::seal(&state, meta_place(header.uuid, STATE))?;
        let contents =
            Contents { header: &header, codec: &image, state: &state, permissions: self.permissions.clone() };
        let opened = file::create(&backing, &contents)?;
        drop(image);
        self.finish(backing, opened, Some(codec))
    }

    /// Opens a store for reading and writing; the codec comes from the file.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        self.open_in(Backing::File(path.as_ref().to_owned()), None)
    }

    /// Opens a store that [`create_on`](Self::create_on) made, after a crash too.
    ///
    /// # Errors
    /// As [`Store::open`]; but what is in the storage is not promised to stay as it was when it is no store.
    pub fn open_on(self, backend: impl StorageBackend) -> Result<Store> {
        self.open_in(Backing::Backend(SharedBackend::new(backend)), None)
    }

    /// Opens a store together with a codec of the user's own.
    ///
    /// # Errors
    /// As [`Store::open`], and [`CodecMismatch`](Error::CodecMismatch) when another codec wrote the store.
    pub fn open_with_codec(self, path: impl AsRef<Path>, codec: impl Codec) -> Result<Store> {
        self.open_in(Backing::File(path.as_ref().to_owned()), Some(Box::new(codec)))
    }

    /// Opens a store for reading only.
    ///
    /// # Errors
    /// As [`Store::open_read_only`].
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        self.check_panics(cfg!(panic = "abort"))?;
        let opened = file::open_read_only(path)?;
        self.finish(Backing::File(path.to_owned()), opened, None)
    }

    fn open_in(self, backing: Backing, codec: Option<Box<dyn Codec>>) -> Result<Store> {
        self.check_panics(cfg!(panic = "abort"))?;
        let opened = file::open_writable(&backing)?;
        self.finish(backing, opened, codec)
    }

    /// Whether a panic of the database can be caught in this program.
    fn check_panics(&self, abort: bool) -> Result<()> {
        if !abort || self.aborts {
            return Ok(());
        }
        let expected = "unwind, so that a panic of the database on a damaged page is an error (StoreBuilder::accept_aborts \
                        does without)";
        Err(Error::argument("what a panic of this program does", expected, "abort"))
    }

    fn finish(
        self,
        backing: Backing,
        (handle, header): (Handle, StoreHeader),
        codec: Option<Box<dyn Codec>>,
    ) -> Result<Store> {
        let file_bytes = backing.allocated()?;
        let by_default = MEMORY_LIMIT.max(file_bytes.saturating_mul(MEMORY_PER_FILE_BYTE));
        let limit = self.memory_limit.unwrap_or(by_default);
        let image = guarded("read the codec", || file::read_codec(&handle.begin_read()?, &header, limit))?;
        let codec = match codec {
            Some(codec) => {
                let given = codec::fingerprint(&codec.image()?.encode()?);
                if given != header.fingerprint {
                    return Err(Error::CodecMismatch { in_file: header.fingerprint, given });
                }
                codec
            }
            None => codec::load(&image, self.device)?,
        };
        let agrees = codec.shape() == header.shape
            && codec.search_dims(header.similarity) == header.search_dims as usize;
        if !agrees {
            return Err(Error::Corrupt {
                what: "the store's header".to_owned(),
                cause: DecodeError::Invalid {
                    what: "the length of a search vector beside this codec",
                    found: header.search_dims.into(),
                },
            });
        }
        let codec_memory = file::codec_memory(image.len());
        let left = |needed: u64| match needed.saturating_add(codec_memory) {
            needed if needed > limit => {
                Err(Error::MemoryLimit { what: "what a store keeps in memory", needed, limit })
            }
            _ => Ok(()),
        };
        let mut resident = guarded("load the store", || load(&handle, &header, codec.as_ref(), left))?;
        match guarded("begin a read", || Snapshot::of(&handle)) {
            Ok(snapshot) => resident.publish(snapshot),
            // A reader may have what can be read.
            Err(error) => handle.writable().map_or(Ok(()), |_| Err(error))?,
        }
        let writable = handle.writable().is_ok();
        let engine = Arc::new(Engine {
            backing,
            header,
            codec,
            codec_bytes: image.len() as u64,
            handle,
            resident: RwLock::new(resident),
            writer: Mutex::new(()),
            group: Group::default(),
            poisoned: AtomicBool::new(false),
            signal: Arc::default(),
            clock: self.clock,
            trees: Trees::new(self.device, limit),
        });
        let on_close = if writable { Some(on_close(&engine, Flusher::start(&engine)?)) } else { None };
        Ok(Store::new(engine, on_close))
    }
}

/// Ends the flusher, and flushes once more.
fn on_close(engine: &Arc<Engine>, flusher: Flusher) -> OnClose {
    let engine = Arc::clone(engine);
    Box::new(move || {
        flusher.join();
        engine.flush()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::hook::refuse;
    use crate::codec::PlainCodec;
    use crate::record::Record;

    #[test]
    fn a_program_whose_panics_abort_is_told() {
        let error = Store::builder().check_panics(true).unwrap_err();
        assert!(error.to_string().contains("accept_aborts"), "{error}");
        Store::builder().accept_aborts().check_panics(true).unwrap();
        Store::builder().check_panics(false).unwrap();
    }

    /// Every allocation whose size comes from the file, refused in turn: an error, and nothing is lost.
    #[test]
    fn memory_that_is_refused_is_an_error_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.apcm");
        let builder = || Store::builder().capacity(50).policy(Policy::Lru);
        let store = builder().create(&path, PlainCodec::new(&[3], 3).unwrap()).unwrap();
        for i in 0..40 {
            store.insert(&Record::vector(vec![1.0, i as f32, 2.0]).unwrap()).unwrap();
        }
        let pack = folder.path().join("memory.apack");
        store.export_pack(&pack).run().unwrap();
        store.close().unwrap();
        let mut refused = 0;
        for after in 0.. {
            let (result, came) = refuse(after, || {
                let store = Store::open(&path)?;
                let found = store.iter()?.count();
                let packed = crate::Pack::builder().loading(crate::Loading::InMemory).open(&pack)?;
                Ok::<_, Error>((found, packed.len()))
            });
            match result {
                Err(Error::OutOfMemory { .. }) if came => refused += 1,
                Ok(found) => {
                    assert!(!came && found == (40, 40), "{after}: {found:?}");
                    break;
                }
                other => panic!("{after}: {other:?}"),
            }
        }
        assert!(refused >= 14, "only {refused} requests were refused");
        assert!(Store::verify(&path).run().unwrap().ok);
    }
}
