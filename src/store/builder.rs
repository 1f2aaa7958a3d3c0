//! Creating and opening stores.

use super::counts::Counts;
use super::file::{self, Contents, Handle};
use super::flusher::Flusher;
use super::group::Group;
use super::guard::{callers, guarded, storage};
use super::holder::Note;
use super::live::{Live, SlotSize, memory_per_slot, row_bytes};
use super::medium::{Medium, Shared};
use super::tables::{
    COUNTERS, KEYS, META, METADATA, RESIDUALS, SLOTS, STATE, counter_place, meta_place, metadata_place,
    slot_place,
};
use super::{Clock, Inner, Store};
use crate::codec::{self, Codec, Device};
use crate::error::{Error, Result};
use crate::policy::Occupant;
use apcm_format::{
    CounterChunk, DecodeError, Features, PolicyKind, Similarity, SlotKind, SlotRecord, StoreHeader,
    StoreState, StoreUuid, frame, limits,
};
use parking_lot::{Mutex, RwLock};
use rand::TryRng;
use redb::{ReadableTable, StorageBackend};
use std::fs::Permissions;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

/// Slots whose search vectors are derived at a time while opening, and most bytes of their codes.
const OPEN_BATCH: usize = 4_096;
const OPEN_BATCH_BYTES: usize = 16 << 20;

/// Memory that opening may take where nothing was said: this, or so many times the file's length.
const MEMORY_LIMIT: u64 = 1 << 30;
const MEMORY_PER_FILE_BYTE: u64 = 64;

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
pub struct StoreBuilder {
    capacity: u32,
    similarity: Similarity,
    byte_budget: Option<u64>,
    memory_limit: Option<u64>,
    permissions: Option<Permissions>,
    device: Device,
    clock: Clock,
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
    pub(super) fn new() -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            capacity: 10_000,
            similarity: Similarity::Cosine,
            byte_budget: None,
            memory_limit: None,
            permissions: None,
            device: Device::default(),
            clock: Arc::new(clock),
        }
    }

    /// How many slots a new store has; 10,000 by default. It stays so.
    pub fn capacity(mut self, slots: u32) -> Self {
        self.capacity = slots;
        self
    }

    /// Most bytes of everything that a new store keeps for its slots together; none by default. Under pressure residuals
    /// of the least used memories are dropped first, and memories last.
    pub fn byte_budget(mut self, bytes: u64) -> Self {
        self.byte_budget = Some(bytes);
        self
    }

    /// Most bytes of memory that opening a store may take for its codec, search vectors and occupancy.
    ///
    /// By default 1 GiB, or 64 times the length of the file where that is more: then a small file from a stranger cannot
    /// ask for more than a gibibyte. Pages are read beside that, through a cache of 64 MiB.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Who may read and write a new store's file; its owner alone by default.
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = Some(permissions);
        self
    }

    /// What nearness means in a new store.
    pub fn similarity(mut self, similarity: Similarity) -> Self {
        self.similarity = similarity;
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

    /// With the clock of another store.
    pub(super) fn shared_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Creates a store with this codec inside, and opens it.
    ///
    /// The file is built under a temporary name, synced, and renamed: a crash leaves the whole store or none.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Argument`](Error::Argument) for a capacity of 0 or above the format's limit,
    /// [`Io`](Error::Io).
    pub fn create(self, path: impl AsRef<Path>, codec: impl Codec) -> Result<Store> {
        self.create_boxed(path.as_ref(), Box::new(codec))
    }

    /// Creates a store in storage of your own instead of a file: in memory, on a device, under encryption.
    ///
    /// The storage must be empty. It need not lock, but then nothing keeps two handles apart. A crash before this returns
    /// may leave it half made: begin again with empty storage.
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
        self.create_in(Medium::Backend(Shared::new(backend)), Box::new(codec))
    }

    /// Creates a store with a codec that is behind a pointer already.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_boxed(self, path: &Path, codec: Box<dyn Codec>) -> Result<Store> {
        self.create_in(Medium::File(path.to_owned()), codec)
    }

    fn create_in(self, medium: Medium, codec: Box<dyn Codec>) -> Result<Store> {
        if self.capacity == 0 || self.capacity > limits::CAPACITY_MAX {
            return Err(Error::argument(
                "the capacity",
                format!("1 to {} slots", limits::CAPACITY_MAX),
                self.capacity,
            ));
        }
        if self.byte_budget == Some(0) {
            return Err(Error::argument("the byte budget", "at least 1", 0));
        }
        let mut uuid = [0; 16];
        rand::rngs::SysRng.try_fill_bytes(&mut uuid).map_err(|error| Error::Io {
            path: medium.name().to_owned(),
            source: std::io::Error::other(error.to_string()),
        })?;
        let image = codec.image()?.encode()?;
        let header = StoreHeader {
            uuid: StoreUuid(uuid),
            features: Features::default(),
            capacity: self.capacity,
            policy: PolicyKind::Lfu,
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
        let opened = file::create(&medium, &contents)?;
        drop(image);
        self.finish(medium, opened, Some(codec))
    }

    /// Opens a store for reading and writing; the codec comes from the file.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        self.open_in(Medium::File(path.as_ref().to_owned()), None)
    }

    /// Opens a store that [`create_on`](Self::create_on) made, after a crash too.
    ///
    /// # Errors
    /// As [`Store::open`]; but what is in the storage is not promised to stay as it was when it is no store.
    pub fn open_on(self, backend: impl StorageBackend) -> Result<Store> {
        self.open_in(Medium::Backend(Shared::new(backend)), None)
    }

    /// Opens a store together with a codec of the user's own.
    ///
    /// # Errors
    /// As [`Store::open`], and [`CodecMismatch`](Error::CodecMismatch) when another codec wrote the store.
    pub fn open_with_codec(self, path: impl AsRef<Path>, codec: impl Codec) -> Result<Store> {
        self.open_in(Medium::File(path.as_ref().to_owned()), Some(Box::new(codec)))
    }

    /// Opens a store for reading only.
    ///
    /// # Errors
    /// As [`Store::open_read_only`].
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let opened = file::open_read_only(path)?;
        self.finish(Medium::File(path.to_owned()), opened, None)
    }

    fn open_in(self, medium: Medium, codec: Option<Box<dyn Codec>>) -> Result<Store> {
        let opened = file::open_writable(&medium)?;
        self.finish(medium, opened, codec)
    }

    fn finish(
        self,
        medium: Medium,
        (handle, header): (Handle, StoreHeader),
        codec: Option<Box<dyn Codec>>,
    ) -> Result<Store> {
        let file_bytes = medium.len()?;
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
        let live = guarded("load the store", || load(&handle, &header, codec.as_ref(), left))?;
        let writable = handle.writable().is_ok();
        let note = medium.path().filter(|_| writable).and_then(Note::leave);
        let inner = Arc::new(Inner {
            medium,
            header,
            codec,
            codec_bytes: image.len() as u64,
            handle,
            live: RwLock::new(live),
            writer: Mutex::new(()),
            group: Group::default(),
            poisoned: AtomicBool::new(false),
            signal: Arc::default(),
            clock: self.clock,
            _note: note,
        });
        let flusher = if writable { Some(Flusher::start(&inner)?) } else { None };
        Ok(Store { inner, flusher })
    }
}

/// Builds what is kept in memory from what is on disk.
///
/// `may_take` is asked before memory is taken in proportion to numbers in the file.
fn load(
    handle: &Handle,
    header: &StoreHeader,
    codec: &dyn Codec,
    may_take: impl Fn(u64) -> Result<()>,
) -> Result<Live> {
    let transaction = handle.begin_read()?;
    let meta = transaction.open_table(META).map_err(storage("open a table"))?;
    let state: StoreState = match meta.get(STATE).map_err(storage("read the state"))? {
        Some(value) => frame::open(value.value(), meta_place(header.uuid, STATE)),
        None => Err(DecodeError::Truncated { what: "the store's state", needed: 1, found: 0 }),
    }
    .map_err(|cause| Error::Corrupt { what: "the store's state".to_owned(), cause })?;
    if state.next_seq > limits::SEQ_MAX {
        return Err(Error::Corrupt {
            what: "the store's state".to_owned(),
            cause: DecodeError::Limit {
                what: "a sequence number",
                found: state.next_seq,
                max: limits::SEQ_MAX,
            },
        });
    }
    let dims = header.search_dims as usize;
    let mut live = Live::new(header.capacity, dims, state);
    let slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
    if let Some((highest, _)) = slots.last().map_err(storage("read the slots"))? {
        let highest = highest.value();
        check_slot(highest, header)?;
        may_take(u64::from(highest + 1) * memory_per_slot(dims))?;
        live.reserve(highest + 1);
    }
    let mut batch: Vec<(u32, Occupant, SlotSize, Vec<u8>)> = Vec::new();
    let mut batch_bytes = 0;
    for entry in slots.iter().map_err(storage("read the slots"))? {
        let (slot, value) = entry.map_err(storage("read the slots"))?;
        let slot = slot.value();
        check_slot(slot, header)?;
        match SlotRecord::decode(value.value(), slot_place(header.uuid, slot)) {
            Ok(record) if record.kind == SlotKind::Record => {
                let occupant = Occupant {
                    seq: record.seq,
                    pinned: record.flags.pinned,
                    damaged: false,
                    expires_at: record.expires_at,
                };
                let size = SlotSize {
                    code: record.code.len() as u32,
                    record: value.value().len() as u32,
                    error: record.error.get(),
                    ..SlotSize::default()
                };
                batch_bytes += record.code.len();
                batch.push((slot, occupant, size, record.code.to_vec()));
            }
            // One damaged slot must not take the others with it: it stays where it is, and is no hit.
            // So is one of a kind that this version does not know what to do with.
            _ => fill_damaged(&mut live, slot, value.value().len()),
        }
        if batch.len() == OPEN_BATCH || batch_bytes > OPEN_BATCH_BYTES {
            batch_bytes = 0;
            fill(&mut live, codec, header.similarity, std::mem::take(&mut batch))?;
        }
    }
    fill(&mut live, codec, header.similarity, batch)?;
    // Sequence numbers must never repeat, whatever the state says.
    let highest = live.bank().iter().map(|(_, occupant)| occupant.seq).max().unwrap_or(0);
    live.set_state(StoreState { next_seq: state.next_seq.max(highest + 1), ..state });
    let metadata = transaction.open_table(METADATA).map_err(storage("open a table"))?;
    for entry in metadata.iter().map_err(storage("read metadata"))? {
        let (slot, value) = entry.map_err(storage("read metadata"))?;
        let slot = slot.value();
        live.resize(slot, |size| size.metadata += row_bytes(value.value().len()));
        // A search that ranked it could not say what it had found, and would fail for the sake of one.
        if metadata_place(header.uuid, slot).body("metadata", value.value()).is_err() {
            live.damage(slot);
        }
    }
    let keys = transaction.open_table(KEYS).map_err(storage("open a table"))?;
    for entry in keys.iter().map_err(storage("read the keys"))? {
        let (key, slot) = entry.map_err(storage("read the keys"))?;
        live.resize(slot.value(), |size| size.metadata += row_bytes(key.value().len()));
    }
    let residuals = transaction.open_table(RESIDUALS).map_err(storage("open a table"))?;
    for entry in residuals.iter().map_err(storage("read the residuals"))? {
        let (slot, value) = entry.map_err(storage("read the residuals"))?;
        live.resize(slot.value(), |size| size.residual = row_bytes(value.value().len()));
    }
    let counters = transaction.open_table(COUNTERS).map_err(storage("open a table"))?;
    for entry in counters.iter().map_err(storage("read the counts"))? {
        let (number, value) = entry.map_err(storage("read the counts"))?;
        let number = number.value();
        // Counts that cannot be read are counts that were lost: they start again at 0.
        if let Ok(chunk) = CounterChunk::decode(value.value(), counter_place(header.uuid, number)) {
            let (counts, bank): (&mut Counts, _) = live.counts_mut();
            counts.load(number, &chunk, bank);
        }
    }
    Ok(live)
}

fn check_slot(slot: u32, header: &StoreHeader) -> Result<()> {
    if slot < header.capacity {
        return Ok(());
    }
    Err(Error::Corrupt {
        what: "the table of slots".to_owned(),
        cause: DecodeError::Limit {
            what: "a slot's number",
            found: slot.into(),
            max: u64::from(header.capacity) - 1,
        },
    })
}

fn fill(
    live: &mut Live,
    codec: &dyn Codec,
    similarity: Similarity,
    batch: Vec<(u32, Occupant, SlotSize, Vec<u8>)>,
) -> Result<()> {
    let codes: Vec<&[u8]> = batch.iter().map(|(.., code)| code.as_slice()).collect();
    let dims = live.scan().dims();
    match callers(|| codec.search_vectors(&codes, similarity)) {
        Ok(vectors) => {
            for ((slot, occupant, size, _), vector) in batch.iter().zip(vectors.chunks_exact(dims)) {
                live.fill(*slot, *occupant, Some(vector), *size);
            }
        }
        // Some code is not one of this codec's. One by one, to find which.
        Err(_) => {
            for (slot, occupant, size, code) in &batch {
                match callers(|| codec.search_vectors(&[code], similarity)) {
                    Ok(vector) => live.fill(*slot, *occupant, Some(&vector), *size),
                    Err(_) => fill_damaged(live, *slot, size.record as usize),
                }
            }
        }
    }
    Ok(())
}

fn fill_damaged(live: &mut Live, slot: u32, record: usize) {
    let occupant = Occupant { seq: 0, pinned: false, damaged: true, expires_at: None };
    live.fill(slot, occupant, None, SlotSize { record: record as u32, ..SlotSize::default() });
}
