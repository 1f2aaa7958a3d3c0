//! The bytes of a pack: mapped, or read into memory.

use crate::claim::reserve;
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

/// How a pack comes into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Loading {
    /// Mapped where the file is marked read-only, as [`Store::export_pack`](crate::Store::export_pack) leaves
    /// it, and, on Unix, it is this user's or root's, so that no other user can change that; read into memory
    /// otherwise.
    #[default]
    Auto,
    /// Mapped, even if it is writable: a change of the file meanwhile changes what is read, or is found
    /// damaged. Cutting the file short ends the process.
    Mapped,
    /// Read into memory, whole.
    InMemory,
}

apcm_format::named!(Loading, "a way to load a pack", Auto => "auto", Mapped => "mapped", InMemory => "in-memory");

/// Bytes that begin at a multiple of eight, so that numbers can be read where they lie.
#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mapping),
    InMemory { words: Vec<u64>, len: usize },
}

impl Bytes {
    /// The bytes of a file; at most `limit` of them are read into memory.
    pub(super) fn open(path: &Path, loading: Loading, limit: u64) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        let mapped = match loading {
            Loading::Auto => metadata.permissions().readonly() && is_trusted(&metadata),
            loading => loading == Loading::Mapped,
        };
        if mapped {
            return Mapping::of(&file, path).map(Self::Mapped);
        }
        match metadata.len() {
            needed if needed > limit => Err(Error::MemoryLimit { what: "the pack", needed, limit }),
            len => Self::read(file, path, len),
        }
    }

    fn read(mut file: File, path: &Path, needed: u64) -> Result<Self> {
        let mut words: Vec<u64> = Vec::new();
        let len = usize::try_from(needed).unwrap_or(usize::MAX);
        reserve(&mut words, len.div_ceil(8)).map_err(Error::memory("the pack"))?;
        words.resize(len.div_ceil(8), 0);
        file.read_exact(&mut bytemuck::cast_slice_mut(&mut words)[..len]).map_err(Error::io(path))?;
        Ok(Self::InMemory { words, len })
    }

    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self::InMemory { words, len: bytes.len() }
    }

    pub(super) fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping.bytes(),
            Self::InMemory { words, len } => &bytemuck::cast_slice(words)[..*len],
        }
    }

    pub(super) fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped(_))
    }
}

/// Whether the file belongs to this user or root: any other owner could make it writable again.
#[cfg(unix)]
fn is_trusted(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
fn is_trusted(_: &Metadata) -> bool {
    true
}
