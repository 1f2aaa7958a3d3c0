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

/// Moves rows of slots to other slots, with checksums that are right there.
fn move_rows(home: &Home, moves: impl Iterator<Item = (u32, u32)>) {
    tamper(home, |transaction, header| {
        let mut slots = transaction.open_table(SLOTS).unwrap();
        let at = |slot: u32| Place::numbered(header.uuid, Table::Slots, slot.into());
        for (from, to) in moves {
            let value = slots.remove(from).unwrap().unwrap().value().to_vec();
            let moved = SlotRecord::decode(&value, at(from)).unwrap().encode(at(to)).unwrap();
            slots.insert(to, moved.as_slice()).unwrap();
        }
    });
}

#[test]
fn a_high_slot_number_takes_the_memory_of_one_slot() {
    let _alone = ALONE.lock();
    let home = Home::new();
    let capacity = limits::CAPACITY_MAX;
    one_memory(&home, capacity);
    move_rows(&home, [(0, capacity - 1)].into_iter());
    let (store, peak, left) = measured(|| Store::open(&home.path).unwrap());
    assert!(peak < BESIDE && left < BESIDE, "{peak} bytes at the peak, {left} are left");
    assert!(store.stats().unwrap().memory_bytes < 2 << 20);
    // It is found, what comes takes the lowest free slot, and what leaves is gone.
    let id = store.read(&axis(3, 64)).unwrap().unwrap().id;
    assert_eq!((store.len(), id.slot), (1, capacity - 1));
    assert_eq!(store.insert(&axis(5, 64)).unwrap().id.slot, 0);
    store.remove_id(id).unwrap();
    assert_eq!(store.read(&axis(3, 64)).unwrap().unwrap().id.slot, 0);
    drop(store);
    assert!(Store::verify(&home.path).run().unwrap().ok);
}

#[test]
fn slots_far_from_each_other_take_no_memory_beyond_the_limit() {
    let _alone = ALONE.lock();
    let home = Home::new();
    let (slots, apart) = (1_000, 100_000);
    let codec = PlainCodec::new(&[64], 64).unwrap();
    let store = Store::builder().capacity(limits::CAPACITY_MAX).create(&home.path, codec).unwrap();
    let mut transaction = store.begin_write();
    transaction.insert_all(&records(&[64], gaussian(slots as usize * 64, 5))).unwrap();
    transaction.commit().unwrap();
    store.close().unwrap();
    move_rows(&home, (1..slots).map(|slot| (slot, slot * apart)));
    let (store, peak, _) = measured(|| Store::open(&home.path).unwrap());
    let stated = store.stats().unwrap().memory_bytes as usize;
    assert!(
        stated < slots as usize * 50_000 && peak < stated + BESIDE,
        "{stated} stated, {peak} at the peak"
    );
    let found: Vec<u32> = store.iter().unwrap().map(|entry| entry.unwrap().id().slot).collect();
    assert_eq!(found, (0..slots).map(|slot| slot * apart).collect::<Vec<_>>());
    drop(store);
    let limited = || Store::builder().memory_limit(16 << 20).open(&home.path).map(drop);
    let (result, peak, left) = measured(limited);
    let Err(Error::MemoryLimit { needed, limit: 0x100_0000, .. }) = result else { panic!("{result:?}") };
    assert!(needed > 16 << 20 && peak < BESIDE + (16 << 20), "{needed} needed, {peak} at the peak");
    assert!(left < 1 << 20, "{left} are left of a refusal");
    let error = Store::builder().memory_limit(1 << 20).open_read_only(&home.path).unwrap_err();
    assert!(error.to_string().contains("1048576 are allowed"), "{error}");
    assert!(Store::verify(&home.path).run().unwrap().ok, "refused, and whole");
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
    one_memory(&home, limits::CAPACITY_MAX);
    move_rows(&home, [(0, limits::CAPACITY_MAX - 1)].into_iter());
    std::fs::OpenOptions::new().write(true).open(&home.path).unwrap().set_len(1 << 31).unwrap();
    let (result, peak, _) = measured(|| Store::open(&home.path).map(|store| store.len()));
    assert!(peak < 64 << 20, "{peak}");
    assert_eq!(result.unwrap(), 1);
}
