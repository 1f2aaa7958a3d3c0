//! What the system does with names: the only place that gives a file its name, and syncs files and folders for
//! it.
//!
//! Tests see every step (`steps.rs`), to compute what a crash between any two of them may leave.

use super::steps::{self, Step, seen};
use crate::error::{Error, Result};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;
use tempfile::TempPath;

/// What is to happen to a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It stays, and the new one is refused, whenever it appeared.
    Refuse,
    /// It is replaced.
    Replace,
}

/// What temporary names begin with.
const PREFIX: &str = ".apcm-new-";
/// A temporary file that is unlocked and was not modified for this long is a leftover of a crash.
const LEFT_FOR: Duration = Duration::from_secs(3_600);

/// A file without a name in this folder, where the system has such files and can name them later.
#[cfg(target_os = "linux")]
pub(super) fn unnamed_file(folder: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    // Without it there is no way to name the file again that needs no privilege.
    if steps::only_named() || !Path::new("/proc/self/fd").is_dir() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR).ok().map(File::from)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn unnamed_file(_: &Path) -> Option<File> {
    None
}

/// A file under a temporary name in this folder. Those that crashes left there go.
pub(super) fn temporary_file(folder: &Path) -> Result<(File, TempPath)> {
    clear_leftovers(folder);
    let named = tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder).map_err(Error::io(folder))?;
    let (file, path) = named.into_parts();
    // Says that it is in use; where locks are not to be had its age does.
    let _ = file.try_lock();
    Ok((file, path))
}

fn clear_leftovers(folder: &Path) {
    let Ok(entries) = folder.read_dir() else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let old = || {
            let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            metadata.modified().ok()?.elapsed().ok()
        };
        if ours && old().is_some_and(|age| age > LEFT_FOR) {
            let unlocked = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
            if unlocked {
                // A leftover that cannot be removed does no harm.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

pub(super) fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()?;
    seen(Step::SyncFile);
    Ok(())
}

/// Gives a file without a name its name, which nothing may have.
#[cfg(target_os = "linux")]
pub(super) fn link(file: &File, path: &Path) -> Result<()> {
    use rustix::fs::{AtFlags, CWD};
    use std::os::fd::AsRawFd;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, from, CWD, path, AtFlags::SYMLINK_FOLLOW)
        .map_err(|error| named(path, error.into()))?;
    seen(Step::Link(path.to_owned()));
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn link(_: &File, path: &Path) -> Result<()> {
    Err(Error::io(path)(io::ErrorKind::Unsupported.into()))
}

/// Gives a finished and synced file another name. A sync of its folder makes that durable.
///
/// # Errors
/// [`Exists`](Error::Exists) where that name is taken and was not to be; [`Io`](Error::Io).
pub(crate) fn rename(from: &Path, to: &Path, taken: Taken) -> Result<()> {
    match taken {
        Taken::Replace => std::fs::rename(from, to).map_err(Error::io(to))?,
        Taken::Refuse => {
            let path = TempPath::try_from_path(from).map_err(Error::io(from))?;
            // On failure the file stays under the name it has: it may be gone on with.
            if let Err(error) = path.persist_noclobber(to) {
                let _ = error.path.keep();
                return Err(named(to, error.error));
            }
        }
    }
    seen(Step::Rename(from.to_owned(), to.to_owned()));
    Ok(())
}

fn named(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
        _ => Error::io(path)(error),
    }
}

/// The folder a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    seen(Step::SyncFolder);
    Ok(())
}

/// Windows makes a rename durable by itself and cannot open a folder as a file.
#[cfg(not(unix))]
pub(crate) fn sync_folder(_: &Path) -> Result<()> {
    Ok(())
}
