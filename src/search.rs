//! Searches: the nearest memories that meet a condition, in a store or in a pack.

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::index::{Scan, ScanOptions};
use crate::memory::Hit;
use crate::record::Records;
use std::fmt::Debug;

/// Where memories are looked for.
pub(crate) trait Searchable: Debug + Sync {
    /// Answers a question whose numbers make sense: a list of hits for each query, nearest first, equals by
    /// slot.
    fn answer(&self, request: &SearchRequest) -> Result<Vec<Vec<Hit>>>;
}

/// What is looked for.
#[derive(Debug)]
pub(crate) struct SearchRequest {
    pub(crate) queries: Records,
    pub(crate) k: usize,
    pub(crate) floor: f32,
    pub(crate) max_error: f32,
    pub(crate) filter: Option<Filter>,
    pub(crate) counted: bool,
    pub(crate) records: bool,
    pub(crate) scan: Scan,
    pub(crate) threads: Option<usize>,
    pub(crate) hot: Option<HotFirst>,
    /// Whether parts of streams may be found.
    pub(crate) parts: bool,
}

/// A search that looks at the most used memories and the latest ones first, and at all others only where it
/// must.
///
/// The preselection of the TMNN paper. Frequency alone would never reach a memory that was never read, so the
/// latest are included. How much a memory is used is what the last commit or [flush](crate::Store::flush) knew;
/// where nothing was read, the most used are the latest too. It finds what is nearest among those, exactly;
/// what it misses is measured by [`Store::hot_first_report`](crate::Store::hot_first_report). Packs have no
/// counts, and search everything.
///
/// Cost: the first such search puts all memories in order, which takes some 50 bytes a slot from then on
/// (`memory_bytes` of the store's stats has them), and each later commit keeps them so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HotFirst {
    /// How many of the most used memories.
    pub frequent: usize,
    /// How many of the latest.
    pub recent: usize,
    /// All memories are looked at where the best of these is below this cosine, or there are fewer than asked
    /// for.
    pub floor: f32,
}

impl SearchRequest {
    /// The ten nearest, of whatever kind.
    pub(crate) fn new(queries: Records) -> Self {
        Self {
            queries,
            k: 10,
            floor: f32::NEG_INFINITY,
            max_error: f32::INFINITY,
            filter: None,
            counted: false,
            records: false,
            scan: Scan::Auto,
            threads: None,
            hot: None,
            parts: true,
        }
    }

    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument).
    pub(crate) fn check(&self) -> Result<()> {
        if self.k == 0 {
            return Err(Error::argument("k", "at least 1", 0));
        }
        if self.floor.is_nan() {
            return Err(Error::argument("the similarity floor", "a number", self.floor));
        }
        if self.max_error.is_nan() || self.max_error < 0.0 {
            return Err(Error::argument(
                "the largest error of a hit",
                "a number of 0 or more",
                self.max_error,
            ));
        }
        if let Some(hot) = self.hot {
            if hot.floor.is_nan() {
                return Err(Error::argument("the floor of a hot-first search", "a number", hot.floor));
            }
            if hot.frequent == 0 && hot.recent == 0 {
                return Err(Error::argument(
                    "what a hot-first search looks at",
                    "at least one memory",
                    "none",
                ));
            }
        }
        if self.queries.is_empty() {
            return Err(Error::argument("the queries of a search", "at least one", "none"));
        }
        Ok(())
    }

    /// As the index takes it.
    pub(crate) fn scan_options(&self) -> ScanOptions {
        ScanOptions { k: self.k, floor: self.floor, scan: self.scan, threads: self.threads }
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
    among: &'a dyn Searchable,
    request: SearchRequest,
}

impl<'a> Search<'a> {
    pub(crate) fn new(among: &'a dyn Searchable, queries: Records) -> Self {
        Self { among, request: SearchRequest::new(queries) }
    }

    /// How many hits at most; 10 by default.
    pub fn k(mut self, k: usize) -> Self {
        self.request.k = k;
        self
    }

    /// Least cosine of a hit.
    pub fn min_similarity(mut self, floor: f32) -> Self {
        self.request.floor = floor;
        self
    }

    /// Only memories whose measured error (mean squared, per element) is at most this. Applied before ranking,
    /// from memory: costs nothing.
    pub fn max_error(mut self, error: f32) -> Self {
        self.request.max_error = error;
        self
    }

    /// Only memories whose metadata meet a condition, in the language of [`Filter`]. It is applied before
    /// ranking, so a search finds `k` hits wherever that many meet it. Cost: reads all metadata once a search;
    /// in a pack, those of memories that are near enough.
    ///
    /// # Errors
    /// [`Filter`](Error::Filter) with the column of what was not expected.
    pub fn filter(mut self, condition: &str) -> Result<Self> {
        self.request.filter = Some(Filter::parse(condition)?);
        Ok(self)
    }

    /// Looks at the most used and the latest memories first; off by default. See [`HotFirst`] for what that
    /// costs.
    pub fn hot_first(mut self, hot: HotFirst) -> Self {
        self.request.hot = Some(hot);
        self
    }

    /// Counts every hit as an access; searches count nothing by default, and packs and read-only handles never.
    pub fn counted(mut self) -> Self {
        self.request.counted = true;
        self
    }

    /// Decodes the hits' records too.
    pub fn with_records(mut self) -> Self {
        self.request.records = true;
        self
    }

    /// How to go over the search vectors; every way gives the same hits.
    pub fn scan(mut self, scan: Scan) -> Self {
        self.request.scan = scan;
        self
    }

    /// On how many threads, four a core at most; by default one, and all cores from about a million numbers on.
    pub fn threads(mut self, threads: usize) -> Self {
        self.request.threads = Some(threads.max(1));
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
        self.request.check()?;
        self.among.answer(&self.request)
    }
}
