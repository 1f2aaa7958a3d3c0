//! A file system that loses power: what a folder may hold after a crash between any two calls of a program.
//!
//! It guarantees what POSIX guarantees, and no more: after a crash a file has the contents of its last sync,
//! and a folder has the names of its last sync. Each later change of a name may survive or be lost,
//! independently of all others. Any subset of the later writes may survive, torn at sectors, with the file's
//! growth or without it. A rename is atomic, but the old name may survive too. Changes of different names
//! commute, so their order adds no further folder.

use super::calls::{BEGIN_SYNC, Call};
use super::disk::{Event, Fate, Fill, Moment, Random};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Names and bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A change of names.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Put(String, usize),
    Move(String, String, usize),
    Remove(String),
}

/// What a call did to the folder, or to a file in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    Name(Change),
    SyncFolder,
    File(usize, Event),
    /// A sync begins, of this file or of the folder: it holds for what came before, once it has returned.
    Begin(Option<usize>),
}

/// A folder and what was done in it.
#[derive(Debug, Clone)]
pub struct History {
    /// Names before the first act; files are numbered in their order.
    names: BTreeMap<String, usize>,
    /// Bytes of every file before the first act: none, if it was made by one.
    files: Vec<Vec<u8>>,
    pub acts: Vec<Act>,
}

/// What an open file is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Open {
    Folder,
    File(usize),
}

#[derive(Debug)]
struct Description {
    open: Open,
    cursor: u64,
    append: bool,
}

/// Reads calls as acts.
struct Reader<'a> {
    folder: &'a Path,
    history: History,
    names: BTreeMap<String, usize>,
    lengths: Vec<u64>,
    descriptions: Vec<Description>,
    open: HashMap<i64, usize>,
}

impl History {
    /// What these calls did in a folder that held these files.
    pub fn of(folder: &Path, before: &Files, calls: &[Call]) -> Self {
        let names: BTreeMap<String, usize> = before.keys().cloned().zip(0..).collect();
        let files: Vec<Vec<u8>> = before.values().cloned().collect();
        let mut reader = Reader {
            folder,
            names: names.clone(),
            lengths: files.iter().map(|bytes| bytes.len() as u64).collect(),
            history: Self { names, files, acts: Vec::new() },
            descriptions: Vec::new(),
            open: HashMap::new(),
        };
        calls.iter().for_each(|call| reader.take(call));
        reader.history
    }

    /// Whether a crash after this many acts is worth more than the state in which everything arrived: a sync
    /// comes next, or a name, or the end.
    fn is_eve(&self, count: usize) -> bool {
        match self.acts.get(count) {
            Some(Act::File(_, event)) => *event == Event::Sync,
            _ => true,
        }
    }

    /// Shows every folder that a crash after this many acts may leave.
    pub fn crashes(&self, count: usize, mut visit: impl FnMut(Files, &str)) {
        let (mut durable, mut pending) = (self.names.clone(), Vec::new());
        let mut events: Vec<Vec<Event>> = vec![Vec::new(); self.files.len()];
        // What had been done when a sync began that has not returned.
        let mut begun: HashMap<Option<usize>, usize> = HashMap::new();
        for act in &self.acts[..count] {
            match act {
                Act::Name(change) => pending.push(change),
                Act::SyncFolder => {
                    let before = begun.remove(&None).unwrap_or(pending.len());
                    pending.drain(..before).for_each(|change| apply(&mut durable, change, true));
                }
                Act::File(file, Event::Sync) => {
                    let before = begun.remove(&Some(*file)).unwrap_or(events[*file].len());
                    events[*file].insert(before, Event::Sync);
                }
                Act::File(file, event) => events[*file].push(event.clone()),
                Act::Begin(file) => {
                    let done = file.map_or(pending.len(), |file| events[file].len());
                    begun.entry(*file).or_insert(done);
                }
            }
        }
        let moments: Vec<Moment<'_>> = self
            .files
            .iter()
            .zip(&events)
            .map(|(bytes, events)| Moment::after(bytes, events, events.len()))
            .collect();
        let mut show = |names: &BTreeMap<String, usize>, contents: Contents, what: &str| {
            let files = names.iter().map(|(name, &file)| (name.clone(), contents.of(&moments[file], file)));
            visit(files.collect(), what);
        };
        let mut all = durable.clone();
        pending.iter().for_each(|change| apply(&mut all, change, true));
        show(&all, Contents::Kept, "everything arrived");
        if !self.is_eve(count) {
            return;
        }
        assert!(pending.len() < 8, "{pending:?}");
        let deep = std::env::var_os("APCM_DEEP").is_some();
        for kept in 0..1_u32 << pending.len() {
            for clean in [true, false] {
                let mut names = durable.clone();
                let kept = pending.iter().enumerate().filter(|(at, _)| kept >> at & 1 == 1);
                kept.for_each(|(_, change)| apply(&mut names, change, clean));
                for contents in [Contents::Kept, Contents::Lost, Contents::Length] {
                    show(&names, contents, "some names, one kind of contents");
                }
                for seed in 0..if deep { 60 } else { 6 } {
                    show(&names, Contents::Some(seed ^ (count as u64) << 8), "some names, some contents");
                }
            }
        }
    }
}

/// What becomes of the contents that were not synced.
#[derive(Debug, Clone, Copy)]
enum Contents {
    Kept,
    Lost,
    /// The file grew, and nobody knows what into.
    Length,
    Some(u64),
}

impl Contents {
    fn of(self, moment: &Moment<'_>, file: usize) -> Vec<u8> {
        let length = |at: usize| matches!(moment.pending[at], Event::SetLen(_));
        match self {
            Self::Kept => moment.image(|_| Fate::Kept, Fill::Zeros),
            Self::Lost => moment.image(|_| Fate::Lost, Fill::Zeros),
            Self::Length => {
                moment.image(|at| if length(at) { Fate::Kept } else { Fate::Lost }, Fill::Garbage)
            }
            Self::Some(seed) => moment.image(
                |at| match (Random(seed ^ ((file as u64) << 32) ^ at as u64).next() % 3, length(at)) {
                    (0, _) => Fate::Lost,
                    (1, false) => Fate::Sectors(seed ^ at as u64),
                    _ => Fate::Kept,
                },
                if seed % 2 == 0 { Fill::Zeros } else { Fill::Garbage },
            ),
        }
    }
}

/// Changes names; a name that was moved away is gone, if `clean`.
fn apply(names: &mut BTreeMap<String, usize>, change: &Change, clean: bool) {
    match change {
        Change::Put(name, file) => drop(names.insert(name.clone(), *file)),
        Change::Move(from, to, file) => {
            if clean && names.get(from) == Some(file) {
                names.remove(from);
            }
            names.insert(to.clone(), *file);
        }
        Change::Remove(name) => drop(names.remove(name)),
    }
}

impl Reader<'_> {
    /// The name of a path in the folder; empty for the folder itself, nothing for what lies elsewhere.
    fn name(&self, path: &str) -> Option<String> {
        let path = match Path::new(path) {
            path if path.is_absolute() => path.strip_prefix(self.folder).ok()?,
            path => path.strip_prefix(".").unwrap_or(path),
        };
        assert!(path.components().count() < 2, "a folder within the folder: {path:?}");
        Some(path.to_str()?.to_owned())
    }

    fn new_file(&mut self) -> usize {
        self.history.files.push(Vec::new());
        self.lengths.push(0);
        self.lengths.len() - 1
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change, true);
        self.history.acts.push(Act::Name(change));
    }

    fn event(&mut self, file: usize, event: Event) {
        if let Event::SetLen(len) = event {
            self.lengths[file] = len;
        }
        self.history.acts.push(Act::File(file, event));
    }

    fn write(&mut self, file: usize, offset: u64, data: Vec<u8>) {
        let end = offset + data.len() as u64;
        if end > self.lengths[file] {
            self.event(file, Event::SetLen(end));
        }
        self.event(file, Event::Write { offset, data });
    }

    /// The file of a descriptor, if it lies in the folder.
    fn file(&self, descriptor: i64) -> Option<(usize, usize)> {
        let at = *self.open.get(&descriptor)?;
        match self.descriptions[at].open {
            Open::File(file) => Some((file, at)),
            Open::Folder => None,
        }
    }

    fn take(&mut self, call: &Call) {
        match call.name.as_str() {
            "open" => self.opened(call, 0),
            "openat" => self.opened(call, 1),
            "close" => drop(self.open.remove(&call.number(0))),
            "dup" | "dup2" | "dup3" => self.duplicated(call),
            "fcntl" if call.arguments[1].starts_with("F_DUPFD") => self.duplicated(call),
            "fcntl" | "sync_file_range" => {}
            "lseek" => {
                if let Some((_, at)) = self.file(call.number(0)) {
                    self.descriptions[at].cursor = call.result as u64;
                }
            }
            "write" => {
                if let Some((file, at)) = self.file(call.number(0)) {
                    let data = call.bytes(1)[..call.result as usize].to_vec();
                    let Description { cursor, append, .. } = self.descriptions[at];
                    let offset = if append { self.lengths[file] } else { cursor };
                    self.descriptions[at].cursor = offset + data.len() as u64;
                    self.write(file, offset, data);
                }
            }
            "pwrite64" => {
                if let Some((file, _)) = self.file(call.number(0)) {
                    let data = call.bytes(1)[..call.result as usize].to_vec();
                    self.write(file, call.number(3) as u64, data);
                }
            }
            "ftruncate" => {
                if let Some((file, _)) = self.file(call.number(0)) {
                    self.event(file, Event::SetLen(call.number(1) as u64));
                }
            }
            "fsync" | "fdatasync" => {
                match self.open.get(&call.number(0)).map(|&at| self.descriptions[at].open) {
                    Some(Open::Folder) => self.history.acts.push(Act::SyncFolder),
                    Some(Open::File(file)) => self.event(file, Event::Sync),
                    None => {}
                }
            }
            BEGIN_SYNC => match self.open.get(&call.number(0)).map(|&at| self.descriptions[at].open) {
                Some(Open::Folder) => self.history.acts.push(Act::Begin(None)),
                Some(Open::File(file)) => self.history.acts.push(Act::Begin(Some(file))),
                None => {}
            },
            "linkat" => {
                let (from, to) = (call.text(1), self.name(&call.text(3)));
                let descriptor = from.strip_prefix("/proc/self/fd/").and_then(|number| number.parse().ok());
                let file = match descriptor {
                    Some(descriptor) => self.file(descriptor).map(|(file, _)| file),
                    None => self.name(&from).and_then(|from| self.names.get(&from).copied()),
                };
                if let (Some(file), Some(to)) = (file, to) {
                    self.change(Change::Put(to, file));
                }
            }
            "rename" => self.renamed(&call.text(0), &call.text(1)),
            "renameat" | "renameat2" => self.renamed(&call.text(1), &call.text(3)),
            "unlink" => self.removed(&call.text(0)),
            "unlinkat" => self.removed(&call.text(1)),
            _ => {
                let elsewhere = call.arguments.iter().enumerate().all(|(at, argument)| {
                    let path = argument.starts_with('"').then(|| call.text(at));
                    let descriptor = argument.parse().ok();
                    path.is_none_or(|path| self.name(&path).is_none())
                        && descriptor.is_none_or(|descriptor| self.file(descriptor).is_none())
                });
                assert!(elsewhere, "a call that this file system does not know: {call:?}");
            }
        }
    }

    fn opened(&mut self, call: &Call, path: usize) {
        let Some(name) = self.name(&call.text(path)) else { return };
        let flags = path + 1;
        let open = if call.says(flags, "O_TMPFILE") {
            Open::File(self.new_file())
        } else if name.is_empty() {
            Open::Folder
        } else if let Some(&file) = self.names.get(&name) {
            if call.says(flags, "O_TRUNC") {
                self.event(file, Event::SetLen(0));
            }
            Open::File(file)
        } else {
            let file = self.new_file();
            self.change(Change::Put(name, file));
            Open::File(file)
        };
        self.open.insert(call.result, self.descriptions.len());
        self.descriptions.push(Description { open, cursor: 0, append: call.says(flags, "O_APPEND") });
    }

    fn duplicated(&mut self, call: &Call) {
        if let Some(&at) = self.open.get(&call.number(0)) {
            self.open.insert(call.result, at);
        }
    }

    fn renamed(&mut self, from: &str, to: &str) {
        match (self.name(from), self.name(to)) {
            (Some(from), Some(to)) => {
                let file = self.names[&from];
                self.change(Change::Move(from, to, file));
            }
            (None, None) => {}
            (from, to) => panic!("a rename across folders: {from:?}, {to:?}"),
        }
    }

    fn removed(&mut self, path: &str) {
        if let Some(name) = self.name(path) {
            self.change(Change::Remove(name));
        }
    }
}
