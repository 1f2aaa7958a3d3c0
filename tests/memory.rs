//! Memory, counted allocation by allocation: what a stranger's file may take, and what a slot takes.

mod common;

use apcm::{Error, FlowCodec, Loading, Pack, PlainCodec, QuantizerSpec, Records, Store};
use apcm_format::{Place, SlotRecord, Table, limits};
use common::tamper::{SLOTS, tamper};
use common::{Home, axis, gaussian, records};
use parking_lot::Mutex;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// One measurement at a time: the counts are the process's.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes allocated at the peak of a call, and after it, beyond those before.
fn measured<T>(run: impl FnOnce() -> T) -> (T, usize, usize) {
    let profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().curr_bytes;
    let value = run();
    let stats = dhat::HeapStats::get();
    drop(profiler);
    (value, stats.max_bytes - before, stats.curr_bytes - before)
}

/// redb's pages and what it needs to read them, in a file this small.
const BESIDE: usize = 8 << 20;

/// A store of one memory, in slot 0.
fn one_memory(home: &Home, capacity: u32) {
    let codec = PlainCodec::new(&[64], 64).unwrap();
    let store = Store::builder().capacity(capacity).create(&home.path, codec).unwrap();
    store.insert(&axis(3, 64)).unwrap();
    store.close().unwrap();
}

/// Moves a slot's row to another slot, with a checksum that is right there.
fn move_row(home: &Home, from: u32, to: u32) {
    tamper(home, |transaction, header| {
        let mut slots = transaction.open_table(SLOTS).unwrap();
        let value = slots.remove(from).unwrap().unwrap().value().to_vec();
        let at = |slot: u32| Place::numbered(header.uuid, Table::Slots, slot.into());
        let moved = SlotRecord::decode(&value, at(from)).unwrap().encode(at(to)).unwrap();
        slots.insert(to, moved.as_slice()).unwrap();
    });
}

#[test]
fn a_slot_number_in_a_small_file_takes_no_memory_beyond_the_limit() {
    let _alone = ALONE.lock();
    let home = Home::new();
    let capacity = limits::CAPACITY_MAX;
    one_memory(&home, capacity);
    move_row(&home, 0, capacity - 1);
    for limit in [None, Some(64 << 20)] {
        let builder = limit.map_or(Store::builder(), |limit| Store::builder().memory_limit(limit));
        let (result, peak, left) = measured(|| builder.open(&home.path).map(drop));
        let Err(Error::MemoryLimit { needed, limit: allowed, .. }) = result else { panic!("{result:?}") };
        assert!(needed > 1 << 34 && allowed == limit.unwrap_or(1 << 30), "{needed}, {allowed}");
        assert!(peak < BESIDE && left < 1 << 20, "{peak} bytes were taken for a refusal, {left} are left");
    }
    assert!(Store::verify(&home.path).run().unwrap().ok, "refused, and whole");
    // A slot that fits the limit is taken for what it is.
    move_row(&home, capacity - 1, 1_000_000);
    let (store, peak, _) = measured(|| Store::builder().open(&home.path).unwrap());
    assert_eq!(store.len(), 1);
    assert!(peak < 1 << 30, "{peak}");
    let error = Store::builder().memory_limit(1 << 20).open_read_only(&home.path).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(store);
    let error = Store::builder().memory_limit(1 << 20).open_read_only(&home.path).unwrap_err();
    assert!(error.to_string().contains("1048576 are allowed"), "{error}");
}

#[test]
fn a_codec_takes_no_memory_beyond_the_limit() {
    let _alone = ALONE.lock();
    let home = Home::new();
    // Codebooks of 256 entries for each of 16 bytes: four megabytes.
    let data = records(&[256], gaussian(600 * 256, 3));
    let trainer = FlowCodec::trainer(&data).quantizer(QuantizerSpec::Residual(16)).predictor(0, 0);
    let codec = trainer.train().unwrap().codec;
    Store::builder().capacity(4).create(&home.path, codec).unwrap().close().unwrap();
    let image = Store::open(&home.path).unwrap().stats().unwrap().codec.bytes as usize;
    let (result, peak, _) = measured(|| Store::builder().memory_limit(1 << 20).open(&home.path).map(drop));
    assert!(matches!(result, Err(Error::MemoryLimit { limit: 0x10_0000, .. })), "{result:?}");
    assert!(peak < BESIDE + (1 << 20), "{peak}");
    let (store, peak, left) = measured(|| Store::open(&home.path).unwrap());
    assert!(peak < BESIDE + 8 * image, "{peak} bytes at the peak for a codec of {image}");
    assert!(left < BESIDE + 8 * image, "{left}");
    drop(store);
}

#[test]
fn a_slot_takes_the_memory_that_is_stated() {
    let _alone = ALONE.lock();
    let home = Home::new();
    let (slots, dims) = (20_000, 48);
    let store = Store::builder()
        .capacity(slots as u32)
        .create(&home.path, PlainCodec::new(&[dims], dims).unwrap())
        .unwrap();
    let all: Records = records(&[dims], gaussian(slots * dims, 5));
    let mut transaction = store.begin_write();
    transaction.insert_all(&all).unwrap();
    transaction.commit().unwrap();
    store.close().unwrap();
    let (store, _, left) = measured(|| Store::open(&home.path).unwrap());
    let stated = store.stats().unwrap().memory_bytes as usize;
    let file = home.bytes().len();
    // Pages stay in redb's cache beside it.
    assert!(
        left > stated && left < stated + file + (2 << 20),
        "{left} bytes, {stated} stated, a file of {file}"
    );
    assert_eq!(stated as u64 % slots as u64, 0, "a number of bytes for each slot");
}

#[test]
fn opening_a_mapped_pack_takes_a_byte_a_block() {
    let _alone = ALONE.lock();
    let home = Home::new();
    let (slots, dims) = (20_000, 48);
    let codec = PlainCodec::new(&[dims], dims).unwrap();
    let store = Store::builder().capacity(slots as u32).create(&home.path, codec).unwrap();
    let mut transaction = store.begin_write();
    transaction.insert_all(&records(&[dims], gaussian(slots * dims, 5))).unwrap();
    transaction.commit().unwrap();
    let path = home.file("m.apack");
    let bytes = store.export_pack(&path).run().unwrap().bytes as usize;
    drop(store);
    let (pack, peak, left) = measured(|| Pack::open(&path).unwrap());
    assert!(pack.is_mapped() && pack.len() == slots);
    let most = bytes / (64 << 10) + (16 << 10);
    assert!(bytes > 4 << 20 && peak < most && left < most, "{peak} bytes, {left} left, of {bytes}");
    drop(pack);
    let (pack, peak, _) = measured(|| Pack::builder().loading(Loading::InMemory).open(&path).unwrap());
    assert!(peak > bytes && peak < bytes + most && !pack.is_mapped(), "{peak} bytes of {bytes}");
}

/// A file of holes is as long as its owner likes and takes no disk; what it may ask for follows what is there.
#[cfg(unix)]
#[test]
fn a_long_file_of_holes_takes_no_more_than_a_short_one() {
    let _alone = ALONE.lock();
    let home = Home::new();
    let capacity = limits::CAPACITY_MAX;
    one_memory(&home, capacity);
    move_row(&home, 0, capacity - 1);
    std::fs::OpenOptions::new().write(true).open(&home.path).unwrap().set_len(1 << 31).unwrap();
    let (result, peak, _) = measured(|| Store::open(&home.path).map(drop));
    assert!(matches!(result, Err(Error::MemoryLimit { limit: 0x4000_0000, .. })), "{result:?}");
    assert!(peak < 64 << 20, "{peak}");
}
