//! Searches: the nearest memories that meet a condition, in a store or in a pack.

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::index::{Scan, Wanted};
use crate::memory::Hit;
use crate::record::Records;
use std::fmt::Debug;

/// Where memories are looked for.
pub(crate) trait Searched: Debug + Sync {
    /// Answers a question whose numbers make sense: a list of hits for each query, nearest first, equals by slot.
    fn answer(&self, question: &Question) -> Result<Vec<Vec<Hit>>>;
}

/// What is looked for.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) queries: Records,
    pub(crate) k: usize,
    pub(crate) floor: f32,
    pub(crate) max_error: f32,
    pub(crate) filter: Option<Filter>,
    pub(crate) counted: bool,
    pub(crate) records: bool,
    pub(crate) scan: Scan,
    pub(crate) threads: Option<usize>,
}

impl Question {
    /// As the index takes it.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { k: self.k, floor: self.floor, scan: self.scan, threads: self.threads }
    }

    /// Whether a memory of this error is near enough to what went in.
    pub(crate) fn admits_error(&self, error: impl FnOnce() -> f32) -> bool {
        self.max_error == f32::INFINITY || error() <= self.max_error
    }
}

/// A search under construction; [`run`](Self::run) answers it.
///
/// ```
/// # use apcm::{Metadata, PlainCodec, Record, Store};
/// # fn main() -> apcm::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let store = Store::builder().create(folder.path().join("m.apcm"), PlainCodec::new(&[2], 2)?)?;
/// let note = Metadata::from([("kind".into(), "note".into())]);
/// store.put(b"a", &Record::vector(vec![1.0, 0.0])?, note)?;
/// let query = Record::vector(vec![0.9, 0.1])?;
/// let hits = store.search(&query).k(10).min_similarity(0.4).filter("kind = 'note'")?.run()?;
/// assert_eq!(hits[0].key.as_deref(), Some(&b"a"[..]));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a search does nothing until it is run"]
pub struct Search<'a> {
    among: &'a dyn Searched,
    question: Question,
}

impl<'a> Search<'a> {
    pub(crate) fn new(among: &'a dyn Searched, queries: Records) -> Self {
        let question = Question {
            queries,
            k: 10,
            floor: f32::NEG_INFINITY,
            max_error: f32::INFINITY,
            filter: None,
            counted: false,
            records: false,
            scan: Scan::Auto,
            threads: None,
        };
        Self { among, question }
    }

    /// How many hits at most; 10 by default.
    pub fn k(mut self, k: usize) -> Self {
        self.question.k = k;
        self
    }

    /// Least cosine of a hit.
    pub fn min_similarity(mut self, floor: f32) -> Self {
        self.question.floor = floor;
        self
    }

    /// Only memories whose measured error (mean squared, per element) is at most this. Applied before ranking, from
    /// memory: costs nothing.
    pub fn max_error(mut self, error: f32) -> Self {
        self.question.max_error = error;
        self
    }

    /// Only memories whose metadata meet a condition, in the language of [`Filter`]. It is applied before ranking,
    /// so a search finds `k` hits wherever that many meet it. Cost: reads all metadata once a search; in a
    /// pack, those of memories that are near enough.
    ///
    /// # Errors
    /// [`Filter`](Error::Filter) with the column of what was not expected.
    pub fn filter(mut self, condition: &str) -> Result<Self> {
        self.question.filter = Some(Filter::parse(condition)?);
        Ok(self)
    }

    /// Counts every hit as an access; searches count nothing by default, and packs and read-only handles never.
    pub fn counted(mut self) -> Self {
        self.question.counted = true;
        self
    }

    /// Decodes the hits' records too.
    pub fn with_records(mut self) -> Self {
        self.question.records = true;
        self
    }

    /// How to go over the search vectors; every way gives the same hits.
    pub fn scan(mut self, scan: Scan) -> Self {
        self.question.scan = scan;
        self
    }

    /// On how many threads, four a core at most; by default one, and all cores from about a million numbers on.
    pub fn threads(mut self, threads: usize) -> Self {
        self.question.threads = Some(threads.max(1));
        self
    }

    /// Answers the search: nearest first, equals by slot.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) for `k` = 0 or a floor that is not a number,
    /// [`RecordShape`](Error::RecordShape), [`Corrupt`](Error::Corrupt).
    pub fn run(self) -> Result<Vec<Hit>> {
        Ok(self.run_all()?.into_iter().next().unwrap_or_default())
    }

    /// Answers a search of several queries, each with a list of its own.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`Argument`](Error::Argument) for no query at all.
    pub fn run_all(self) -> Result<Vec<Vec<Hit>>> {
        if self.question.k == 0 {
            return Err(Error::argument("k", "at least 1", 0));
        }
        if self.question.floor.is_nan() {
            return Err(Error::argument("the similarity floor", "a number", self.question.floor));
        }
        if self.question.max_error.is_nan() || self.question.max_error < 0.0 {
            return Err(Error::argument(
                "the largest error of a hit",
                "a number of 0 or more",
                self.question.max_error,
            ));
        }
        if self.question.queries.is_empty() {
            return Err(Error::argument("the queries of a search", "at least one", "none"));
        }
        self.among.answer(&self.question)
    }
}
