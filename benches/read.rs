//! How long does a read take? `cargo bench --bench read`
#![allow(missing_docs, reason = "a benchmark")]

use apcm::{InMemoryBackend, PlainCodec, Record, Records, Result, Store};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

const DIMS: usize = 64;

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as f32) * 0.618).sin()).collect()
}

fn filled() -> Result<Store> {
    let store = Store::builder()
        .capacity(10_000)
        .create_on(InMemoryBackend::new(), PlainCodec::new(&[DIMS], DIMS)?)?;
    let shape = store.description().shape;
    let mut transaction = store.begin_write();
    transaction.insert_all(&Records::from_values(shape, values(9_999 * DIMS))?)?;
    transaction.put(b"one", &Record::vector(values(DIMS))?, apcm::Attributes::default())?;
    transaction.commit()?;
    Ok(store)
}

fn read(criterion: &mut Criterion) {
    let store = filled().unwrap_or_else(|error| panic!("{error}"));
    let query = Record::vector(values(DIMS)).unwrap_or_else(|error| panic!("{error}"));
    let mut group = criterion.benchmark_group("read, 10,000 slots");
    group.bench_function("nearest, counted", |bencher| bencher.iter(|| done(store.read(&query))));
    group.bench_function("nearest, not counted", |bencher| bencher.iter(|| done(store.peek(&query))));
    group.bench_function("by key", |bencher| bencher.iter(|| done(store.get(b"one"))));
    group.finish();
}

/// What was asked for; an error is no fast success.
fn done<T>(result: Result<T>) -> T {
    black_box(result.unwrap_or_else(|error| panic!("{error}")))
}

criterion_group!(benches, read);
criterion_main!(benches);
