//! `apcm demo`: the main job on real images, end to end, and a table a person understands.

use crate::outcome::Outcome;
use crate::{output, pictures};
use apcm::codec::{Codec, Encoded, FlowCodec, QuantizerSpec};
use apcm::ingest::Dataset;
use apcm::report::psnr_db;
use apcm::{Attributes, Device, Error, Records, Result, Store};
use apcm::{MemoryId, Similarity};
use clap::Args;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Folder for memory.apcm and the pictures
    #[arg(long, default_value = "apcm-demo")]
    pub(crate) out: PathBuf,
    /// Images to use instead of those of the project: idx or idx.gz, 10,000 of 28x28
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Where to compute
    #[arg(long, default_value = "cpu")]
    pub(crate) device: Device,
}

const DATA: &str = "examples/data/fashion-mnist/t10k-images-idx3-ubyte.gz";
const SIDES: [usize; 2] = [28, 28];
const TRAINED: u64 = 8_000;
const HELD_OUT: u64 = 2_000;
const CAPACITY: u32 = 1_500;
const READ: usize = 200;
const BYTES: usize = 64;
/// Steps of training: about half a minute on two cores.
const STEPS: usize = 700;
/// Standard deviation of the noise on a query's pixels, which lie in `[0, 1]`.
const NOISE: f32 = 0.1;
const SEED: u64 = 7;

/// What the demo found; the document of `--json`.
#[derive(Debug, Serialize)]
struct Found {
    records_trained: usize,
    records_heldout: usize,
    /// Of the records that end up stored, one byte a pixel.
    source_bytes: u64,
    /// Mean a record.
    code_bytes: f64,
    /// Mean a record, with everything the slot stores.
    slot_bytes: f64,
    model_bytes: u64,
    file_bytes: u64,
    /// Records from which on codec and slots take less than the source.
    break_even_records: u64,
    psnr_db: f64,
    pca_psnr_db: f64,
    capacity: u32,
    inserted: usize,
    evicted: usize,
    evicted_keys: Vec<String>,
    /// Of the memories that were read before the store filled up, how many are still there.
    lfu_survivors: usize,
    lfu_read: usize,
    noisy_queries: usize,
    noisy_hit_rate: f64,
    noisy_hit_rate_reopened: f64,
    counts_kept: usize,
    reopened_ok: bool,
    train_seconds: f64,
    total_seconds: f64,
    out: String,
}

pub(crate) fn run(arguments: &Demo, json: bool) -> Outcome {
    let found = demo(arguments)?;
    output::result(json, &found, || text(&found))
}

fn demo(arguments: &Demo) -> Result<Found> {
    let began = Instant::now();
    let dataset = Dataset::open(data_path(arguments)?)?;
    if dataset.len() < TRAINED + HELD_OUT || dataset.shape().dims() != SIDES {
        return Err(Error::Dataset {
            path: dataset.path().to_owned(),
            cause: format!(
                "the demo needs {} images of {SIDES:?}, found {} of {}",
                TRAINED + HELD_OUT,
                dataset.len(),
                dataset.shape()
            ),
        });
    }
    let out = &arguments.out;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let path = out.join("memory.apcm");
    // A demo is run again; the store of the last run is deleted. Anything else of that name is left alone.
    if path.exists() {
        if !is_demo_store(&path)? {
            return Err(Error::Exists { path });
        }
        std::fs::remove_file(&path).map_err(Error::io(&path))?;
    }
    let training = dataset.load_range(0..TRAINED)?;
    let held_out = dataset.load_range(TRAINED..TRAINED + HELD_OUT)?;

    let bar = output::bar(STEPS as u64, "training");
    let trained = FlowCodec::trainer(&training)
        .bytes_per_record(BYTES)
        .steps(STEPS)
        .device(arguments.device)
        .progress(|progress| {
            bar.set_position(progress.done);
            ControlFlow::Continue(())
        })
        .train()?;
    bar.finish_and_clear();
    let train_seconds = trained.report.seconds;
    let psnr = mean_psnr(&trained.codec.encode(&held_out)?);
    let pca_psnr = mean_psnr(&FlowCodec::pca(&training, QuantizerSpec::I8(BYTES))?.encode(&held_out)?);
    if let Some(stage) = trained.report.stages.first() {
        pictures::loss_curve(&out.join("loss.png"), stage)?;
    }

    let store = Store::builder()
        .capacity(CAPACITY)
        .similarity(Similarity::CentredCosine)
        .create(&path, trained.codec)?;
    let first = CAPACITY as usize;
    put_images(&store, &held_out, 0..first)?;
    // Every seventh image is asked for, and found by its own likeness: these reads count.
    let read: Vec<usize> = (0..first).step_by(first / READ).take(READ).collect();
    for &index in &read {
        store.read(&held_out.get(index))?;
    }
    let evicted = put_images(&store, &held_out, first..HELD_OUT as usize)?;
    let mut survivors: Vec<(Vec<u8>, MemoryId, u32)> = Vec::new();
    for &index in &read {
        if let Some(id) = store.id_of(&key(index))? {
            survivors.push((key(index), id, store.access_count(id).unwrap_or(0)));
        }
    }
    let noisy = NoisyQueries::new(&store, &held_out)?;
    let noisy_hit_rate = noisy.hit_rate(&store)?;
    draw(&store, &held_out, &out.join("reconstructions.png"))?;
    store.close()?;

    let store = Store::open(&path)?;
    let noisy_hit_rate_reopened = noisy.hit_rate(&store)?;
    let kept = |(key, id, count): &&(Vec<u8>, MemoryId, u32)| {
        store.id_of(key).is_ok_and(|found| found == Some(*id)) && store.access_count(*id) == Some(*count)
    };
    let counts_kept = survivors.iter().filter(kept).count();
    let stats = store.stats()?;
    store.close()?;

    let pixels = training.shape().values() as f64;
    Ok(Found {
        records_trained: TRAINED as usize,
        records_heldout: HELD_OUT as usize,
        source_bytes: u64::from(stats.occupied) * pixels as u64,
        code_bytes: stats.code_bytes,
        slot_bytes: stats.slot_bytes,
        model_bytes: stats.codec.bytes,
        file_bytes: std::fs::metadata(&path).map_err(Error::io(&path))?.len(),
        break_even_records: (stats.codec.bytes as f64 / (pixels - stats.slot_bytes)).ceil() as u64,
        psnr_db: psnr,
        pca_psnr_db: pca_psnr,
        capacity: stats.capacity,
        inserted: HELD_OUT as usize,
        evicted: evicted.len(),
        evicted_keys: evicted,
        lfu_survivors: survivors.len(),
        lfu_read: read.len(),
        noisy_queries: noisy.len(),
        noisy_hit_rate,
        noisy_hit_rate_reopened,
        counts_kept,
        reopened_ok: noisy_hit_rate_reopened == noisy_hit_rate && counts_kept == survivors.len(),
        train_seconds,
        total_seconds: began.elapsed().as_secs_f64(),
        out: out.display().to_string(),
    })
}

fn data_path(arguments: &Demo) -> Result<PathBuf> {
    if let Some(path) = &arguments.data {
        return Ok(path.clone());
    }
    // Run from the project's folder, or by `cargo run` from anywhere inside it.
    [PathBuf::from(DATA), Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(DATA)]
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| {
            Error::argument("the demo's images", format!("in {DATA}, or named by --data"), "neither")
        })
}

/// Whether a demo made this store: it has the demo's size and only the demo's keys.
fn is_demo_store(path: &Path) -> Result<bool> {
    let store = Store::open(path)?;
    let mut ours = store.description().capacity == CAPACITY;
    for entry in store.iter()? {
        ours &= entry?.key().is_some_and(|key| key.starts_with(b"image/"));
    }
    Ok(ours)
}

fn key(index: usize) -> Vec<u8> {
    format!("image/{index}").into_bytes()
}

/// Puts held-out images in, in batches; gives the keys of those that were evicted.
fn put_images(store: &Store, images: &Records, range: std::ops::Range<usize>) -> Result<Vec<String>> {
    let attributes = range.clone().map(|index| (Some(key(index)), Attributes::default()));
    let mut transaction = store.begin_write();
    transaction.write_all(&images.slice(range.clone()), attributes)?;
    let done = transaction.commit()?;
    Ok(done.evicted.iter().filter_map(|evicted| evicted.key.as_deref()).map(output::key_text).collect())
}

/// Every stored image, with noise on each pixel.
struct NoisyQueries {
    keys: Vec<Vec<u8>>,
    queries: Records,
}

impl NoisyQueries {
    fn new(store: &Store, images: &Records) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut gaussian = move || {
            // Box and Muller; 1 - u keeps the logarithm finite.
            let (u, v): (f32, f32) = (rng.random(), rng.random());
            (-2.0 * (1.0 - u).ln()).sqrt() * (std::f32::consts::TAU * v).cos()
        };
        let mut keys = Vec::new();
        let mut queries = Records::new(images.shape());
        for index in 0..images.len() {
            if store.contains(&key(index))? {
                let noisy: Vec<f32> =
                    images.row(index).iter().map(|pixel| pixel + NOISE * gaussian()).collect();
                queries.push_values(&noisy)?;
                keys.push(key(index));
            }
        }
        Ok(Self { keys, queries })
    }

    fn len(&self) -> usize {
        self.keys.len()
    }

    /// How often the nearest memory is the one the noise was put on. Searches count nothing.
    fn hit_rate(&self, store: &Store) -> Result<f64> {
        let answers = store.search_many(&self.queries).k(1).run_all()?;
        let own = answers.iter().zip(&self.keys).filter(|(hits, key)| {
            hits.first().and_then(|hit| hit.key.as_ref()).is_some_and(|found| found == *key)
        });
        Ok(own.count() as f64 / self.len().max(1) as f64)
    }
}

/// Originals over what the store gives back, evenly picked among what is stored.
fn draw(store: &Store, images: &Records, path: &Path) -> Result<()> {
    const COLUMNS: usize = 14;
    const SHOWN: usize = 3 * COLUMNS;
    let (mut originals, mut decoded) = (Records::new(images.shape()), Records::new(images.shape()));
    let stored = (0..images.len()).filter(|&index| store.contains(&key(index)).unwrap_or(false));
    for index in stored.step_by(CAPACITY as usize / SHOWN).take(SHOWN) {
        if let Some(memory) = store.peek_key(&key(index))? {
            originals.push(&images.get(index))?;
            decoded.push(&memory.record)?;
        }
    }
    pictures::reconstructions(path, &originals, &decoded, COLUMNS, 2)
}

fn mean_psnr(encoded: &[Encoded]) -> f64 {
    psnr_db(encoded.iter().map(|encoded| f64::from(encoded.error)).sum::<f64>() / encoded.len() as f64)
}

fn text(found: &Found) -> String {
    let percent = |rate: f64| format!("{:.1} %", rate * 100.0);
    let stored = found.source_bytes / (SIDES[0] * SIDES[1]) as u64;
    let rows = [
        (
            "trained on",
            format!("{} images, {:.0} s", output::count(found.records_trained as u64), found.train_seconds),
        ),
        (
            "images stored",
            format!(
                "{} of {} shown to the store",
                output::count(stored),
                output::count(found.inserted as u64)
            ),
        ),
        ("their pixels", output::bytes(found.source_bytes as f64)),
        (
            "their codes",
            format!(
                "{} ({:.0} bytes each, {:.1} with all that is stored for one)",
                output::bytes(found.code_bytes * stored as f64),
                found.code_bytes,
                found.slot_bytes
            ),
        ),
        (
            "the codec",
            format!(
                "{}, pays for itself from {} images on",
                output::bytes(found.model_bytes as f64),
                output::count(found.break_even_records)
            ),
        ),
        ("the file", output::bytes(found.file_bytes as f64)),
        (
            "fidelity, held out",
            format!(
                "{:.2} dB; principal components in the same bytes (int8): {:.2} dB",
                found.psnr_db, found.pca_psnr_db
            ),
        ),
        (
            "evicted, least used",
            format!(
                "{}; {} of {} that had been read are still there",
                found.evicted, found.lfu_survivors, found.lfu_read
            ),
        ),
        (
            "found by a noisy copy",
            format!(
                "{} of {} (after reopening: {})",
                percent(found.noisy_hit_rate),
                output::count(found.noisy_queries as u64),
                percent(found.noisy_hit_rate_reopened)
            ),
        ),
        (
            "kept across reopening",
            format!(
                "access counts of {} of {} memories{}",
                found.counts_kept,
                found.lfu_survivors,
                if found.reopened_ok { "" } else { ": NOT ALL" }
            ),
        ),
        ("time", format!("{:.0} s in all", found.total_seconds)),
    ];
    let out = &found.out;
    format!(
        "{}\n\nLook at {out}/reconstructions.png and {out}/loss.png, and try:\n  apcm stats {out}/memory.apcm\n  apcm list {out}/memory.apcm --limit 5",
        output::table(&rows)
    )
}
