//! The one place that maps files into memory, and the one place with `unsafe`.
//!
//! # Safety argument
//! A mapping is undefined behaviour if the mapped bytes change while a reference to them lives, and a `SIGBUS`
//! if the file shrinks or a page of it cannot be read. No program can rule that out for a file; what is done
//! against it:
//! - only read-only mappings are made, of files opened for reading;
//! - the bytes leave this module as a plain `&[u8]`, and are never viewed as a type with invalid bit patterns
//!   (`bool`, `enum`, `str`): datasets are decoded number by number, packs are viewed as `f32` and `i8` too,
//!   where every pattern is a number; text is copied out before it is looked at. So what a changed byte can
//!   give in practice is a wrong number, and no length or index read from a mapping is used without a check
//!   against what is there;
//! - every length is checked against the mapping's own, taken once when it was made.
//!
//! The remaining, accepted risk is a file that is changed or cut short while it is read, or a disk that fails:
//! the process may then be stopped by `SIGBUS`. So packs are mapped by default only where nobody may write to
//! them (see [`Loading`](crate::Loading)), and read into memory otherwise; datasets are files of the user's
//! own. Store files are never mapped.
#![expect(unsafe_code, reason = "mapping is unsafe by nature; the argument is above")]

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// A file mapped for reading.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl Mapping {
    /// Maps a whole file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Asked before opening: opening a pipe would block until a writer opens it.
        let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
        if !metadata.is_file() {
            return Err(Error::Dataset { path: path.to_owned(), cause: "not a regular file".to_owned() });
        }
        let file = File::open(path).map_err(Error::io(path))?;
        Self::of(&file, path)
    }

    /// Maps a whole file that is open.
    pub(crate) fn of(file: &File, path: &Path) -> Result<Self> {
        if file.metadata().map_err(Error::io(path))?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: see the module's argument; the mapping is read-only and outlives every slice taken from it.
        let map = unsafe { Mmap::map(file) }.map_err(Error::io(path))?;
        Ok(Self { map: Some(map) })
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
