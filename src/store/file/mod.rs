//! The file: how it is created, opened, locked and probed, and the tables in it. Knows no memories.

mod backing;
mod create;
mod guard;
mod handle;
mod images;
mod lock_holder;
mod locked_storage;
mod open;
mod overlay;
mod tables;

pub(crate) use backing::{Backing, FileStorage, SharedBackend};
pub(crate) use create::{Contents, build, create, permissions_of};
pub use guard::panic_becomes_error;
pub(crate) use guard::{callers, guarded, is_fatal, storage};
pub(crate) use handle::{Handle, Snapshot};
pub(crate) use images::{codec_memory, read_codec, read_image, write_codec};
pub(crate) use open::{Look, look, look_recovering, open_read_only, open_writable};
pub(crate) use tables::*;
