//! A file under construction.

use super::names::{self, Taken, folder_of};
use crate::error::{Error, Result};
use std::fs::{File, Permissions};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// A file under construction; dropping it discards it.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    file: File,
    /// How it gets its name.
    name: Name,
    taken: Taken,
}

/// How a new file gets its name.
#[derive(Debug)]
enum Name {
    /// It has none, and is linked.
    None,
    /// It has a temporary one, and is renamed.
    Temporary(TempPath),
    /// It is a device or a pipe that exists: it is written in place.
    There,
}

impl NewFile {
    /// Begins a file that will be called `path`.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Io`](Error::Io).
    pub fn create(path: &Path, taken: Taken) -> Result<Self> {
        // Asked again, by the system and for good, when it gets its name.
        if taken == Taken::Refuse && path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        // Only a link gives a name to a file without one, and a link replaces nothing.
        if taken == Taken::Refuse
            && let Some(file) = names::unnamed_file(folder_of(path))
        {
            return Ok(Self { path: path.to_owned(), file, name: Name::None, taken });
        }
        // A link keeps leading to its target, and a device is not replaced by a file.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if taken == Taken::Replace && path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let file = File::options().write(true).open(&path).map_err(Error::io(&path))?;
            return Ok(Self { path, file, name: Name::There, taken });
        }
        let (file, temporary) = names::temporary_file(folder_of(&path))?;
        Ok(Self { path, file, name: Name::Temporary(temporary), taken })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Syncs it and gives it its name. It is its owner's alone until then, and after that whose `permissions`
    /// say.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Io`](Error::Io).
    pub fn finish(self, permissions: Option<Permissions>) -> Result<()> {
        let Self { path, file, name, taken } = self;
        if matches!(name, Name::There) {
            return Ok(());
        }
        if let Some(permissions) = permissions {
            file.set_permissions(permissions).map_err(Error::io(&path))?;
        }
        names::sync_file(&file).map_err(Error::io(&path))?;
        match name {
            Name::There => {}
            Name::None => names::link(&file, &path)?,
            Name::Temporary(temporary) => {
                names::rename(&temporary, &path, taken)?;
                // It has another name now, which must not be deleted with this value.
                let _ = temporary.keep();
            }
        }
        names::sync_folder(folder_of(&path))
    }
}

/// Permissions of a file under the process's umask, on systems that report it.
#[cfg(target_os = "linux")]
pub fn usual_permissions() -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    Some(Permissions::from_mode(0o666 & !u32::from_str_radix(umask.trim(), 8).ok()?))
}

#[cfg(not(target_os = "linux"))]
pub fn usual_permissions() -> Option<Permissions> {
    None
}

/// Makes a file that replaces no other: under its name there is all of it or nothing.
pub fn create(
    path: &Path,
    permissions: Option<Permissions>,
    fill: impl FnOnce(&File) -> Result<()>,
) -> Result<()> {
    let new = NewFile::create(path, Taken::Refuse)?;
    fill(new.file())?;
    new.finish(permissions)
}

/// Writes bytes to a file of its own.
///
/// # Errors
/// [`Exists`](Error::Exists), [`Io`](Error::Io); an older file of that name is unchanged.
pub fn write(path: &Path, bytes: &[u8], taken: Taken) -> Result<()> {
    write_as(path, bytes, taken, None)
}

/// The same, with permissions.
pub fn write_as(path: &Path, bytes: &[u8], taken: Taken, permissions: Option<Permissions>) -> Result<()> {
    let new = NewFile::create(path, taken)?;
    std::io::Write::write_all(&mut new.file(), bytes).map_err(Error::io(path))?;
    new.finish(permissions)
}
