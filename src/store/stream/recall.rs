//! Records of streams, out of the states of their parts.

use super::handle::Recalled;
use crate::error::{Error, Result};
use crate::sequence::SequenceState;
use crate::store::engine::Engine;
use crate::store::read::misfit;
use apcm_format::StreamPart;
use std::ops::Range;

impl Engine {
    /// The records of a range that are there. A damaged part in it is an error, or passed over.
    pub(crate) fn recall(&self, name: &str, mut range: Range<u64>, lenient: bool) -> Result<Vec<Recalled>> {
        let parts = self.reading("recall", || {
            let snapshot = self.snapshot()?;
            let len = self.position(&snapshot, name)?.len;
            if lenient {
                range.end = range.end.min(len);
            } else if range.end > len && !range.is_empty() {
                let expected = format!("below {len}");
                return Err(Error::argument("the index in a stream", expected, range.end - 1));
            }
            let mut parts = Vec::new();
            let mut end = range.end;
            // From the last one back: keys lead to where a part begins.
            while end > range.start
                && let Some((first, part)) = self.part_before(&snapshot, name, end - 1)?
            {
                end = first;
                match part {
                    Ok(part) => parts.push(part),
                    Err(_) if lenient => {}
                    Err(damage) => return Err(damage),
                }
            }
            Ok(parts)
        })?;
        let mut recalled = Vec::new();
        for part in parts.into_iter().rev() {
            let (from, to) = (part.first.max(range.start), part.range().end.min(range.end));
            if from >= to {
                continue;
            }
            let len = part.len();
            let StreamPart { state, errors, .. } = part.content;
            let state = SequenceState::new(len, state);
            let slot = part.id.slot;
            let records = self
                .tree_of(part.id)?
                .decode_range(&state, from - part.first..to - part.first)
                .map_err(|error| misfit(slot, &error))?;
            self.count(part.id, true);
            let errors = &errors[(from - part.first) as usize..];
            recalled.extend((from..to).zip(errors).enumerate().map(|(row, (index, error))| Recalled {
                index,
                record: records.get(row),
                error: error.get(),
            }));
        }
        Ok(recalled)
    }
}
