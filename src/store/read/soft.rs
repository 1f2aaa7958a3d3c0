//! Soft reads: the blend of the nearest memories, weighted by how near they are.

use crate::codec::StoredCode;
use crate::error::{Error, Result};
use crate::memory::Hit;
use crate::record::{Record, Records};
use crate::search::SearchRequest;
use crate::store::engine::Engine;
use crate::store::store::Store;
use crate::stored::{Stored, corrupt_code};

/// Default temperature: a cosine lower by 0.05 weighs a third.
const TEMPERATURE: f32 = 0.05;
/// Default number of memories to blend.
const BLENDED: usize = 16;

/// A soft read under construction; [`run`](Self::run) answers it.
///
/// ```
/// # use apcm::{PlainCodec, Record, Store};
/// # fn main() -> apcm::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let store = Store::builder().create(folder.path().join("m.apcm"), PlainCodec::new(&[2], 2)?)?;
/// store.insert(&Record::vector(vec![1.0, 0.0])?)?;
/// store.insert(&Record::vector(vec![0.0, 1.0])?)?;
/// let between = Record::vector(vec![1.0, 1.0])?;
/// let Some(blend) = store.read_soft(&between).temperature(0.1).run()? else { return Ok(()) };
/// assert_eq!(blend.shares.len(), 2);
/// assert!((blend.record.values()[0] - 0.5).abs() < 1e-3);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is read until it is run"]
pub struct SoftRead<'a> {
    engine: &'a Engine,
    request: SearchRequest,
    temperature: f32,
    counted: bool,
}

/// What a soft read gives back.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct SoftMemory {
    /// The blend of the codes, reconstructed.
    pub record: Record,
    /// The memories that were blended, heaviest first; their weights add up to 1.
    pub shares: Vec<SoftShare>,
}

/// One memory's part in a blend.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct SoftShare {
    /// The memory, without its record.
    pub memory: Hit,
    /// Its weight: `exp(similarity / temperature)`, over the sum of all.
    pub weight: f32,
}

impl<'a> SoftRead<'a> {
    pub(crate) fn new(engine: &'a Engine, query: &Record) -> Self {
        let request = SearchRequest { k: BLENDED, parts: false, ..SearchRequest::new(Records::from(query)) };
        Self { engine, request, temperature: TEMPERATURE, counted: true }
    }

    /// How soft: 0.05 by default; the papers have 1, which blends everything with nearly everything. At 0 this
    /// reads what [`read`](crate::Store::read) reads.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// How many of the nearest memories at most; 16 by default. The papers blend all: give the store's
    /// capacity.
    pub fn k(mut self, k: usize) -> Self {
        self.request.k = k;
        self
    }

    /// Leaves the strongest memory uncounted.
    pub fn not_counted(mut self) -> Self {
        self.counted = false;
        self
    }

    /// Reads and counts an access of the strongest memory; `None` from an empty store.
    ///
    /// Cost: one search, one decoding. Parts of streams have no code to blend, and are passed over, except at a
    /// temperature of 0. What fidelity tiers add to a memory is not part of a blend: it has no coordinates.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for a temperature that is negative or no number, and for `k` = 0;
    /// [`RecordShape`](Error::RecordShape), [`Corrupt`](Error::Corrupt).
    pub fn run(self) -> Result<Option<SoftMemory>> {
        if self.temperature.is_nan() || self.temperature < 0.0 {
            return Err(Error::argument("the temperature", "0 or more", self.temperature));
        }
        self.request.check()?;
        let request = match self.temperature {
            // One is all there is: no other has to be readable.
            0.0 => SearchRequest { k: 1, parts: true, ..self.request },
            _ => self.request,
        };
        let Some(found) = self.engine.found(&request)?.pop().filter(|found| !found.is_empty()) else {
            return Ok(None);
        };
        let weights = softmax(found.iter().map(|(_, similarity)| *similarity), self.temperature);
        let found: Vec<((Stored, f32), f32)> =
            found.into_iter().zip(weights).filter(|(_, weight)| *weight > 0.0).collect();
        let record = match found.as_slice() {
            [((only, _), _)] => self.engine.decode(only)?,
            many => {
                let codes: Vec<StoredCode<'_>> = many.iter().map(|((stored, _), _)| stored.code()).collect();
                let weights: Vec<f32> = many.iter().map(|(_, weight)| *weight).collect();
                let blended = self.engine.codec.blend(&codes, &weights);
                blended.map_err(|error| corrupt_code(many[0].0.0.id.slot, error))?.get(0)
            }
        };
        let shares: Vec<SoftShare> = found
            .into_iter()
            .map(|((stored, similarity), weight)| SoftShare {
                memory: stored.into_hit(similarity, None),
                weight,
            })
            .collect();
        if let Some(strongest) = shares.first() {
            self.engine.count(strongest.memory.id, self.counted);
        }
        Ok(Some(SoftMemory { record, shares }))
    }
}

/// Weights of similarities that come greatest first. Nothing overflows: the greatest is taken off all.
fn softmax(similarities: impl Iterator<Item = f32> + Clone, temperature: f32) -> Vec<f32> {
    let greatest = similarities.clone().next().unwrap_or(0.0);
    let heat = f64::from(temperature);
    let weigh = |(number, similarity): (usize, f32)| {
        let below = f64::from(similarity) - f64::from(greatest);
        match heat {
            // The first of equals, as a hard read has it.
            0.0 => f64::from(u8::from(number == 0)),
            _ => (below / heat).exp(),
        }
    };
    // Drop weights below rounding error.
    let counts = |weight: f64| if weight < f64::from(f32::EPSILON) / 2.0 { 0.0 } else { weight };
    let weights: Vec<f64> = similarities.enumerate().map(|one| counts(weigh(one))).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| (weight / sum) as f32).collect()
}

impl Store {
    /// Starts a soft read: the blend of the nearest memories, weighted by how near they are. See [`SoftRead`].
    pub fn read_soft<'a>(&'a self, query: &Record) -> SoftRead<'a> {
        SoftRead::new(&self.engine, query)
    }
}
