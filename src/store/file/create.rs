//! New files: a database that is there whole or not at all.

use super::backing::Backing;
use super::guard::{Closing, guarded, storage};
use super::handle::Handle;
use super::images::write_codec;
use super::open::{database_options, not_opened, open_writable};
use super::tables::{COUNTERS, HEADER, KEYS, META, METADATA, OWN_CODEC, RESIDUALS, SLOTS, STATE};
use crate::error::{Error, Result};
use crate::whole_file;
use apcm_format::StoreHeader;
use redb::Database;
use std::fs::Permissions;
use std::path::Path;

/// The contents of a new store.
pub(crate) struct Contents<'a> {
    pub(crate) header: &'a StoreHeader,
    /// The codec's image.
    pub(crate) codec: &'a [u8],
    /// The framed state.
    pub(crate) state: &'a [u8],
    /// Permissions of the file; its owner alone by default.
    pub(crate) permissions: Option<Permissions>,
}

impl Contents<'_> {
    fn write(&self, database: &Database) -> Result<()> {
        let transaction = database.begin_write().map_err(storage("begin a write"))?;
        {
            let mut meta = transaction.open_table(META).map_err(storage("open a table"))?;
            meta.insert(HEADER, self.header.encode().as_slice()).map_err(storage("write the header"))?;
            meta.insert(STATE, self.state).map_err(storage("write the state"))?;
            write_codec(&transaction, self.header.uuid, OWN_CODEC, self.codec)?;
            create_tables(&transaction)?;
        }
        transaction.commit().map_err(storage("commit the new store"))
    }
}

/// Creates a store and opens it.
pub(crate) fn create(backing: &Backing, contents: &Contents<'_>) -> Result<(Handle, StoreHeader)> {
    match backing {
        Backing::File(path) => {
            create_file(path, contents)?;
            open_writable(backing)
        }
        Backing::Backend(backend) => {
            let name = backing.name();
            if backing.len()? > 0 {
                return Err(Error::Exists { path: name.to_owned() });
            }
            let create = || -> Result<Database> {
                let database = database_options()
                    .create_with_backend(backend.clone())
                    .map_err(|error| not_opened(name, error))?;
                contents.write(&database)?;
                Ok(database)
            };
            let database = Closing::new(guarded("create the store", create)?);
            Ok((Handle::Writable(database), contents.header.clone()))
        }
    }
}

fn create_file(path: &Path, contents: &Contents<'_>) -> Result<()> {
    build(path, "create the store", contents.permissions.clone(), |database| contents.write(database))
}

/// Makes a database that is there whole or not at all.
pub(crate) fn build(
    path: &Path,
    during: &'static str,
    permissions: Option<Permissions>,
    fill: impl FnOnce(&mut Database) -> Result<()>,
) -> Result<()> {
    whole_file::create(path, permissions, |file| {
        guarded(during, || {
            let file = file.try_clone().map_err(Error::io(path))?;
            let database = database_options().create_file(file).map_err(|error| not_opened(path, error))?;
            fill(&mut Closing::new(database))
        })
    })
}

/// The file's permissions, for its copy.
pub(crate) fn permissions_of(path: &Path) -> Option<Permissions> {
    std::fs::metadata(path).ok().map(|metadata| metadata.permissions())
}

/// Makes every table exist, so that readers need not ask.
fn create_tables(transaction: &redb::WriteTransaction) -> Result<()> {
    transaction.open_table(SLOTS).map_err(storage("create a table"))?;
    transaction.open_table(COUNTERS).map_err(storage("create a table"))?;
    transaction.open_table(KEYS).map_err(storage("create a table"))?;
    transaction.open_table(METADATA).map_err(storage("create a table"))?;
    transaction.open_table(RESIDUALS).map_err(storage("create a table"))?;
    Ok(())
}
