//! Which policy keeps what will be wanted: hit rates of every policy on three traces, in numbers and pictures.
//!
//! `cargo run --release --example policies -- --out docs/policies [--data DIR] [--json]`
//!
//! - `drift`: keys by Zipf's law, whose favourites wander: every 5,000 requests they are others, by a tenth.
//! - `scans`: keys by Zipf's law, and every 2,000 requests 1,000 keys one after the other that nobody wants
//!   again.
//! - `paragraphs`: a semantic cache. Paragraphs of one document after another ask for something said alike
//!   (cosine at least 0.6) and are put in where there is nothing. From `DIR/text-embeddings`, where the rows of
//!   a document are in no order; left out without `--data`.

use apcm::ingest::Dataset;
use apcm::{Attributes, InMemoryBackend, PlainCodec, Policy, Record, Store};
use apcm_cli::pictures::{Curve, Plot};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};

const KEYS: usize = 10_000;
const REQUESTS: usize = 100_000;
const PARAGRAPHS: usize = 12_000;
const SIMILAR: f32 = 0.6;

/// Shares of a trace's different keys that the store has slots for, as one in so many.
const SHARES: [usize; 6] = [128, 64, 32, 16, 8, 4];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(PathBuf::from)
    };
    let mut rows = Vec::new();
    for (name, trace) in [("drift", drift()), ("scans", scans())] {
        measure(name, KEYS, &mut rows, |policy, slots| match policy {
            Some(policy) => by_key(&trace, policy, slots),
            None => Ok(Some(with_foresight(&trace, slots))),
        })?;
    }
    if let Some(data) = option("--data") {
        let queries = paragraphs(&data)?;
        measure("paragraphs", queries.len(), &mut rows, |policy, slots| {
            policy.map(|policy| by_meaning(&queries, policy, slots)).transpose()
        })?;
    }
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{}", serde_json::json!({ "rows": rows.iter().map(Row::json).collect::<Vec<_>>() }));
    } else {
        rows.iter().for_each(|row| {
            println!(
                "{:<11} {:<16} {:>6} slots {:>6.2} %",
                row.trace,
                row.policy,
                row.slots,
                100.0 * row.rate
            );
        });
    }
    if let Some(folder) = option("--out") {
        draw(&rows, &folder)?;
    }
    Ok(())
}

struct Row {
    trace: &'static str,
    policy: String,
    slots: usize,
    rate: f64,
}

impl Row {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "trace": self.trace, "policy": self.policy, "slots": self.slots, "hit_rate": self.rate })
    }
}

/// Runs a trace with every policy, and with none: whoever knows the future.
fn measure(
    trace: &'static str,
    keys: usize,
    rows: &mut Vec<Row>,
    run: impl Fn(Option<Policy>, usize) -> apcm::Result<Option<f64>>,
) -> apcm::Result<()> {
    for share in SHARES.iter().rev() {
        let slots = keys / share;
        let aged = Policy::LfuAged { half_life: 8 * slots as u32 };
        let policies = [Some(Policy::Lfu), Some(aged), Some(Policy::Lru), Some(Policy::Fifo), None];
        for policy in policies {
            let name = match policy {
                Some(Policy::LfuAged { .. }) => "lfu-aged, 8 x".to_owned(),
                Some(policy) => policy.to_string(),
                None => "foresight".to_owned(),
            };
            if let Some(rate) = run(policy, slots)? {
                rows.push(Row { trace, policy: name, slots, rate });
            }
        }
    }
    Ok(())
}

fn store(policy: Policy, slots: usize, dims: usize) -> apcm::Result<Store> {
    let builder = Store::builder().capacity(slots as u32).policy(policy).clock(|| 0);
    builder.create_on(InMemoryBackend::new(), PlainCodec::new(&[dims], dims)?)
}

/// Asks for each key, and puts it in where it is not there.
fn by_key(trace: &[usize], policy: Policy, slots: usize) -> apcm::Result<Option<f64>> {
    let store = store(policy, slots, 1)?;
    let record = Record::vector(vec![1.0])?;
    let mut hits = 0;
    for key in trace {
        let key = key.to_le_bytes();
        if store.get(&key)?.is_some() {
            hits += 1;
        } else {
            store.put(&key, &record, Attributes::default())?;
        }
    }
    Ok(Some(f64::from(hits) / trace.len() as f64))
}

/// Asks for what is near each query, and puts the query in where nothing is near enough.
fn by_meaning(queries: &[Record], policy: Policy, slots: usize) -> apcm::Result<f64> {
    let store = store(policy, slots, queries[0].values().len())?;
    let mut hits = 0;
    for query in queries {
        if store.search(query).k(1).min_similarity(SIMILAR).counted().run()?.is_empty() {
            store.insert(query)?;
        } else {
            hits += 1;
        }
    }
    Ok(f64::from(hits) / queries.len() as f64)
}

/// Belady's rule: what is wanted again last, or never, is evicted.
fn with_foresight(trace: &[usize], slots: usize) -> f64 {
    let mut following = vec![usize::MAX; trace.len()];
    let mut seen = HashMap::new();
    for (at, key) in trace.iter().enumerate().rev() {
        following[at] = seen.insert(key, at).unwrap_or(usize::MAX);
    }
    let (mut held, mut order, mut hits) = (HashMap::new(), BTreeSet::new(), 0);
    for (at, &key) in trace.iter().enumerate() {
        let next = following[at];
        if let Some(due) = held.insert(key, next) {
            order.remove(&(due, key));
            hits += 1;
        }
        order.insert((next, key));
        if held.len() > slots
            && let Some((_, last)) = order.pop_last()
        {
            held.remove(&last);
        }
    }
    f64::from(hits) / trace.len() as f64
}

/// Numbers in 0 .. 1 that are the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Ranks from 0, by Zipf's law with exponent 0.9.
fn zipf() -> impl FnMut() -> usize {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=KEYS)
        .map(|rank| {
            sum += (rank as f64).powf(-0.9);
            sum
        })
        .collect();
    let mut random = Random(42);
    move || {
        let drawn = random.next() * sum;
        cumulative.partition_point(|&below| below < drawn).min(KEYS - 1)
    }
}

fn drift() -> Vec<usize> {
    let mut rank = zipf();
    // A tenth of the ranks, spread over all of them, change hands at a time.
    (0..REQUESTS)
        .map(|at| {
            let rank = rank();
            let generation = (at / 5_000 + 9 - rank % 10) / 10;
            (rank + generation * 3_331) % KEYS
        })
        .collect()
}

fn scans() -> Vec<usize> {
    let mut rank = zipf();
    let mut trace = Vec::with_capacity(REQUESTS);
    let mut unwanted = KEYS;
    while trace.len() < REQUESTS {
        trace.extend((0..2_000).map(|_| rank()));
        trace.extend(unwanted..unwanted + 1_000);
        unwanted += 1_000;
    }
    trace.truncate(REQUESTS);
    trace
}

/// Embeddings of paragraphs, document by document.
fn paragraphs(data: &Path) -> Result<Vec<Record>, Box<dyn Error>> {
    let folder = data.join("text-embeddings");
    let records = Dataset::open(folder.join("train.npy"))?.load()?;
    let lines = std::fs::File::open(folder.join("train.jsonl.gz"))?;
    let mut documents: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    let lines = std::io::BufReader::new(flate2::read::GzDecoder::new(lines));
    for (row, line) in std::io::BufRead::lines(lines).enumerate() {
        let line: serde_json::Value = serde_json::from_str(&line?)?;
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        documents.entry((text("source"), text("doc"))).or_default().push(row);
    }
    Ok(documents.into_values().flatten().take(PARAGRAPHS).map(|row| records.get(row)).collect())
}

fn draw(rows: &[Row], folder: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let titles = [
        ("drift", "Zipf, favourites wander: hit rate [%]"),
        ("scans", "Zipf, a third are scans: hit rate [%]"),
        ("paragraphs", "paragraphs, a semantic cache: hit rate [%]"),
    ];
    for (trace, title) in titles {
        let mut names: Vec<&str> = Vec::new();
        let these = || rows.iter().filter(|row| row.trace == trace);
        these().for_each(|row| {
            if !names.contains(&row.policy.as_str()) {
                names.push(&row.policy);
            }
        });
        let curves: Vec<Curve<'_>> = names
            .into_iter()
            .map(|name| {
                let line = these().filter(|row| row.policy == name);
                Curve { name, points: line.map(|row| (row.slots as f64, 100.0 * row.rate)).collect() }
            })
            .collect();
        if !curves.is_empty() {
            let plot = Plot { title, across: "slots", logarithmic: true, curves: &curves };
            plot.save(&folder.join(format!("{trace}.png")))?;
        }
    }
    Ok(())
}
