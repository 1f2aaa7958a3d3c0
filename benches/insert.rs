//! How long does a durable insert take, alone and in a batch? `cargo bench --bench insert`
#![allow(missing_docs, reason = "a benchmark")]

use apcm::{PlainCodec, Record, Records, Store};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const DIMS: usize = 64;

fn store(folder: &std::path::Path, name: &str) -> Store {
    let codec = PlainCodec::new(&[DIMS], DIMS);
    let created = codec.and_then(|codec| Store::builder().capacity(10_000).create(folder.join(name), codec));
    created.unwrap_or_else(|error| panic!("{error}"))
}

fn insert(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let mut group = criterion.benchmark_group("durable insert");
    let one = Record::vector(vec![0.5; DIMS]).unwrap_or_else(|error| panic!("{error}"));
    let alone = store(folder.path(), "one.apcm");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one", |bencher| bencher.iter(|| alone.insert(&one)));
    let batch =
        Records::from_values(one.shape(), vec![0.5; DIMS * 1_000]).unwrap_or_else(|error| panic!("{error}"));
    let together = store(folder.path(), "batch.apcm");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("a thousand in one transaction", |bencher| {
        bencher.iter(|| {
            let mut transaction = together.begin_write();
            transaction.insert_all(&batch)?;
            transaction.commit()
        });
    });
    group.finish();
}

criterion_group!(benches, insert);
criterion_main!(benches);
