//! Does appending to a stream cost more the longer it is? `cargo bench --bench append`
//!
//! Two streams of a store, one of a thousand and one of a hundred thousand records, take turns.
#![allow(missing_docs, reason = "a benchmark")]

use apcm::{PlainCodec, Record, Records, Store, Stream, SweeperTree};
use criterion::{BatchSize, Bencher, Criterion, criterion_group, criterion_main};

const DIMS: usize = 64;
/// Records of a part, and numbers of its state.
const PART: usize = 64;
const STATE: usize = 256;

fn records(count: usize) -> Records {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let shape = apcm::RecordShape::new(&[DIMS]).unwrap_or_else(|error| panic!("{error}"));
    let values = (0..count * DIMS).map(|_| next()).collect();
    Records::from_values(shape, values).unwrap_or_else(|error| panic!("{error}"))
}

fn created(folder: &std::path::Path) -> apcm::Result<Store> {
    let seen = records(64 * PART);
    let tree = SweeperTree::trainer(&seen, &[PART; 64]).state(STATE).untrained().train()?.tree;
    let store =
        Store::builder().capacity(10_000).create(folder.join("m.apcm"), PlainCodec::new(&[DIMS], DIMS)?)?;
    store.set_sweeper_tree(tree)?;
    Ok(store)
}

/// The stream with as many records as that, or up to twice as many: what is measured makes it longer.
fn of_length(stream: &Stream<'_>, count: usize) -> apcm::Result<()> {
    if (count as u64..2 * count as u64).contains(&stream.len()?) {
        return Ok(());
    }
    stream.remove()?;
    let all = records(count);
    for first in (0..count).step_by(1_000) {
        stream.append_all(&all.slice(first..first + 1_000))?;
    }
    Ok(())
}

fn append(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let store = created(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    let one = Record::vector(vec![0.5; DIMS]).unwrap_or_else(|error| panic!("{error}"));
    let mut group = criterion.benchmark_group("durable append");
    for count in [1_000, 100_000] {
        let stream = store.stream(&count.to_string()).unwrap_or_else(|error| panic!("{error}"));
        let as_long = || of_length(&stream, count).unwrap_or_else(|error| panic!("{error}"));
        let append = |bencher: &mut Bencher<'_>| {
            bencher.iter_batched(as_long, |()| stream.append(&one), BatchSize::PerIteration);
        };
        group.bench_function(format!("to a stream of {count}"), append);
        let recall = |bencher: &mut Bencher<'_>| bencher.iter(|| stream.recall(500));
        group.bench_function(format!("recall from a stream of {count}"), recall);
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
