//! An open pack.

use super::blocks::Blocks;
use super::bytes::{Bytes, Loading};
use crate::clock::{self, Clock};
use crate::codec::{self, Codec, Device};
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::record::{Record, Records};
use crate::search::Search;
use crate::stored::Stored;
use apcm_format::pack::{DATA_START, HEADER_LEN};
use apcm_format::{DecodeError, Fingerprint, MemoryId, PackHeader, PackLayout, RecordShape, Similarity};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Options for opening a pack.
#[derive(Clone)]
#[must_use = "a builder does nothing by itself"]
pub struct PackBuilder {
    device: Device,
    loading: Loading,
    memory_limit: u64,
    clock: Clock,
}

impl std::fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackBuilder")
            .field("device", &self.device)
            .field("loading", &self.loading)
            .finish_non_exhaustive()
    }
}

impl PackBuilder {
    pub(super) fn new() -> Self {
        Self {
            device: Device::default(),
            loading: Loading::default(),
            memory_limit: u64::MAX,
            clock: clock::system(),
        }
    }

    /// Where the codec computes.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// How the file comes into memory.
    pub fn loading(mut self, loading: Loading) -> Self {
        self.loading = loading;
        self
    }

    /// Most bytes of a file that is read into memory; as many as it has, by default.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Where the time comes from, in seconds since 1970; the system's clock by default. Expired memories are
    /// not found.
    pub fn clock(mut self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Opens a pack.
    ///
    /// # Errors
    /// As [`Pack::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Pack> {
        let (path, device) = (path.as_ref(), self.device);
        let bytes = self.bytes_of(path)?;
        self.finish(path, bytes, |image| codec::load(image, device))
    }

    /// Opens a pack together with a codec of the user's own.
    ///
    /// # Errors
    /// As [`Pack::open`], and [`CodecMismatch`](Error::CodecMismatch).
    pub fn open_with_codec(self, path: impl AsRef<Path>, codec: impl Codec) -> Result<Pack> {
        let path = path.as_ref();
        let bytes = self.bytes_of(path)?;
        self.finish(path, bytes, |image| {
            let (in_file, given) = (codec::fingerprint(image), codec::fingerprint(&codec.image()?.encode()?));
            if given == in_file { Ok(Box::new(codec)) } else { Err(Error::CodecMismatch { in_file, given }) }
        })
    }

    /// Opens a pack that is in memory already, as part of a program or come over a network; it is copied.
    ///
    /// # Errors
    /// As [`Pack::open`].
    pub fn from_bytes(self, bytes: &[u8]) -> Result<Pack> {
        let device = self.device;
        self.finish(Path::new("bytes in memory"), Bytes::copy_of(bytes), |image| codec::load(image, device))
    }

    pub(super) fn bytes_of(&self, path: &Path) -> Result<Bytes> {
        // Asked before opening: opening a pipe would block until a writer opens it.
        let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
        if !metadata.is_file() {
            return Err(Error::NotAPack { path: path.to_owned(), cause: "not a regular file".to_owned() });
        }
        // Looked at before the rest is read into memory: it may be anything, and long.
        check_len(path, &read_header(path)?, metadata.len())?;
        Bytes::open(path, self.loading, self.memory_limit)
    }

    pub(super) fn finish(
        self,
        path: &Path,
        bytes: Bytes,
        load: impl FnOnce(&[u8]) -> Result<Box<dyn Codec>>,
    ) -> Result<Pack> {
        if cfg!(target_endian = "big") {
            let cause = "packs are read in place, on little-endian machines".to_owned();
            return Err(Error::NotAPack { path: path.to_owned(), cause });
        }
        let all = bytes.all();
        let header = decode_header(path, all.get(..HEADER_LEN).unwrap_or(all))?;
        let layout = check_len(path, &header, all.len() as u64)?;
        let blocks = Blocks::new(bytes, header, layout)?;
        if blocks.raw(HEADER_LEN as u64..DATA_START).iter().any(|&byte| byte != 0) {
            return Err(corrupt_header(DecodeError::Invalid { what: "a byte behind the header", found: 1 }));
        }
        let section = blocks.layout().codec.clone();
        let image = blocks.get(&section, 0..section.end - section.start)?;
        if codec::fingerprint(image) != blocks.header().fingerprint {
            let cause = DecodeError::Checksum { what: "the codec's fingerprint" };
            return Err(Error::Corrupt { what: "the codec in the pack".to_owned(), cause });
        }
        let codec = load(image)?;
        let header = blocks.header();
        if codec.shape() != header.shape
            || codec.search_dims(header.similarity) != header.search_dims as usize
        {
            let found = header.search_dims.into();
            let what = "the length of a search vector beside this codec";
            return Err(corrupt_header(DecodeError::Invalid { what, found }));
        }
        Ok(Pack { path: path.to_owned(), blocks, codec, clock: self.clock })
    }
}

/// Where everything is, in bytes that are as long as the header says.
fn check_len(path: &Path, header: &PackHeader, len: u64) -> Result<PackLayout> {
    let layout = header.layout().map_err(corrupt_header)?;
    if layout.len() == len {
        return Ok(layout);
    }
    let cause = format!("{len} bytes long where its header says {}", layout.len());
    Err(Error::NotAPack { path: path.to_owned(), cause })
}

fn read_header(path: &Path) -> Result<PackHeader> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(HEADER_LEN as u64).read_to_end(&mut bytes).map_err(Error::io(path))?;
    decode_header(path, &bytes)
}

fn decode_header(path: &Path, bytes: &[u8]) -> Result<PackHeader> {
    PackHeader::decode(bytes).map_err(|cause| match cause {
        DecodeError::Magic { .. } => {
            Error::NotAPack { path: path.to_owned(), cause: "its first bytes are others".to_owned() }
        }
        DecodeError::TooNew { .. } => Error::TooNew { path: path.to_owned(), cause },
        _ if bytes.len() < HEADER_LEN => {
            Error::NotAPack { path: path.to_owned(), cause: format!("only {} bytes long", bytes.len()) }
        }
        cause => corrupt_header(cause),
    })
}

fn corrupt_header(cause: DecodeError) -> Error {
    Error::Corrupt { what: "the pack's header".to_owned(), cause }
}

/// An immutable copy of a store, open for reading. Reads are never counted.
///
/// ```
/// # use apcm::{Pack, PlainCodec, Record, Store};
/// # fn main() -> apcm::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (store, pack) = (folder.path().join("m.apcm"), folder.path().join("m.apack"));
/// # let store = Store::builder().create(store, PlainCodec::new(&[2], 2)?)?;
/// store.insert(&Record::vector(vec![1.0, 0.0])?)?;
/// store.export_pack(&pack).run()?;
/// let pack = Pack::open(&pack)?;
/// let hits = pack.search(&Record::vector(vec![0.9, 0.1])?).k(3).run()?;
/// assert_eq!(hits.len(), 1);
/// # Ok(()) }
/// ```
pub struct Pack {
    pub(super) path: PathBuf,
    pub(super) blocks: Blocks,
    pub(super) codec: Box<dyn Codec>,
    pub(super) clock: Clock,
}

impl std::fmt::Debug for Pack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pack")
            .field("path", &self.path)
            .field("header", self.header())
            .finish_non_exhaustive()
    }
}

impl Pack {
    /// Options for opening.
    pub fn builder() -> PackBuilder {
        PackBuilder::new()
    }

    /// Opens a pack: mapped if it is marked read-only, read into memory otherwise (see [`Loading`]).
    ///
    /// Cost, mapped: its header, its codec and the checksums of its blocks, four bytes each.
    ///
    /// # Errors
    /// [`NotAPack`](Error::NotAPack) for other files and for packs that were cut short,
    /// [`TooNew`](Error::TooNew), [`Corrupt`](Error::Corrupt), [`Io`](Error::Io),
    /// [`UnknownCodec`](Error::UnknownCodec), [`MemoryLimit`](Error::MemoryLimit).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Whether a file begins as packs do; it may be damaged all the same.
    pub fn is_pack_file(path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        // Asked before opening: opening a pipe would block until a writer opens it.
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
            && !matches!(read_header(path), Err(Error::NotAPack { .. } | Error::Io { .. }))
    }

    pub(super) fn header(&self) -> &PackHeader {
        self.blocks.header()
    }

    /// The pack's file, or a note that it is in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is mapped, or was read into memory.
    pub fn is_mapped(&self) -> bool {
        self.blocks.is_mapped()
    }

    /// Memories in it, those that have expired since included.
    pub fn len(&self) -> usize {
        self.header().memories as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of every record.
    pub fn shape(&self) -> RecordShape {
        self.header().shape
    }

    /// What nearness means.
    pub fn similarity(&self) -> Similarity {
        self.header().similarity
    }

    /// Slots of the store that it was made from.
    pub fn capacity(&self) -> u32 {
        self.header().capacity
    }

    /// When it was made, in seconds since 1970.
    pub fn created_at(&self) -> u64 {
        self.header().created_at
    }

    /// The highest sequence number that the store had given.
    pub(crate) fn last_seq(&self) -> u64 {
        self.header().last_seq
    }

    /// The codec in it, as bytes.
    pub(crate) fn codec_image(&self) -> Result<&[u8]> {
        let section = &self.blocks.layout().codec;
        self.blocks.get(section, 0..section.end - section.start)
    }

    /// The store that its values are keyed with.
    pub(crate) fn store_uuid(&self) -> apcm_format::StoreUuid {
        self.header().store
    }

    /// The codec in it.
    pub fn codec(&self) -> &dyn Codec {
        self.codec.as_ref()
    }

    /// Names the codec in it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.header().fingerprint
    }

    /// Reads the nearest memory; `None` from an empty pack.
    ///
    /// # Errors
    /// [`RecordShape`](Error::RecordShape), [`Corrupt`](Error::Corrupt) when a block that was read is damaged.
    pub fn read(&self, query: &Record) -> Result<Option<Memory>> {
        let Some(hit) = self.search(query).k(1).with_records().run()?.pop() else { return Ok(None) };
        let Some(record) = hit.record else { return Ok(None) };
        let (similarity, error) = (Some(hit.similarity), hit.error);
        Ok(Some(Memory { id: hit.id, key: hit.key, metadata: hit.metadata, record, error, similarity }))
    }

    /// Starts a search for the nearest memories: see [`Search`].
    pub fn search<'a>(&'a self, query: &Record) -> Search<'a> {
        Search::new(self, Records::from(query))
    }

    /// Starts a search for each of several queries, answered by [`Search::run_all`].
    pub fn search_many<'a>(&'a self, queries: &Records) -> Search<'a> {
        Search::new(self, queries.clone())
    }

    /// Reads the memory with this key.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt).
    pub fn get(&self, key: &[u8]) -> Result<Option<Memory>> {
        self.with_key(key)?.map(|stored| self.decode(stored)).transpose()
    }

    /// Reads the memory with this id: ids are those of the store.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound), [`Corrupt`](Error::Corrupt).
    pub fn get_id(&self, id: MemoryId) -> Result<Memory> {
        self.with_id(id)?.ok_or(Error::NotFound { id }).and_then(|stored| self.decode(stored))
    }

    pub(super) fn decode(&self, stored: Stored) -> Result<Memory> {
        let records = crate::stored::decode_all(self.codec(), self.header().store, &[&stored])?;
        Ok(stored.into_memory(records.get(0), None))
    }

    /// The time in seconds, as slots store it.
    pub(super) fn now(&self) -> u32 {
        u32::try_from((self.clock)()).unwrap_or(u32::MAX)
    }
}
