//! How long does a search take? `cargo bench --bench scan`
#![allow(missing_docs, reason = "a benchmark")]

use apcm::{PlainCodec, Record, RecordShape, Records, Result, Store};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as f32) * 0.618).sin()).collect()
}

fn filled(slots: usize, dims: usize) -> Result<(tempfile::TempDir, Store)> {
    let folder = tempfile::tempdir().map_err(|source| apcm::Error::Io { path: "a folder".into(), source })?;
    let store = Store::builder()
        .capacity(slots as u32)
        .create(folder.path().join("bench.apcm"), PlainCodec::new(&[dims], dims)?)?;
    let mut transaction = store.begin_write();
    let shape: RecordShape = store.description().shape;
    transaction.insert_all(&Records::from_values(shape, values(slots * dims))?)?;
    transaction.commit()?;
    Ok((folder, store))
}

fn scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nearest ten");
    for (slots, dims) in [(10_000, 64), (20_000, 384)] {
        let Ok((_folder, store)) = filled(slots, dims) else { panic!("the store could not be filled") };
        let query = Record::vector(values(dims)).unwrap_or_else(|error| panic!("{error}"));
        group.throughput(Throughput::Bytes((slots * dims * 4) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{slots} x {dims}")), |bencher| {
            bencher.iter(|| black_box(store.search(&query).k(10).run()));
        });
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
