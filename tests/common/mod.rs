//! What several test files need: temporary stores, small records, a codec with codes of any length.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(missing_docs, unreachable_pub, reason = "test helpers")]

pub mod calls;
pub mod disk;
pub mod folder;
pub mod linear;
pub mod model;
pub mod scripts;
pub mod tamper;

use apcm::{
    Codec, CodecInfo, Encoded, PlainCodec, Record, RecordShape, Records, Similarity, Store, StoreBuilder,
    StoredCode,
};
use apcm_format::CodecImage;
use std::path::PathBuf;

/// A folder that is gone with the test, and the path of a store in it.
pub struct Home {
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl Home {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.apcm");
        Self { folder, path }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}

/// A new store of `capacity` slots for records of `dims` values, all of them kept.
pub fn plain_store(home: &Home, capacity: u32, dims: usize) -> Store {
    plain_builder(capacity).create(&home.path, PlainCodec::new(&[dims], dims).unwrap()).unwrap()
}

pub fn plain_builder(capacity: u32) -> StoreBuilder {
    Store::builder().capacity(capacity)
}

/// The unit vector along an axis, a little longer for each turn around.
pub fn axis(index: usize, dims: usize) -> Record {
    let mut values = vec![0.0; dims];
    values[index % dims] = 1.0 + (index / dims) as f32;
    Record::vector(values).unwrap()
}

pub fn vector(values: &[f32]) -> Record {
    Record::vector(values.to_vec()).unwrap()
}

/// Evenly spread pseudo-random numbers in `[-1, 1)`; `seed` shifts them.
pub fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Standard normal numbers, from the same stream.
pub fn gaussian(count: usize, seed: u64) -> Vec<f32> {
    noise(2 * count, seed)
        .chunks_exact(2)
        .map(|pair| {
            let (u, v) = (f64::from(pair[0]) * 0.5 + 0.5, f64::from(pair[1]) * 0.5 + 0.5);
            ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
        })
        .collect()
}

pub fn records(dims: &[usize], values: Vec<f32>) -> Records {
    Records::from_values(RecordShape::new(dims).unwrap(), values).unwrap()
}

/// The project's own images, `[28, 28]` in `[0, 1]`.
pub fn images(range: std::ops::Range<u64>) -> Records {
    // Tests run in their package's folder; a path baked in at compile time would outlive a moved or deleted
    // clone.
    let path = PathBuf::from("examples/data/fashion-mnist/t10k-images-idx3-ubyte.gz");
    let path = if path.exists() { path } else { PathBuf::from("..").join(path) };
    apcm::ingest::Dataset::open(path).unwrap().load_range(range).unwrap()
}

/// A codec whose codes have lengths that look random: value bytes, then padding that depends on the record.
#[derive(Debug, Clone)]
pub struct RaggedCodec(pub PlainCodec);

impl RaggedCodec {
    pub fn new(dims: usize) -> Self {
        Self(PlainCodec::new(&[dims], dims).unwrap())
    }

    fn inner(code: &[u8]) -> &[u8] {
        // The first byte says how much padding follows the values.
        let padding = usize::from(code.first().copied().unwrap_or(0));
        code.get(1..code.len().saturating_sub(padding)).unwrap_or_default()
    }
}

impl Codec for RaggedCodec {
    fn shape(&self) -> RecordShape {
        self.0.shape()
    }

    fn code_len_max(&self) -> usize {
        self.0.code_len_max() + 256
    }

    fn encode(&self, records: &Records) -> apcm::Result<Vec<Encoded>> {
        let mut all = self.0.encode(records)?;
        for encoded in &mut all {
            let padding = blake_like(&encoded.code);
            encoded.code.insert(0, padding);
            encoded.code.extend(std::iter::repeat_n(0xaa, usize::from(padding)));
        }
        Ok(all)
    }

    fn decode(&self, codes: &[StoredCode<'_>]) -> apcm::Result<Records> {
        let inner: Vec<StoredCode<'_>> =
            codes.iter().map(|code| StoredCode { bytes: Self::inner(code.bytes), ..*code }).collect();
        self.0.decode(&inner)
    }

    fn search_dims(&self, similarity: Similarity) -> usize {
        self.0.search_dims(similarity)
    }

    fn search_vectors(&self, codes: &[&[u8]], similarity: Similarity) -> apcm::Result<Vec<f32>> {
        let inner: Vec<&[u8]> = codes.iter().map(|code| Self::inner(code)).collect();
        self.0.search_vectors(&inner, similarity)
    }

    fn query_vectors(&self, records: &Records, similarity: Similarity) -> apcm::Result<Vec<f32>> {
        self.0.query_vectors(records, similarity)
    }

    fn image(&self) -> apcm::Result<CodecImage> {
        let mut image = self.0.image()?;
        image.kind = "ragged".to_owned();
        Ok(image)
    }

    fn info(&self) -> CodecInfo {
        CodecInfo { preset: "ragged".to_owned(), ..self.0.info() }
    }
}

/// A byte that depends on all of a code.
fn blake_like(code: &[u8]) -> u8 {
    code.iter().fold(17_u8, |hash, &byte| hash.wrapping_mul(31).wrapping_add(byte))
}
