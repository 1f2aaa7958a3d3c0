//! The steps by which files get their names, for tests to see; a program does nothing here.

use std::path::PathBuf;

/// One step of giving a file its name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    SyncFile,
    Link(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncFolder,
}

#[cfg(test)]
pub(crate) use observer::{observed, only_named, seen};

#[cfg(not(test))]
pub(crate) fn seen(_: Step) {}

#[cfg(not(test))]
pub(crate) fn only_named() -> bool {
    false
}

#[cfg(test)]
mod observer {
    use super::Step;
    use std::cell::{Cell, RefCell};

    thread_local! {
        static SEEN: RefCell<Option<Vec<Step>>> = const { RefCell::new(None) };
        static ONLY_NAMED: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs something, and gives the steps it took on this thread; as on a system without unnamed files, if
    /// `named`.
    pub(crate) fn observed<T>(named: bool, run: impl FnOnce() -> T) -> (T, Vec<Step>) {
        SEEN.set(Some(Vec::new()));
        ONLY_NAMED.set(named);
        let value = run();
        ONLY_NAMED.set(false);
        (value, SEEN.take().unwrap_or_default())
    }

    pub(crate) fn seen(step: Step) {
        SEEN.with_borrow_mut(|seen| seen.iter_mut().for_each(|seen| seen.push(step.clone())));
    }

    pub(crate) fn only_named() -> bool {
        ONLY_NAMED.get()
    }
}
