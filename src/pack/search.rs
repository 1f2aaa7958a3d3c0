//! Searches in a pack: over its sections, where they lie.

use super::handle::Pack;
use crate::error::{Error, Result};
use crate::index::{Checked, Part, View};
use crate::memory::Hit;
use crate::search::{SearchRequest, Searchable};
use crate::stored::{decode_all, hits};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Queries that are ranked at once: what a scan needs grows with them.
const QUERIES_AT_ONCE: usize = 64;

/// What a filter says of a row.
const UNKNOWN: u8 = 0;
const ADMITTED: u8 = 1;
const REFUSED: u8 = 2;

/// One search's reading of a pack: what it met that cannot be read ends it.
struct Reading<'a> {
    pack: &'a Pack,
    failed: OnceLock<Error>,
}

impl Reading<'_> {
    /// The value, or `None` and a note of why not.
    fn note<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.failed.set(error)).ok()
    }
}

impl Checked for Reading<'_> {
    fn may_read(&self, part: Part, rows: Range<usize>) -> bool {
        let layout = self.pack.blocks.layout();
        let dims = u64::from(self.pack.header().search_dims);
        let check = |section: &Range<u64>, width: u64| {
            let at = |row: usize| section.start + row as u64 * width;
            self.pack.blocks.check(at(rows.start)..at(rows.end))
        };
        let read = match part {
            Part::Rows => check(&layout.vectors, 4 * dims),
            Part::Integers => check(&layout.integers, dims)
                .and_then(|()| check(&layout.scales, 4))
                .and_then(|()| check(&layout.residuals, 4)),
        };
        self.note(read).is_some()
    }
}

impl Searchable for Pack {
    fn answer(&self, request: &SearchRequest) -> Result<Vec<Vec<Hit>>> {
        let header = self.header();
        let vectors = self.codec.query_vectors(&request.queries, header.similarity)?;
        let reading = Reading { pack: self, failed: OnceLock::new() };
        let layout = self.blocks.layout();
        let view = View {
            dims: header.search_dims as usize,
            rows: self.blocks.numbers(&layout.vectors),
            integers: self.blocks.numbers(&layout.integers),
            scales: self.blocks.numbers(&layout.scales),
            residuals: self.blocks.numbers(&layout.residuals),
            placed: None,
            checked: Some(&reading),
        };
        let now = self.now();
        let looked_at = |row: u32| {
            let Some(known) = reading.note(self.row(row)) else { return false };
            (known.expires_at == 0 || known.expires_at > now)
                && request.admits_error(|| known.error.get())
                && request.filter.as_ref().is_none_or(|filter| {
                    reading
                        .note(self.metadata(row, &known))
                        .is_some_and(|metadata| filter.matches(&metadata.values))
                })
        };
        // Metadata are decoded once a search, however many queries it has.
        let answers: Vec<AtomicU8> = match request.filter {
            Some(_) => (0..self.len()).map(|_| AtomicU8::new(UNKNOWN)).collect(),
            None => Vec::new(),
        };
        let admit = |row: u32| match answers.get(row as usize) {
            None => looked_at(row),
            Some(answer) => match answer.load(Ordering::Relaxed) {
                UNKNOWN => {
                    let admitted = looked_at(row);
                    answer.store(if admitted { ADMITTED } else { REFUSED }, Ordering::Relaxed);
                    admitted
                }
                known => known == ADMITTED,
            },
        };
        let mut ranked = Vec::new();
        for some in vectors.chunks(QUERIES_AT_ONCE * view.dims) {
            ranked.extend(view.nearest(some, &request.scan_options(), admit));
        }
        if let Some(error) = reading.failed.into_inner() {
            return Err(error);
        }
        ranked
            .into_iter()
            .map(|ranked| {
                let found = ranked
                    .into_iter()
                    .map(|hit| Ok((self.stored(hit.slot)?, hit.similarity)))
                    .collect::<Result<Vec<_>>>()?;
                hits(found, request.records, |all| decode_all(self.codec(), header.store, all))
            })
            .collect()
    }
}
