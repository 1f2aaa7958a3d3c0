//! Every operation from within a thread pool whose tasks use the same store.
//!
//! A worker that waits for a task of its pool runs another one meanwhile, on top of its own stack. If the store
//! held a lock while it calls the codec, the clock or a callback, that other task would wait for the lock for
//! ever. The codec and the clock here give way to such a task wherever they are called, so that one held lock
//! is one deadlock.

mod common;

use apcm::sequence::SweeperTree;
use apcm::{
    Attributes, Codec, CodecInfo, Encoded, Error, PlainCodec, Policy, RecordShape, Records, Similarity,
    Store, StoredCode,
};
use apcm_format::CodecImage;
use common::{Home, records, vector};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Runs another task of the pool, if one waits, on top of this one.
fn give_way() {
    for _ in 0..3 {
        rayon::yield_now();
    }
}

#[derive(Debug, Clone)]
struct Yielding(PlainCodec);

impl Codec for Yielding {
    fn shape(&self) -> RecordShape {
        self.0.shape()
    }

    fn code_len_max(&self) -> usize {
        self.0.code_len_max()
    }

    fn encode(&self, records: &Records) -> apcm::Result<Vec<Encoded>> {
        give_way();
        self.0.encode(records)
    }

    fn decode(&self, codes: &[StoredCode<'_>]) -> apcm::Result<Records> {
        give_way();
        self.0.decode(codes)
    }

    fn search_dims(&self, similarity: Similarity) -> usize {
        self.0.search_dims(similarity)
    }

    fn search_vectors(&self, codes: &[&[u8]], similarity: Similarity) -> apcm::Result<Vec<f32>> {
        give_way();
        self.0.search_vectors(codes, similarity)
    }

    fn query_vectors(&self, records: &Records, similarity: Similarity) -> apcm::Result<Vec<f32>> {
        give_way();
        self.0.query_vectors(records, similarity)
    }

    fn image(&self) -> apcm::Result<CodecImage> {
        self.0.image()
    }

    fn info(&self) -> CodecInfo {
        self.0.info()
    }
}

fn walk(i: usize) -> [f32; 4] {
    let (a, b) = (i as f32 / 5.0, i as f32 / 11.0);
    [a.sin(), a.cos(), 0.5 * b.sin(), 0.5 * b.cos()]
}

fn tree() -> SweeperTree {
    let seen = records(&[4], (0..640).flat_map(walk).collect());
    SweeperTree::trainer(&seen, &[16; 40]).state(12).untrained().train().unwrap().tree
}

#[test]
fn no_lock_is_held_while_others_compute() {
    let home = Home::new();
    let codec = Yielding(PlainCodec::new(&[4], 4).unwrap());
    let clock = || {
        give_way();
        1_000
    };
    let store = Store::builder().capacity(60).clock(clock).create(&home.path, codec.clone()).unwrap();
    store.set_sweeper_tree(tree()).unwrap();
    let other_home = Home::new();
    let other =
        Store::builder().capacity(8).create(&other_home.path, PlainCodec::new(&[4], 4).unwrap()).unwrap();
    for i in 0..8 {
        other.put(&[i], &vector(&walk(i.into())), Attributes::default()).unwrap();
    }
    let pack_path = other_home.file("other.apack");
    other.export_pack(&pack_path).run().unwrap();
    let pack = apcm::Pack::open(&pack_path).unwrap();
    let done = AtomicU64::new(0);
    let fine = |what: &str, result: Result<(), Error>| {
        match result {
            // What others removed, evicted or made busy meanwhile.
            Ok(())
            | Err(
                Error::NotFound { .. }
                | Error::Forgotten { .. }
                | Error::Busy { .. }
                | Error::Argument { .. },
            ) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        done.fetch_add(1, Ordering::Relaxed);
    };
    let task = |i: usize| {
        let record = vector(&walk(i));
        let key = [b'k', (i % 7) as u8];
        let go_on = |_: &apcm::Progress<'_>| {
            give_way();
            ControlFlow::Continue(())
        };
        match i % 20 {
            0 => fine("insert", store.insert(&record).map(drop)),
            1 => fine("put", store.put(&key, &record, Attributes::default()).map(drop)),
            2 => fine("read", store.read(&record).map(drop)),
            3 => fine("get", store.get(&key).map(drop)),
            4 => fine("search", store.search(&record).k(5).with_records().run().map(drop)),
            5 => fine("soft read", store.read_soft(&record).run().map(drop)),
            6 => fine("remove", store.remove(&key).map(drop)),
            7 => fine("append", store.stream("a").unwrap().append(&record).map(drop)),
            8 => fine("append", store.stream("b").unwrap().append(&record).map(drop)),
            9 => fine("recall", store.stream("a").unwrap().recall_all().map(drop)),
            10 => fine("mean", store.write_mean(&records(&[4], [walk(i), walk(i + 1)].concat())).map(drop)),
            11 => fine("flush", store.flush()),
            12 => fine("iterate", {
                store.iter().and_then(|mut entries| entries.try_for_each(|entry| entry?.record().map(drop)))
            }),
            13 => {
                let to = home.file(&format!("backup {i}"));
                fine("backup", store.backup(to).progress(go_on).run().map(drop));
            }
            14 => {
                let to = home.file(&format!("pack {i}"));
                fine("pack", store.export_pack(to).progress(go_on).run().map(drop));
            }
            15 => fine("import", store.import(&pack).progress(go_on).run().map(drop)),
            16 => {
                let policy = if i % 40 == 16 { Policy::Lru } else { Policy::Lfu };
                fine("policy", store.set_policy(policy));
            }
            17 => {
                let to = home.file(&format!("recoded {i}"));
                let smaller = PlainCodec::new(&[4], 2).unwrap();
                fine("recode", store.recode(to, smaller).progress(go_on).run().map(drop));
            }
            18 => fine("stats", store.stats().and_then(|_| store.access_frequency()).map(drop)),
            _ => fine("tree", store.set_sweeper_tree(tree())),
        }
    };
    let tasks = if std::env::var_os("APCM_DEEP").is_some() { 4_000 } else { 300 };
    let (finished, wait) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).stack_size(64 << 20).build().unwrap();
            pool.scope(|all| (0..tasks).for_each(|i| all.spawn(move |_| task(i))));
            finished.send(()).unwrap();
        });
        // A deadlocked thread cannot be stopped: report it and abort the process.
        if wait.recv_timeout(Duration::from_secs(240)).is_err() {
            eprintln!("no end after {} of {tasks} operations", done.load(Ordering::Relaxed));
            std::process::abort();
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), tasks as u64);
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
}
