//! Power loss while the program makes, moves and mends files (F22 of the fault matrix in docs/reliability.md).
//!
//! Each command runs once, for real, under `strace`. From its calls every folder is computed in which a machine
//! may find itself when power returns, and each must hold, under every name, what was there before or what the
//! command makes: whole, and after the command has ended the latter.
#![cfg(target_os = "linux")]

#[path = "../../tests/common/mod.rs"]
mod common;
mod shell;

use apcm::ingest::npy;
use apcm::{Pack, Store, StoreBuilder};
use common::calls;
use common::disk::{Disk, Event};
use common::folder::{Act, Files, History};
use common::noise;
use rustc_hash::FxHasher;
use shell::Shell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::{Duration, SystemTime};

const PROGRAM: &str = env!("CARGO_BIN_EXE_apcm");

/// One folder in so many is written out, and the command runs again in it.
const AGAIN: usize = 10;

/// A command, and whether it gives a file a name: then a sync of the folder that is left out must be seen.
struct Operation {
    line: &'static [&'static str],
    names: bool,
}

const fn operation(line: &'static [&'static str], names: bool) -> Operation {
    Operation { line, names }
}

const OPERATIONS: [Operation; 16] = [
    operation(&["create", "new.apcm", "--codec", "b.codec", "--capacity", "9"], true),
    operation(&["backup", "m.apcm", "--out", "new.apcm"], true),
    operation(&["pack", "m.apcm", "--out", "new.apack"], true),
    operation(&["unpack", "m.apack", "--out", "new.apcm"], true),
    operation(&["unpack", "m.apack", "--into", "few.apcm"], false),
    operation(&["recode", "m.apcm", "--out", "new.apcm", "--codec", "b.codec"], true),
    operation(&["recode", "m.apcm", "--codec", "b.codec"], true),
    operation(&["salvage", "damaged.apcm", "--out", "new.apcm"], true),
    operation(&["repair", "damaged.apcm", "--apply"], false),
    operation(&["compact", "m.apcm"], false),
    operation(&["train", "data.npy", "--bytes", "6", "--steps", "3", "--out", "new.codec"], true),
    operation(&["train", "data.npy", "--bytes", "6", "--steps", "3", "--out", "a.codec", "--force"], true),
    operation(&["put", "m.apcm", "again", "one.npy"], false),
    operation(&["policy", "m.apcm", "lru"], false),
    operation(&["stream", "tree", "m.apcm", "w.tree"], false),
    operation(&["stream", "append", "s.apcm", "walk", "few.npy"], false),
];

/// What every operation begins with.
fn prepared() -> Shell {
    let shell = Shell::new();
    npy::write(&shell.home.file("data.npy"), &[90, 12], &noise(1_080, 5)).unwrap();
    npy::write(&shell.home.file("first.npy"), &[30, 12], &noise(360, 5)).unwrap();
    npy::write(&shell.home.file("one.npy"), &[12], &noise(12, 6)).unwrap();
    npy::write(&shell.home.file("few.npy"), &[6, 12], &noise(72, 7)).unwrap();
    for (codec, bytes) in [("a.codec", "12"), ("b.codec", "8")] {
        shell.json(&["train", "data.npy", "--bytes", bytes, "--steps", "3", "--out", codec]);
    }
    shell.json(&["create", "m.apcm", "--codec", "a.codec", "--capacity", "40"]);
    shell.json(&["ingest", "m.apcm", "first.npy", "--keys", "row"]);
    // Room that `compact` takes back.
    for key in 5..25 {
        shell.json(&["remove", "m.apcm", &key.to_string()]);
    }
    shell.json(&["pack", "m.apcm", "--out", "m.apack"]);
    let walks = ["--sequence", "4", "--state", "12", "--steps", "0", "--out", "w.tree"];
    shell.json(&[&["train", "data.npy"][..], &walks].concat());
    shell.json(&["backup", "m.apcm", "--out", "s.apcm"]);
    shell.json(&["stream", "tree", "s.apcm", "w.tree"]);
    shell.json(&["create", "few.apcm", "--codec", "a.codec", "--capacity", "4"]);
    shell.json(&["backup", "m.apcm", "--out", "damaged.apcm"]);
    damage(&shell.home.file("damaged.apcm"));
    shell
}

/// A byte of the record in slot 4 changed.
fn damage(path: &Path) {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    common::tamper::flip(&transaction, common::tamper::SLOTS, 4);
    transaction.commit().unwrap();
}

fn read(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// What a file means: of a store or a pack all that can be read of it, of any other its bytes.
#[derive(Default)]
struct Meanings(HashMap<u64, Result<String, String>>);

impl Meanings {
    fn of(&mut self, name: &str, bytes: &[u8]) -> Result<String, String> {
        let digest = digest(&bytes);
        let contents = match Path::new(name).extension().and_then(|extension| extension.to_str()) {
            Some("apcm") => of_store,
            Some("apack") => of_pack,
            _ => return Ok(format!("{} bytes, {digest:x}", bytes.len())),
        };
        let found = || contents(bytes).map_err(|error| error.to_string());
        self.0.entry(digest).or_insert_with(found).clone()
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}

fn builder() -> StoreBuilder {
    Store::builder().clock(|| 1_000)
}

/// Memories that can be read and those that cannot, and what else a store keeps.
fn of_store(bytes: &[u8]) -> apcm::Result<String> {
    let store = builder().open_on(Disk::holding(bytes.to_vec()))?;
    let stats = store.stats()?;
    let mut text = format!("{:?} of {}, {} damaged\n", store.policy(), stats.capacity, stats.damaged);
    writeln!(text, "{:?} {:?}", store.ingest_position("first")?, store.streams()?).unwrap();
    writeln!(text, "{:?}", store.sweeper_tree()?.map(|tree| (tree.capacity(), tree.parameters()))).unwrap();
    for entry in store.iter()? {
        match entry.and_then(|entry| Ok((entry.record()?, entry))) {
            Ok((record, entry)) => {
                let bits: Vec<u32> = record.values().iter().map(|value| value.to_bits()).collect();
                let (id, key, error) = (entry.id(), entry.key(), entry.error().to_bits());
                let rest = (entry.metadata(), entry.is_pinned(), entry.expires_at(), entry.count());
                writeln!(text, "{id:?} {key:?} {error} {rest:?} {bits:?}").unwrap();
            }
            Err(error) => writeln!(text, "{error}").unwrap(),
        }
    }
    Ok(text)
}

fn of_pack(bytes: &[u8]) -> apcm::Result<String> {
    let pack = Pack::builder().clock(|| 1_000).from_bytes(bytes)?;
    let mut text = format!("{:?} of {}, {}\n", pack.fingerprint(), pack.capacity(), pack.verify()?.memories);
    for entry in pack.iter() {
        let entry = entry?;
        let (record, id, key, error) = (entry.record()?, entry.id(), entry.key(), entry.error().to_bits());
        let rest = (entry.metadata(), entry.is_pinned(), entry.expires_at(), entry.count());
        writeln!(text, "{id:?} {key:?} {error} {rest:?} {record:?}").unwrap();
    }
    Ok(text)
}

/// A command that ran, and what the folder means before and after it.
struct Run<'a> {
    line: &'a [&'a str],
    named: bool,
    history: History,
    before: BTreeMap<String, String>,
    after: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Tally {
    crashes: usize,
    old: usize,
    new: usize,
    again: usize,
}

impl<'a> Run<'a> {
    fn of(line: &'a [&'a str], named: bool, shell: &Shell, meanings: &mut Meanings) -> Self {
        let folder = shell.home.folder.path().canonicalize().unwrap();
        let files = read(&folder);
        let calls = calls::of(PROGRAM, line, &folder, named);
        let history = History::of(&folder, &files, &calls);
        let now = read(&folder);
        // The calls are all there is: what they make is what is there, byte for byte.
        history.crashes(history.acts.len(), |arrived, what| {
            if what == "everything arrived" {
                assert!(arrived == now, "{line:?}: a call was not seen");
            }
        });
        let mut mean = |files: &Files| -> BTreeMap<String, String> {
            let of = |(name, bytes): (&String, &Vec<u8>)| (name.clone(), meanings.of(name, bytes).unwrap());
            files.iter().map(of).collect()
        };
        Self { line, named, history, before: mean(&files), after: mean(&now) }
    }

    /// Crashes after every call.
    fn crash(&self, meanings: &mut Meanings) -> Result<Tally, String> {
        let (mut tally, mut seen, mut wrong) = (Tally::default(), HashSet::new(), None);
        for count in 0..=self.history.acts.len() {
            self.history.crashes(count, |files, what| {
                let ended = count == self.history.acts.len();
                if wrong.is_some() || !seen.insert((digest(&files), ended)) {
                    return;
                }
                tally.crashes += 1;
                match self.holds(&files, ended, meanings) {
                    Ok(new) => *(if new { &mut tally.new } else { &mut tally.old }) += 1,
                    Err(error) => {
                        let act = count.checked_sub(1).map(|at| &self.history.acts[at]);
                        wrong = Some(format!("after act {count}, {:?} ({what}): {error}", act.map(short)));
                    }
                }
                if tally.crashes % AGAIN == 0 && wrong.is_none() {
                    self.go_on(&files, meanings);
                    tally.again += 1;
                }
            });
        }
        wrong.map_or(Ok(tally), Err)
    }

    /// Whether a folder holds what it held, or what the command makes; if it ended, the latter.
    fn holds(&self, files: &Files, ended: bool, meanings: &mut Meanings) -> Result<bool, String> {
        let mut new = true;
        for name in self.before.keys().chain(self.after.keys()) {
            let (before, after) = (self.before.get(name), self.after.get(name));
            let found = match files.get(name) {
                Some(bytes) => Some(meanings.of(name, bytes).map_err(|error| format!("{name}: {error}"))?),
                None => None,
            };
            let is = |expected: Option<&String>| found.as_ref() == expected;
            if !(is(after) || is(before) && !ended) {
                return Err(format!("{name} holds {found:?}, before {before:?}, after {after:?}"));
            }
            new &= is(after);
        }
        let stray = files.keys().find(|name| {
            let known = self.before.contains_key(*name) || self.after.contains_key(*name);
            !known && (ended || !is_temporary(name))
        });
        stray.map_or(Ok(new), |name| Err(format!("{name} is left")))
    }

    /// The command runs again where it was cut off, and ends as it would have; it may find its work done.
    fn go_on(&self, files: &Files, meanings: &mut Meanings) {
        let shell = Shell::new();
        let long_ago = SystemTime::now() - Duration::from_secs(7_200);
        for (name, bytes) in files {
            std::fs::write(shell.home.file(name), bytes).unwrap();
            let file = std::fs::File::options().write(true).open(shell.home.file(name)).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        let done = files
            .iter()
            .filter(|(name, _)| !is_temporary(name))
            .map(|(name, bytes)| (name.clone(), bytes.clone()));
        let done = self.holds(&done.collect(), true, meanings).is_ok();
        let output = calls::again(PROGRAM, self.line, shell.home.folder.path(), self.named);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || text.contains("there already"), "{:?}: {text}", self.line);
        if self.line[0] == "put" || self.line.contains(&"--into") || self.line.contains(&"append") {
            return; // Done twice is done once more.
        }
        let mut left = read(shell.home.folder.path());
        if done {
            // But for the old name of what a rename moved, where that is a change of its own.
            left.retain(|name, _| !is_temporary(name));
        }
        self.holds(&left, true, meanings).unwrap_or_else(|error| panic!("{:?}, again: {error}", self.line));
    }
}

/// Whether a crash may leave a file of this name.
fn is_temporary(name: &str) -> bool {
    name.starts_with(".apcm-new-") || name.ends_with(".recoding")
}

fn short(act: &Act) -> String {
    match act {
        Act::File(file, Event::Write { offset, data }) => {
            format!("{} bytes at {offset} of file {file}", data.len())
        }
        other => format!("{other:?}"),
    }
}

fn every_command(named: bool) {
    if !calls::can_be_seen() {
        eprintln!("SKIPPED: strace is not here, or may not trace");
        return;
    }
    let prepared = prepared();
    let mut meanings = Meanings::default();
    // What gives no file a name does the same in both.
    for Operation { line, names } in OPERATIONS.iter().filter(|operation| operation.names || !named) {
        let shell = Shell::new();
        for (name, bytes) in read(prepared.home.folder.path()) {
            std::fs::write(shell.home.file(&name), bytes).unwrap();
        }
        let mut run = Run::of(line, named, &shell, &mut meanings);
        let tally = run.crash(&mut meanings).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        eprintln!("{}: {} acts, {tally:?}", line.join(" "), run.history.acts.len());
        assert!(tally.new > 0 && (tally.old > 0 || run.before == run.after), "{line:?}: {tally:?}");
        // The simulation sees what it is for: the last sync of the folder left out, and the syncs of files. (A
        // recode's first sync of the folder keeps what it has done so far, and nothing that was promised.)
        let acts = run.history.acts.clone();
        let sync = acts.iter().rposition(|act| *act == Act::SyncFolder);
        assert_eq!(sync.is_some(), *names, "{line:?}");
        if let Some(sync) = sync {
            run.history.acts.remove(sync);
            run.crash(&mut meanings).expect_err("a sync of the folder was left out");
            run.history.acts.clone_from(&acts);
        }
        run.history.acts.retain(|act| !matches!(act, Act::File(_, Event::Sync)));
        run.crash(&mut meanings).expect_err("the syncs of files were left out");
    }
}

#[test]
fn f22_every_command_leaves_the_old_or_the_new() {
    every_command(false);
}

#[test]
fn f22_and_where_every_file_has_a_name() {
    if calls::UNNAMED_CAN_BE_REFUSED {
        every_command(true);
    } else {
        eprintln!("SKIPPED: files without a name cannot be refused here");
    }
}
