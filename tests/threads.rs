//! Many threads at one store (F20 of the fault matrix in docs/reliability.md): every read is of a moment
//! between its beginning and its end, and every counted read is counted once.

mod common;

use apcm::{Attributes, Metadata, Store, Value};
use common::disk::Random;
use common::{Home, plain_store, vector};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const KEYS: u64 = 12;
const READERS: u64 = 16;

/// The record of a version of a key: a multiple of a vector that is the key's alone, so that its codes are
/// exact.
fn record(key: u64, version: u64) -> apcm::Record {
    let scale = (1 << (version % 8)) as f32;
    let mut values = vec![0.0; KEYS as usize];
    values[key as usize] = scale;
    values[((key + 1) % KEYS) as usize] = -scale;
    vector(&values)
}

fn version(metadata: &Metadata) -> u64 {
    match metadata.get("version") {
        Some(Value::Int(version)) => u64::try_from(*version).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn name(key: u64) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

#[test]
fn f20_sixteen_readers_see_only_what_a_writer_had_written() {
    let time = if std::env::var_os("APCM_DEEP").is_some() { 30 } else { 3 };
    let home = Home::new();
    let store = plain_store(&home, KEYS as u32, KEYS as usize);
    for key in 0..KEYS {
        let metadata = Metadata::from([("version".to_owned(), 0_i64.into())]);
        store.put(&name(key), &record(key, 0), metadata).unwrap();
    }
    // Of each key the newest version that may be there, and the oldest that may still be.
    let begun: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let done: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    let counted = AtomicU64::new(0);
    let until = Instant::now() + Duration::from_secs(time);
    let (mut reads, mut writes) = (0, 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut random = Random(20);
            let mut versions = vec![0_u64; KEYS as usize];
            let mut writes = 0_u64;
            while Instant::now() < until {
                let key = random.below(KEYS);
                let next = versions[key as usize] + 1;
                begun[key as usize].store(next, SeqCst);
                let metadata = Metadata::from([("version".to_owned(), i64::try_from(next).unwrap().into())]);
                store.put(&name(key), &record(key, next), metadata).unwrap();
                done[key as usize].store(next, SeqCst);
                versions[key as usize] = next;
                writes += 1;
            }
            stop.store(true, SeqCst);
            writes
        });
        let flusher = scope.spawn(|| {
            while !stop.load(SeqCst) {
                store.flush().unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (store, begun, done, stop, counted) = (&store, &begun, &done, &stop, &counted);
                scope.spawn(move || {
                    let mut random = Random(100 + reader);
                    let mut reads = 0_u64;
                    while !stop.load(SeqCst) {
                        let key = random.below(KEYS);
                        let oldest = done[key as usize].load(SeqCst);
                        let (metadata, found) = match random.below(3) {
                            0 => {
                                let memory = store.get(&name(key)).unwrap().unwrap();
                                counted.fetch_add(1, SeqCst);
                                (memory.metadata, memory.record)
                            }
                            1 => {
                                let memory = store.read(&record(key, 0)).unwrap().unwrap();
                                counted.fetch_add(1, SeqCst);
                                assert_eq!(memory.key, Some(name(key)));
                                (memory.metadata, memory.record)
                            }
                            _ => {
                                let hits = store.search(&record(key, 0)).k(2).with_records().run().unwrap();
                                assert_eq!(hits[0].key, Some(name(key)));
                                assert!(hits[0].similarity > hits[1].similarity);
                                (hits[0].metadata.clone(), hits[0].record.clone().unwrap())
                            }
                        };
                        let newest = begun[key as usize].load(SeqCst);
                        let version = version(&metadata);
                        assert!((oldest..=newest).contains(&version), "{oldest} <= {version} <= {newest}");
                        assert_eq!(found, record(key, version), "a record of another version");
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        reads = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        writes = writer.join().unwrap();
        flusher.join().unwrap();
    });
    eprintln!("{reads} reads beside {writes} writes");
    assert!(reads > READERS && writes > 0);
    let counted = counted.into_inner();
    store.flush().unwrap();
    assert_eq!(store.stats().unwrap().reads, counted);
    let counts: u64 = store.iter().unwrap().map(|entry| u64::from(entry.unwrap().count())).sum();
    // A memory keeps its count when its record is replaced. A reader that looked before a replacement and
    // counts after it has read what is not there any more: that is one of the total, and of no memory. At most
    // one a reader and write.
    assert!(counts <= counted && counted - counts <= writes * READERS, "{counts} of {counted}");
    store.close().unwrap();
    let store = Store::open(&home.path).unwrap();
    assert_eq!(store.stats().unwrap().reads, counted);
    assert_eq!(store.len() as u64, KEYS);
    store.put(&name(0), &record(0, 1), Attributes::default()).unwrap();
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

/// Threads that write at the same time share commits, and each gets its own answer.
#[test]
fn many_writers_each_get_their_own_answer() {
    const WRITERS: u64 = 16;
    const ROUNDS: u64 = 12;
    let home = Home::new();
    let store = plain_store(&home, (WRITERS * ROUNDS) as u32, KEYS as usize);
    let gone = store.insert(&record(0, 0)).unwrap().id;
    store.remove_id(gone).unwrap();
    let answers: Vec<(u64, u64, apcm::Written)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    let mut answers = Vec::new();
                    for round in 0..ROUNDS {
                        let key = format!("{writer}/{round}");
                        let put = store
                            .put(key.as_bytes(), &record(writer % KEYS, round), Attributes::default())
                            .unwrap();
                        assert_eq!(
                            store.id_of(key.as_bytes()).unwrap(),
                            Some(put.id),
                            "acknowledged and not there"
                        );
                        answers.push((writer, round, put));
                        // What cannot be done is this writer's alone, whoever it shares a commit with.
                        let error = store.remove_id(gone).unwrap_err();
                        assert!(matches!(error, apcm::Error::NotFound { id } if id == gone), "{error}");
                        let mut both = store.begin_write();
                        both.put(b"never", &record(0, 0), Attributes::default()).unwrap();
                        both.pin(gone, true);
                        assert!(both.commit().is_err());
                    }
                    answers
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    assert!(!store.contains(b"never").unwrap(), "half a transaction");
    let mut seqs: Vec<u64> = answers.iter().map(|(_, _, put)| put.id.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len() as u64, WRITERS * ROUNDS);
    assert!(answers.iter().all(|(_, _, put)| put.evicted.is_empty()));
    for (writer, round, put) in &answers {
        let memory = store.peek_key(format!("{writer}/{round}").as_bytes()).unwrap().unwrap();
        assert_eq!((memory.id, memory.record), (put.id, record(writer % KEYS, *round)));
    }
    store.close().unwrap();
    let report = Store::verify(&home.path).run().unwrap();
    assert!(report.ok && report.slots_checked == WRITERS * ROUNDS, "{report:?}");
}
