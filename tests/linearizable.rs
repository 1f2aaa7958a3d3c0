//! Recorded histories of threads that use one store at the same time, held to what one thread could have seen.
//!
//! `APCM_DEEP=1` does it for a minute each, on up to sixteen threads.

mod common;

use apcm::{Attributes, Error, InMemoryBackend, PlainCodec, Policy, Record, Records, Store, SweeperTree};
use common::disk::{Call as DiskCall, Disk, Fault, Loss, Random};
use common::linear::{Call, Sequential, Ticks, linearize};
use common::{records, vector};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const KEYS: u64 = 6;

fn deep() -> bool {
    std::env::var_os("APCM_DEEP").is_some()
}

/// Runs rounds for a while; each is told its number.
fn rounds(mut round: impl FnMut(u64)) -> u64 {
    let time = Duration::from_secs(if deep() { 60 } else { 5 });
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < time {
        round(count);
        count += 1;
    }
    count
}

fn value(record: &Record) -> u32 {
    record.values()[0] as u32
}

fn record(value: u64) -> Record {
    vector(&[value as f32, 1.0])
}

/// What a store of keys does.
#[derive(Debug, Clone)]
enum Op {
    /// The value, and the keys that it evicted; unknown where the outcome is.
    Put(u64, u32, Option<Vec<u64>>),
    Get(u64, Option<u32>),
    Remove(u64, Option<bool>),
    /// How many memories there are.
    Len(usize),
    /// What changes nothing that can be read: a flush, a change of policy.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Memories {
    values: BTreeMap<u64, u32>,
    capacity: usize,
}

impl Sequential for Memories {
    type Op = Op;

    fn after(&self, op: &Op) -> Option<Self> {
        let mut after = self.clone();
        let fits = match op {
            Op::Put(key, value, evicted) => {
                let full = self.values.len() == self.capacity && !self.values.contains_key(key);
                let evicted = evicted.as_deref().unwrap_or_default();
                let left = evicted.iter().all(|key| after.values.remove(key).is_some());
                after.values.insert(*key, *value);
                left && evicted.len() == usize::from(full)
            }
            Op::Get(key, found) => self.values.get(key) == found.as_ref(),
            Op::Remove(key, removed) => {
                let there = after.values.remove(key).is_some();
                removed.is_none_or(|removed| removed == there)
            }
            Op::Len(len) => self.values.len() == *len,
            Op::Nothing => true,
        };
        fits.then_some(after)
    }
}

/// One thread's part of a history. It ends at the first storage error; what that was about may have happened or
/// not.
fn run(store: &Store, ticks: &Ticks, history: &Mutex<Vec<Call<Op>>>, seed: u64, steps: usize) {
    let mut random = Random(seed);
    for step in 0..steps {
        let key = random.below(KEYS);
        let name = [key as u8];
        let kind = random.below(10);
        let invoked = ticks.now();
        let unknown = |op: Op| history.lock().unwrap().push(Call { op, invoked, returned: None });
        let op = match kind {
            0..=3 => {
                let new = seed % 1_000 * 1_000 + step as u64;
                match store.put(&name, &record(new), Attributes::default()) {
                    Ok(put) => {
                        let evicted =
                            put.evicted.iter().map(|evicted| evicted.key.as_ref().unwrap()[0].into());
                        Op::Put(key, new as u32, Some(evicted.collect()))
                    }
                    Err(Error::OutcomeUnknown { .. }) => return unknown(Op::Put(key, new as u32, None)),
                    Err(Error::Poisoned | Error::Storage { .. }) => return,
                    Err(other) => panic!("{other}"),
                }
            }
            4..=6 => match store.get(&name) {
                Ok(found) => Op::Get(key, found.map(|memory| value(&memory.record))),
                Err(Error::Poisoned) => return,
                Err(other) => panic!("{other}"),
            },
            7 => match store.remove(&name) {
                Ok(removed) => Op::Remove(key, Some(removed)),
                Err(Error::OutcomeUnknown { .. }) => return unknown(Op::Remove(key, None)),
                Err(Error::Poisoned | Error::Storage { .. }) => return,
                Err(other) => panic!("{other}"),
            },
            8 => Op::Len(store.len()),
            _ => {
                let policy = [Policy::Lfu, Policy::Lru, Policy::Fifo][random.below(3) as usize];
                let changed = if step % 2 == 0 { store.flush() } else { store.set_policy(policy) };
                match changed {
                    Ok(()) => Op::Nothing,
                    Err(Error::Poisoned | Error::Storage { .. } | Error::OutcomeUnknown { .. }) => return,
                    Err(other) => panic!("{other}"),
                }
            }
        };
        let returned = Some(ticks.now());
        history.lock().unwrap().push(Call { op, invoked, returned });
    }
}

fn threads(round: u64) -> u64 {
    let most = if deep() { 16 } else { 8 };
    4 + round % (most - 3)
}

fn check(start: Memories, history: &[Call<Op>], round: u64) {
    if linearize(start.clone(), history).is_some() {
        return;
    }
    let mut history = history.to_vec();
    history.sort_by_key(|call| call.invoked);
    let lines: Vec<String> = history
        .iter()
        .map(|call| format!("{:>4} {:?}  {:?}", call.invoked, call.returned, call.op))
        .collect();
    panic!("round {round}: no order explains these responses, from {start:?}:\n{}", lines.join("\n"));
}

/// Readers beside writers that evict, counts that are flushed, policies that change.
#[test]
fn writers_that_evict_and_readers_beside_them_are_linearizable() {
    let mut calls = 0;
    let rounds = rounds(|round| {
        let capacity = 3 + (round % 4) as usize;
        let codec = PlainCodec::new(&[2], 2).unwrap();
        let store =
            Store::builder().capacity(capacity as u32).create_on(InMemoryBackend::new(), codec).unwrap();
        let (ticks, history) = (Ticks::default(), Mutex::default());
        // The number of calls is fixed: the search grows with calls and with threads.
        let steps = 100 / threads(round) as usize;
        std::thread::scope(|scope| {
            for thread in 0..threads(round) {
                let (store, ticks, history) = (&store, &ticks, &history);
                scope.spawn(move || run(store, ticks, history, round * 100 + thread, steps));
            }
        });
        let history = history.into_inner().unwrap();
        calls += history.len();
        check(Memories { values: BTreeMap::new(), capacity }, &history, round);
    });
    eprintln!("{rounds} histories, {calls} calls");
    assert!(rounds > 3);
}

/// Threads that share a commit whose sync fails, and go on once the store was opened again.
#[test]
fn shared_commits_that_fail_are_linearizable() {
    let (mut calls, mut unknown) = (0, 0);
    let rounds = rounds(|round| {
        let capacity = KEYS as usize;
        let disk = Disk::new();
        let codec = PlainCodec::new(&[2], 2).unwrap();
        let mut store = Store::builder().capacity(capacity as u32).create_on(disk.clone(), codec).unwrap();
        let (ticks, history) = (Ticks::default(), Mutex::default());
        let steps = 40 / threads(round) as usize;
        for again in 0..3 {
            disk.set_loss([Loss::Nothing, Loss::All, Loss::Some(round)][(round % 3) as usize]);
            let at = 1 + (round + again) % 20;
            disk.set_fault(Some(Fault {
                call: DiskCall::Sync,
                at,
                kind: std::io::ErrorKind::Other,
                lasting: false,
            }));
            std::thread::scope(|scope| {
                for thread in 0..threads(round) {
                    let (store, ticks, history) = (&store, &ticks, &history);
                    scope.spawn(move || run(store, ticks, history, round * 100 + again * 30 + thread, steps));
                }
            });
            drop(store);
            disk.set_fault(None);
            store = Store::builder().open_on(disk.clone()).unwrap();
        }
        // What is there at the end, one key after the other.
        for key in 0..KEYS {
            let invoked = ticks.now();
            let found = store.get(&[key as u8]).unwrap().map(|memory| value(&memory.record));
            history.lock().unwrap().push(Call {
                op: Op::Get(key, found),
                invoked,
                returned: Some(ticks.now()),
            });
        }
        let history = history.into_inner().unwrap();
        calls += history.len();
        unknown += history.iter().filter(|call| call.returned.is_none()).count();
        check(Memories { values: BTreeMap::new(), capacity }, &history, round);
    });
    eprintln!("{rounds} histories, {calls} calls, {unknown} of unknown outcome");
    assert!(rounds > 3 && unknown > 0);
}

/// What streams do: an append says its index, and what is recalled is what was appended.
#[derive(Debug, Clone)]
enum StreamOp {
    Append(usize, u64),
    Len(usize, u64),
    Remove(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lengths([u64; 2]);

impl Sequential for Lengths {
    type Op = StreamOp;

    fn after(&self, op: &StreamOp) -> Option<Self> {
        let mut after = self.clone();
        let fits = match *op {
            StreamOp::Append(stream, index) => {
                after.0[stream] += 1;
                self.0[stream] == index
            }
            StreamOp::Len(stream, len) => self.0[stream] == len,
            StreamOp::Remove(stream) => {
                after.0[stream] = 0;
                true
            }
        };
        fits.then_some(after)
    }
}

#[test]
fn streams_are_linearizable() {
    let seen: Records = records(&[2], (0..160).map(|i| (i as f32 / 7.0).sin()).collect());
    let tree = || SweeperTree::trainer(&seen, &[4; 20]).state(4).untrained().train().unwrap().tree;
    let mut calls = 0;
    let rounds = rounds(|round| {
        let codec = PlainCodec::new(&[2], 2).unwrap();
        let store = Store::builder().capacity(200).create_on(InMemoryBackend::new(), codec).unwrap();
        store.set_sweeper_tree(tree()).unwrap();
        let (ticks, history) = (Ticks::default(), Mutex::<Vec<Call<StreamOp>>>::default());
        std::thread::scope(|scope| {
            for thread in 0..threads(round) {
                let (store, ticks, history) = (&store, &ticks, &history);
                scope.spawn(move || {
                    let mut random = Random(round * 100 + thread);
                    for _ in 0..12 {
                        let stream = random.below(2) as usize;
                        let handle = store.stream(["a", "b"][stream]).unwrap();
                        let kind = random.below(12);
                        let invoked = ticks.now();
                        let op = match kind {
                            0..=7 => {
                                let appended = handle.append(&record(random.below(9))).unwrap();
                                StreamOp::Append(stream, appended.index)
                            }
                            8..=10 => StreamOp::Len(stream, handle.len().unwrap()),
                            _ => {
                                handle.remove().unwrap();
                                StreamOp::Remove(stream)
                            }
                        };
                        let returned = Some(ticks.now());
                        history.lock().unwrap().push(Call { op, invoked, returned });
                    }
                });
            }
        });
        let history = history.into_inner().unwrap();
        calls += history.len();
        let found = linearize(Lengths([0; 2]), &history);
        assert!(found.is_some(), "round {round}: {history:#?}");
    });
    eprintln!("{rounds} histories, {calls} calls");
    assert!(rounds > 3);
}

/// The checker sees what it is for.
#[test]
fn an_impossible_history_is_found() {
    let call = |op, invoked, returned| Call { op, invoked, returned: Some(returned) };
    let start = || Memories { values: BTreeMap::new(), capacity: 1 };
    let put = |key, value, evicted: &[u64]| Op::Put(key, value, Some(evicted.to_vec()));
    let whole = [call(put(0, 1, &[]), 0, 3), call(Op::Get(0, None), 1, 2), call(put(1, 2, &[0]), 4, 5)];
    assert!(linearize(start(), &whole).is_some());
    // A read that began after the write had returned, and did not see it.
    let stale = [call(put(0, 1, &[]), 0, 1), call(Op::Get(0, None), 2, 3)];
    assert!(linearize(start(), &stale).is_none());
    // A new value, and then the old one.
    let back = [
        call(put(0, 1, &[]), 0, 1),
        call(put(0, 2, &[]), 2, 9),
        call(Op::Get(0, Some(2)), 3, 4),
        call(Op::Get(0, Some(1)), 5, 6),
    ];
    assert!(linearize(start(), &back).is_none());
    // An eviction of what was not there, and none where there had to be one.
    assert!(linearize(start(), &[call(put(0, 1, &[4]), 0, 1)]).is_none());
    assert!(linearize(start(), &[call(put(0, 1, &[]), 0, 1), call(put(1, 1, &[]), 2, 3)]).is_none());
    // An unknown outcome explains both, and not a value out of nowhere.
    let unknown = Call { op: Op::Put(0, 7, None), invoked: 0, returned: None };
    for found in [None, Some(7)] {
        assert!(linearize(start(), &[unknown.clone(), call(Op::Get(0, found), 1, 2)]).is_some());
    }
    assert!(linearize(start(), &[unknown, call(Op::Get(0, Some(8)), 1, 2)]).is_none());
}
