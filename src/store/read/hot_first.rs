//! What a hot-first search misses.

use crate::error::Result;
use crate::record::Records;
use crate::search::HotFirst;
use crate::store::outcome::HotFirstReport;
use crate::store::store::Store;
use apcm_format::MemoryId;

impl Store {
    /// What a hot-first search of these queries misses: its hits beside those of a search over everything.
    ///
    /// Cost: both searches, one after the other: what is written in between counts as missed.
    ///
    /// # Errors
    /// As [`Search::run_all`](crate::Search::run_all).
    pub fn hot_first_report(&self, queries: &Records, k: usize, hot: HotFirst) -> Result<HotFirstReport> {
        let found = self.search_many(queries).k(k).hot_first(hot).run_all()?;
        let all = self.search_many(queries).k(k).run_all()?;
        let now = self.engine.now();
        let candidates = self.engine.resident.read().hot(hot.frequent, hot.recent, now).len();
        let (mut same, mut sought, mut first) = (0, 0, 0);
        for (found, all) in found.iter().zip(&all) {
            let there: Vec<MemoryId> = found.iter().map(|hit| hit.id).collect();
            sought += all.len();
            same += all.iter().filter(|hit| there.contains(&hit.id)).count();
            first += usize::from(all.first().map(|hit| hit.id) == there.first().copied());
        }
        Ok(HotFirstReport {
            queries: queries.len(),
            candidates,
            recall: if sought == 0 { 1.0 } else { same as f64 / sought as f64 },
            first: first as f64 / queries.len() as f64,
        })
    }
}
