//! The records of a report, and the nearest neighbours among them.

use super::options::Report;
use crate::train::groups;
use apcm::codec::{Codec, PlainCodec};
use apcm::ingest::Dataset;
use apcm::{Error, Records, Result, Similarity, Store};
use std::path::Path;

/// Neighbours that count.
pub(crate) const NEIGHBOURS: usize = 10;
/// Most queries of the recall; a fifth of the held-out records where those are few.
const QUERIES_MAX: usize = 1_000;

/// The records a report is about.
pub(crate) struct Data {
    pub(crate) training: Records,
    pub(crate) held_out: Records,
    /// What each training record belongs to.
    pub(crate) groups: Option<Vec<usize>>,
    /// The held-out records that a store is filled with, and those it is asked for.
    pub(crate) stored: Records,
    pub(crate) queries: Records,
    /// Of each query, the rows of `stored` that are nearest by the originals.
    pub(crate) truth: Vec<Vec<usize>>,
    pub(crate) similarity: Similarity,
    /// Bytes of a record as its file has it.
    pub(crate) record_bytes: usize,
}

impl Data {
    pub(crate) fn load(arguments: &Report) -> Result<Self> {
        let dataset = Dataset::open(&arguments.train)?;
        let all = dataset.load_range(0..arguments.limit.unwrap_or(u64::MAX))?;
        let groups = groups(&arguments.groups, &arguments.train, all.len())?;
        let (training, held_out, groups) = match &arguments.heldout {
            Some(path) => (all, Dataset::open_as(path, dataset.shape())?.load()?, groups),
            None => {
                // Every tenth record, or every tenth group of them: what goes with a record that judges is not
                // learned from.
                let judges = |row: usize| groups.as_ref().map_or(row, |groups| groups[row]) % 10 == 9;
                let pick = |wanted: bool| {
                    let mut records = Records::with_dims(&all.shape().dims())?;
                    let rows = all.rows().enumerate().filter(|(row, _)| judges(*row) == wanted);
                    rows.map(|(_, row)| row).try_for_each(|row| records.push_values(row))?;
                    Ok::<_, Error>(records)
                };
                let left = groups.as_ref().map(|groups| {
                    groups
                        .iter()
                        .enumerate()
                        .filter(|(row, _)| !judges(*row))
                        .map(|(_, &group)| group)
                        .collect()
                });
                (pick(false)?, pick(true)?, left)
            }
        };
        if training.len() < 2 || held_out.len() < 2 {
            let needed = if arguments.heldout.is_some() { 2 } else { 20 };
            let records = training.len().min(held_out.len());
            return Err(Error::TooLittleData { records, needed, purpose: "a report".to_owned() });
        }
        let asked = (held_out.len() / 5).clamp(1, QUERIES_MAX);
        let stored = held_out.slice(0..held_out.len() - asked);
        let queries = held_out.slice(held_out.len() - asked..held_out.len());
        let similarity = arguments.similarity.into();
        let truth = exact_neighbours(&training, &stored, &queries, similarity)?;
        let record_bytes = dataset.record_bytes();
        Ok(Self { training, held_out, groups, stored, queries, truth, similarity, record_bytes })
    }
}

/// The nearest by the originals: a store that keeps every value answers that. Under centred cosine it is given
/// the differences from the training mean.
fn exact_neighbours(
    training: &Records,
    stored: &Records,
    queries: &Records,
    similarity: Similarity,
) -> Result<Vec<Vec<usize>>> {
    let values = training.shape().values();
    let mean = match similarity {
        Similarity::CentredCosine => training.mean(),
        Similarity::Cosine => vec![0.0; values],
    };
    let centred = |records: &Records| {
        let mut centred = Records::with_dims(&[values])?;
        for row in records.rows() {
            let row: Vec<f32> = row.iter().zip(&mean).map(|(&x, mean)| x - mean).collect();
            centred.push_values(&row)?;
        }
        Ok::<_, Error>(centred)
    };
    let folder = tempfile::tempdir().map_err(Error::io(Path::new("a temporary folder")))?;
    let codec = PlainCodec::new(&[values], values)?;
    let (store, slots) =
        filled(&folder.path().join("exact.apcm"), Box::new(codec), &centred(stored)?, Similarity::Cosine)?;
    neighbours(&store, &slots, &centred(queries)?)
}

/// A store with these records in it, and the row of each slot.
pub(crate) fn filled(
    path: &Path,
    codec: Box<dyn Codec>,
    records: &Records,
    similarity: Similarity,
) -> Result<(Store, Vec<usize>)> {
    let store = Store::builder().capacity(records.len() as u32).similarity(similarity).create(path, codec)?;
    let mut slots = vec![0; records.len()];
    let mut row = 0;
    while row < records.len() {
        let end = (row + 2_048).min(records.len());
        let mut transaction = store.begin_write();
        transaction.insert_all(&records.slice(row..end))?;
        for id in transaction.commit()?.ids {
            slots[id.slot as usize] = row;
            row += 1;
        }
    }
    Ok((store, slots))
}

pub(crate) fn neighbours(store: &Store, slots: &[usize], queries: &Records) -> Result<Vec<Vec<usize>>> {
    let answers = store.search_many(queries).k(NEIGHBOURS).run_all()?;
    Ok(answers.iter().map(|hits| hits.iter().map(|hit| slots[hit.id.slot as usize]).collect()).collect())
}
