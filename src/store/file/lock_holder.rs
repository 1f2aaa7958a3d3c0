//! Which process holds the lock of a store, from `/proc/locks` on Linux.
//!
//! Rejected: a note beside the file. Its name may be a user's own file, a link or a pipe, and it can outlive
//! its writer.

use std::path::Path;

/// The process that holds a lock on this file, where the system tells.
#[cfg(target_os = "linux")]
pub(crate) fn lock_holder(store: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(store).ok()?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    holder_in(
        &std::fs::read_to_string("/proc/locks").ok()?,
        &format!("{major:02x}:{minor:02x}:{}", metadata.ino()),
    )
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn lock_holder(_: &Path) -> Option<u32> {
    None
}

/// `1: FLOCK  ADVISORY  WRITE 1849 fe:00:10117129 0 EOF`: number, kind, -, access, process, file, range. Locks
/// of open files (`OFDLCK`) name no process, and lines of waiting processes (`->`) hold none.
#[cfg(target_os = "linux")]
fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, process, locked) = (fields.next()?, fields.nth(2)?, fields.next()?);
        if kind != "FLOCK" || locked != file {
            return None;
        }
        process.parse().ok().filter(|&process| process > 0)
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_among_others() {
        let locks = "1: FLOCK  ADVISORY  WRITE 1849 fe:00:10117129 0 EOF\n\
                     2: OFDLCK ADVISORY  WRITE -1 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 20 fe:00:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 21 fe:00:77 0 EOF\n\
                     nonsense\n";
        assert_eq!(holder_in(locks, "fe:00:77"), Some(20));
        assert_eq!(holder_in(locks, "fe:00:7"), None);
        assert_eq!(holder_in("", "fe:00:77"), None);
    }
}
