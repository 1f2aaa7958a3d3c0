//! Files that appear under their names whole, or not at all.
//!
//! A new file has no name while it is written, where the system has such files (`O_TMPFILE`): a crash leaves
//! nothing behind. Elsewhere it has a temporary one beside its own, and the next new file in that folder clears
//! what crashes left there. It is synced, gets its name, and the folder is synced: then it is there after a
//! loss of power too.

mod names;
mod new_file;
pub(crate) mod steps;

pub use names::Taken;
pub(crate) use names::{folder_of, rename, sync_folder};
pub use new_file::{NewFile, create, usual_permissions, write, write_as};
