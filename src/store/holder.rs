//! Who has a store open for writing: a note beside the file, for whoever finds it locked.
//!
//! The lock itself is the operating system's, on the file; the note only says whose it is. It is written after the lock
//! was taken and removed when the store is closed; one that a crash left is overwritten by the next writer.

use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest note that is read.
const NOTE_MAX: u64 = 512;

/// The note of this process, removed with it.
#[derive(Debug)]
pub(super) struct Note(PathBuf);

impl Note {
    /// Says that this process has the store. Where nothing can be written the note is missing, and nothing else.
    pub(super) fn leave(store: &Path) -> Option<Self> {
        let path = path_of(store);
        std::fs::write(&path, format!("{} {}\n", std::process::id(), host())).ok()?;
        Some(Self(path))
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // A note that stays says something of the past; the next writer corrects it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Who has a store that was found locked, as far as a note says so: process id and host.
pub(super) fn of(store: &Path) -> Option<(u32, String)> {
    let mut text = String::new();
    let note = std::fs::File::open(path_of(store)).ok()?;
    note.take(NOTE_MAX).read_to_string(&mut text).ok()?;
    let (pid, host) = text.trim_end().split_once(' ')?;
    let plain = !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic());
    Some((pid.parse().ok()?, plain.then(|| host.to_owned())?))
}

fn path_of(store: &Path) -> PathBuf {
    let mut name = store.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    store.with_file_name(name)
}

fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = || ["HOSTNAME", "COMPUTERNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let host = kernel.or_else(named).unwrap_or_default();
    match host.trim() {
        "" => "an-unknown-host".to_owned(),
        host => host.to_owned(),
    }
}
