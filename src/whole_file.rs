//! Files that are there whole or not at all.

use crate::error::{Error, Result};
use std::fs::{File, Permissions};
use std::path::Path;

/// Makes a file under a temporary name beside its own, syncs it, and renames it, never over another file. Under its
/// name there is the whole file or none; a crash may leave one beside it that begins with `.apcm-new-`.
pub(crate) fn create(
    path: &Path,
    permissions: Option<Permissions>,
    fill: impl FnOnce(&File) -> Result<()>,
) -> Result<()> {
    let folder = folder_of(path);
    if path.exists() {
        return Err(Error::Exists { path: path.to_owned() });
    }
    let temporary =
        tempfile::Builder::new().prefix(".apcm-new-").tempfile_in(folder).map_err(Error::io(folder))?;
    fill(temporary.as_file())?;
    // Temporary files are their owner's alone; what was asked for is set at the end, so that nobody sees half a file.
    if let Some(permissions) = permissions {
        temporary.as_file().set_permissions(permissions).map_err(Error::io(path))?;
    }
    temporary.as_file().sync_all().map_err(Error::io(path))?;
    temporary.persist_noclobber(path).map_err(|error| {
        if error.error.kind() == std::io::ErrorKind::AlreadyExists {
            Error::Exists { path: path.to_owned() }
        } else {
            Error::io(path)(error.error)
        }
    })?;
    sync_folder(folder)
}

/// The folder a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))
}

/// Windows makes a rename durable by itself and cannot open a folder as a file.
#[cfg(not(unix))]
pub(crate) fn sync_folder(_: &Path) -> Result<()> {
    Ok(())
}
