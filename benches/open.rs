//! How long does opening take? `cargo bench --bench open`
#![allow(missing_docs, reason = "a benchmark")]

use apcm::{Pack, PlainCodec, Records, Result, Store};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;

const SLOTS: usize = 50_000;
const DIMS: usize = 60;

fn fill(store: &Path, pack: &Path) -> Result<()> {
    let store = Store::builder().capacity(SLOTS as u32).create(store, PlainCodec::new(&[DIMS], DIMS)?)?;
    let values = (0..SLOTS * DIMS).map(|i| ((i as f32) * 0.618).sin()).collect();
    let mut transaction = store.begin_write();
    transaction.insert_all(&Records::from_values(store.description().shape, values)?)?;
    transaction.commit()?;
    store.export_pack(pack).run()?;
    store.close()
}

fn open(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let (store, pack) = (folder.path().join("m.apcm"), folder.path().join("m.apack"));
    fill(&store, &pack).unwrap_or_else(|error| panic!("{error}"));
    let mut group = criterion.benchmark_group("open, 50,000 slots of 64 bytes");
    group.sample_size(20);
    group.bench_function("store", |bencher| bencher.iter(|| done(Store::open(&store))));
    group.bench_function("store, for reading", |bencher| {
        bencher.iter(|| done(Store::open_read_only(&store)));
    });
    group.bench_function("pack", |bencher| bencher.iter(|| done(Pack::open(&pack))));
    group.finish();
}

/// What was asked for; an error is no fast success.
fn done<T>(result: Result<T>) -> T {
    black_box(result.unwrap_or_else(|error| panic!("{error}")))
}

criterion_group!(benches, open);
criterion_main!(benches);
