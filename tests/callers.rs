//! What callers bring along: panics of their clocks, codecs and callbacks (F21 of the fault matrix in
//! docs/reliability.md), clocks that jump and counters at their ends (F26).

mod common;

use apcm::{
    Attributes, Codec, CodecInfo, Encoded, Error, PlainCodec, RecordShape, Records, Similarity, Store,
    StoredCode,
};
use apcm_format::{CodecImage, CounterChunk, Place, StoreState, Table, frame};
use common::disk::{Disk, Random};
use common::model::{self, Model, Op};
use common::scripts::{codec, record, snapshot};
use common::tamper::{COUNTERS, META, tamper};
use common::{Home, axis, vector};
use redb::ReadableTable;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const THEIRS: &str = "the caller's own";

/// Runs what must panic with the caller's own words.
fn theirs<T>(what: &str, run: impl FnOnce() -> T) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { panic!("{what}: it did not panic") };
    assert_eq!(panic.downcast_ref::<&str>(), Some(&THEIRS), "{what}: another panic");
}

/// Their messages would drown everything else.
fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        if info.payload().downcast_ref::<&str>() != Some(&THEIRS) {
            eprintln!("{info}");
        }
    }));
}

#[test]
fn f21_a_panic_of_the_clock_is_the_callers_and_the_store_goes_on() {
    quiet();
    let home = Home::new();
    let broken = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&broken);
    let builder = Store::builder().capacity(4).clock(move || {
        if flag.load(Relaxed) {
            std::panic::panic_any(THEIRS);
        }
        1_000
    });
    let store = builder.create(&home.path, codec()).unwrap();
    let mut random = Random(1);
    let memory = record(&mut random);
    let put = store.put(b"a", &memory, Attributes::default()).unwrap();
    let before = snapshot(&store).unwrap();
    broken.store(true, Relaxed);
    theirs("insert", || store.insert(&memory));
    theirs("put", || store.put(b"b", &memory, Attributes::default()));
    theirs("remove", || store.remove(b"a"));
    theirs("pin", || store.pin(put.id, true));
    theirs("read", || store.read(&memory));
    theirs("get", || store.get(b"a"));
    theirs("search", || store.search(&memory).run());
    theirs("len", || store.len());
    theirs("a transaction of two", || {
        let mut transaction = store.begin_write();
        transaction.insert(&memory)?;
        transaction.insert(&memory)?;
        transaction.commit()
    });
    broken.store(false, Relaxed);
    assert_eq!(snapshot(&store).unwrap(), before, "what panicked left something behind");
    assert_eq!(store.insert(&memory).unwrap().id.slot, 1);
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

/// A codec of the user's own that panics on request.
#[derive(Debug)]
struct Fragile(PlainCodec, Arc<AtomicBool>);

impl Fragile {
    fn check(&self) {
        if self.1.load(Relaxed) {
            std::panic::panic_any(THEIRS);
        }
    }
}

impl Codec for Fragile {
    fn shape(&self) -> RecordShape {
        self.0.shape()
    }

    fn code_len_max(&self) -> usize {
        self.0.code_len_max()
    }

    fn encode(&self, records: &Records) -> apcm::Result<Vec<Encoded>> {
        self.check();
        self.0.encode(records)
    }

    fn decode(&self, codes: &[StoredCode<'_>]) -> apcm::Result<Records> {
        self.check();
        self.0.decode(codes)
    }

    fn search_dims(&self, similarity: Similarity) -> usize {
        self.0.search_dims(similarity)
    }

    fn search_vectors(&self, codes: &[&[u8]], similarity: Similarity) -> apcm::Result<Vec<f32>> {
        self.check();
        self.0.search_vectors(codes, similarity)
    }

    fn query_vectors(&self, records: &Records, similarity: Similarity) -> apcm::Result<Vec<f32>> {
        self.check();
        self.0.query_vectors(records, similarity)
    }

    fn image(&self) -> apcm::Result<CodecImage> {
        self.0.image()
    }

    fn info(&self) -> CodecInfo {
        self.0.info()
    }
}

#[test]
fn f21_a_panic_of_a_codec_is_the_callers_and_the_store_goes_on() {
    quiet();
    let home = Home::new();
    let broken = Arc::new(AtomicBool::new(false));
    let fragile = || Fragile(codec(), Arc::clone(&broken));
    let store = Store::builder().capacity(4).create(&home.path, fragile()).unwrap();
    let memory = record(&mut Random(1));
    let put = store.put(b"a", &memory, Attributes::default()).unwrap();
    broken.store(true, Relaxed);
    theirs("insert", || store.insert(&memory));
    theirs("read", || store.read(&memory));
    theirs("get", || store.get(b"a"));
    theirs("get_id", || store.get_id(put.id));
    theirs("search", || store.search(&memory).with_records().run());
    theirs("iter", || store.iter().unwrap().next().unwrap().unwrap().record());
    broken.store(false, Relaxed);
    store.insert(&memory).unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap().id, put.id);
    store.close().unwrap();
    broken.store(true, Relaxed);
    theirs("open", || Store::builder().open_with_codec(&home.path, fragile()));
    broken.store(false, Relaxed);
    assert_eq!(Store::builder().open_with_codec(&home.path, fragile()).unwrap().len(), 2);
}

#[test]
fn f21_a_panic_of_a_callback_ends_what_called_it_and_nothing_else() {
    quiet();
    let home = Home::new();
    let store = Store::builder().capacity(400).create(&home.path, codec()).unwrap();
    let mut transaction = store.begin_write();
    let mut random = Random(4);
    (0..400).try_for_each(|_| transaction.insert(&record(&mut random))).unwrap();
    transaction.commit().unwrap();
    let broken = |_: &apcm::Progress<'_>| -> ControlFlow<()> { std::panic::panic_any(THEIRS) };
    let copy = home.file("copy");
    theirs("backup", || store.backup(&copy).progress(broken).run());
    theirs("recode", || store.recode(home.file("recoded"), codec()).progress(broken).run());
    let stopped = store.backup(&copy).progress(|_| ControlFlow::Break(())).run();
    assert!(matches!(stopped, Err(Error::Cancelled)));
    store.insert(&record(&mut random)).unwrap();
    assert_eq!(store.recode(home.file("recoded"), codec()).run().unwrap().records, 400);
    store.close().unwrap();
    theirs("verify", || Store::verify(&home.path).progress(broken).run());
    theirs("plan_repair", || Store::repair(&home.path).progress(broken).plan());
    theirs("salvage", || Store::salvage(&home.path, &copy).progress(broken).run());
    assert!(!copy.exists());
    let store = Store::open(&home.path).unwrap();
    assert_eq!(store.backup(&copy).run().unwrap().memories, 400);
}

/// F26: who leaves depends on counts and on the order of writes, never on what the clock says.
#[test]
fn f26_a_clock_that_jumps_changes_no_placement() {
    let home = Home::new();
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let codec = PlainCodec::new(&[2], 2).unwrap();
    let store =
        Store::builder().capacity(5).clock(move || clock.load(Relaxed)).create(&home.path, codec).unwrap();
    let mut model = Model::new(5, apcm::Policy::Lfu);
    let mut random = Random(26);
    let jumps = [0, 1, 1_000, u64::from(u32::MAX) - 1, u64::from(u32::MAX), 1 << 40, u64::MAX];
    for step in 0..600 {
        now.store(jumps[random.below(jumps.len() as u64) as usize], Relaxed);
        let values = [random.below(9) as f32 - 4.0, 1.0];
        let key = random.below(7) as u8;
        let op = match random.below(4) {
            0 => Op::Insert(vec![values]),
            1 => Op::Put(key, values),
            2 => Op::Get(key, 2),
            _ => Op::Flush,
        };
        assert_eq!(model::apply(&store, &op).unwrap(), model.apply(&op), "step {step}: {op:?}");
        assert_eq!(model::memories(&store).unwrap(), model.memories(), "step {step}: {op:?}");
    }
    store.close().unwrap();
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

#[test]
fn f26_an_expiry_beyond_all_time_never_comes_and_a_clock_set_back_brings_nothing_back_wrongly() {
    let home = Home::new();
    let now = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&now);
    let store =
        Store::builder().capacity(2).clock(move || clock.load(Relaxed)).create(&home.path, codec()).unwrap();
    let mut random = Random(2);
    let brief = Attributes::default().expiring_in(Duration::from_secs(10));
    let endless = Attributes::default().expiring_in(Duration::MAX);
    store.put(b"brief", &record(&mut random), brief).unwrap();
    store.put(b"endless", &record(&mut random), endless).unwrap();
    for (at, brief, endless) in [
        (1_009, true, true),
        (1_010, false, true),
        (0, true, true),
        (u64::from(u32::MAX) - 1, false, true),
        // A clock that cannot be told any more stands at its end, where everything that ends has ended.
        (u64::MAX, false, false),
    ] {
        now.store(at, Relaxed);
        assert_eq!(store.contains(b"brief").unwrap(), brief, "at {at}");
        assert_eq!(store.contains(b"endless").unwrap(), endless, "at {at}");
        assert_eq!(store.len(), usize::from(brief) + usize::from(endless), "at {at}");
    }
}

/// F26: counts stop at their end; they do not begin again, and what is counted most stays.
#[test]
fn f26_counts_stop_at_their_end() {
    let home = Home::new();
    let store = common::plain_store(&home, 2, 4);
    store.put(b"hot", &axis(0, 4), Attributes::default()).unwrap();
    store.put(b"warm", &axis(1, 4), Attributes::default()).unwrap();
    store.close().unwrap();
    tamper(&home, |transaction, header| {
        let place = Place::numbered(header.uuid, Table::Counters, 0);
        let mut chunk = CounterChunk { counts: [0; _] };
        (chunk.counts[0], chunk.counts[1]) = (u32::MAX - 1, u32::MAX - 3);
        transaction.open_table(COUNTERS).unwrap().insert(0, chunk.encode(place).as_slice()).unwrap();
        let place = Place::named(header.uuid, Table::Meta, b"state");
        let mut meta = transaction.open_table(META).unwrap();
        let state = frame::open::<StoreState>(meta.get("state").unwrap().unwrap().value(), place).unwrap();
        let state = StoreState { reads: u64::MAX - 1, evictions: u64::MAX, ..state };
        meta.insert("state", frame::seal(&state, place).unwrap().as_slice()).unwrap();
    });
    for _ in 0..2 {
        let store = Store::open(&home.path).unwrap();
        for _ in 0..3 {
            store.get(b"hot").unwrap();
        }
        assert_eq!(store.access_count(store.id_of(b"hot").unwrap().unwrap()), Some(u32::MAX));
        assert_eq!(store.access_count(store.id_of(b"warm").unwrap().unwrap()), Some(u32::MAX - 3));
        store.close().unwrap();
    }
    let store = Store::open(&home.path).unwrap();
    assert_eq!(store.stats().unwrap().reads, u64::MAX);
    let put = store.insert(&vector(&[0.0, 0.0, 1.0, 0.0])).unwrap();
    assert_eq!(put.evicted[0].key.as_deref(), Some(&b"warm"[..]));
    assert_eq!(store.stats().unwrap().evictions, u64::MAX);
}

/// A clock that panics fails the call that asked for the time. Counts still reach the disk.
#[test]
fn f21_a_panic_of_the_clock_does_not_end_the_flusher() {
    quiet();
    let disk = Disk::new();
    let broken = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&broken);
    let clock = move || {
        let flusher = std::thread::current().name() == Some("apcm-flusher");
        if flusher || flag.load(Relaxed) {
            std::panic::panic_any(THEIRS);
        }
        1_000
    };
    let store = Store::builder().capacity(4).clock(clock).create_on(disk.clone(), codec()).unwrap();
    let id = store.insert(&record(&mut Random(1))).unwrap().id;
    for round in 1..=2_u32 {
        let events = disk.events();
        for _ in 0..65_536 {
            store.get_id(id).unwrap();
        }
        let began = std::time::Instant::now();
        while disk.events() == events && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(disk.events() > events, "the flusher did not come in round {round}");
        store.flush().unwrap();
        let found = Store::builder().open_on(Disk::holding(disk.bytes())).unwrap();
        assert_eq!(found.access_count(id), Some(65_536 * round));
    }
    broken.store(true, Relaxed);
    store.flush().unwrap();
    store.close().unwrap();
}
