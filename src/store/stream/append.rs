//! An append: the part under way with more records in it, or another one, in one transaction.

use super::Appended;
use super::parts::Position;
use crate::codec::{Encoded, error_and_norm};
use crate::error::{Error, Result};
use crate::record::{Record, Records, check_shape};
use crate::sequence::{Frontier, SweeperTree};
use crate::store::Inner;
use crate::store::transaction::{Content, Op, ROUNDING_MARGIN};
use apcm_format::stream::part_key;
use apcm_format::{MemoryId, Metadata, SlotKind, SlotMetadata, StoredReal, StreamHead, StreamPart, Value};

impl Inner {
    pub(super) fn append(&self, name: &str, records: &Records) -> Result<Vec<Appended>> {
        self.check_usable()?;
        self.handle.writable()?;
        check_shape(self.header.shape, records.shape())?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let vectors = self.finite_vectors(records)?;
        let _appending = self.streams.lock(name);
        let tree = self.tree_at_hand()?;
        let mut alone = false;
        loop {
            let mut position = self.reading("look at a stream", || self.position(&self.snapshot()?, name))?;
            if alone {
                position.open = None;
            }
            let (begins, goes_on) = (position.len, position.open.is_some());
            let mut draft = Draft::of(&tree, name, position)?;
            for (record, vector) in records.rows().zip(vectors.chunks_exact(self.header.search_dims as usize))
            {
                draft.append(record, vector)?;
            }
            let errors = std::mem::take(&mut draft.appended);
            match self.commit(draft.finish()?) {
                Ok(done) => {
                    let mut evicted = done.evicted;
                    // The last part that was written holds the last record; those before it are full.
                    let parts = errors.iter().map(|(part, _)| *part);
                    let ids: Vec<MemoryId> = parts.map(|part| done.ids[part]).collect();
                    // An append is an access of its part: or the one under way would be the next to make room.
                    ids.iter().for_each(|&id| self.count(id, true));
                    return Ok((begins..)
                        .zip(ids)
                        .zip(errors)
                        .map(|((index, id), (_, error))| Appended {
                            index,
                            id,
                            error,
                            evicted: std::mem::take(&mut evicted),
                        })
                        .collect());
                }
                // Its part made room meanwhile: another is begun, whatever is there now.
                Err(Error::NotFound { .. }) if goes_on => alone = true,
                Err(error) => return Err(error),
            }
        }
    }
}

/// An append being put together: parts one after the other, the last of them under way.
struct Draft<'a> {
    tree: &'a SweeperTree,
    name: &'a str,
    frontier: Frontier,
    first: u64,
    part: StreamPart,
    /// The greatest of its records' norms: their mean, put together of what is kept rounded up, would climb with every append.
    norm: f32,
    ops: Vec<Op>,
    /// Which part each record went to, of those written here, and its error.
    appended: Vec<(usize, f32)>,
    written: usize,
}

impl<'a> Draft<'a> {
    fn of(tree: &'a SweeperTree, name: &'a str, position: Position) -> Result<Self> {
        let mut draft = Self {
            tree,
            name,
            frontier: Frontier::new(),
            first: position.len,
            part: StreamPart::default(),
            norm: 0.0,
            ops: Vec::new(),
            appended: Vec::new(),
            written: 0,
        };
        if let Some((part, head)) = position.open
            && part.len() < tree.capacity()
            && let Ok(frontier) = Frontier::from_states(part.len(), head.states)
            && frontier.fits(tree)
        {
            draft.ops.push(Op::Expect(part.id));
            draft.norm = part.norm;
            (draft.frontier, draft.first, draft.part) = (frontier, part.first, part.content);
        }
        Ok(draft)
    }

    fn append(&mut self, record: &[f32], vector: &[f32]) -> Result<()> {
        if self.frontier.len() == self.tree.capacity() {
            self.write()?;
            self.first += self.frontier.len();
            (self.frontier, self.part, self.norm) = (Frontier::new(), StreamPart::default(), 0.0);
        }
        let record = Record::new(&self.tree.shape().dims(), record.to_vec())?;
        let state = self.frontier.append(self.tree, &record)?;
        let decoded = self.tree.decode_at(&state, state.len() - 1)?;
        let (error, norm) = error_and_norm(record.values(), decoded.values());
        let error = StoredReal::at_least(error as f32 * ROUNDING_MARGIN);
        self.norm = self.norm.max(norm);
        self.part.errors.push(error);
        self.part.search.resize(vector.len(), 0.0);
        let share = 1.0 / state.len() as f32;
        self.part
            .search
            .iter_mut()
            .zip(vector)
            .for_each(|(mean, value)| *mean = *mean * (1.0 - share) + value * share);
        self.part.state = state.values().to_vec();
        self.appended.push((self.written, error.get()));
        Ok(())
    }

    /// Stages the part under way.
    fn write(&mut self) -> Result<()> {
        let content = content(self.name, self.first, &self.part, self.norm)?;
        let metadata_len = content.metadata_len();
        self.ops.push(Op::Write { content, metadata_len, pinned: false, expiry: None });
        self.written += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Op>> {
        self.write()?;
        // Nothing is appended to a full part.
        let open = self.frontier.len() < self.tree.capacity();
        let states = self.frontier.states().filter(|_| open).map(<[f32]>::to_vec).collect();
        let head =
            StreamHead { first: self.first, len: self.first.saturating_add(self.frontier.len()), states };
        self.ops.push(Op::Head(self.name.to_owned(), head));
        Ok(self.ops)
    }
}

/// What a slot holds for a part.
pub(in crate::store) fn content(
    name: &str,
    first: u64,
    part: &StreamPart,
    norm: f32,
) -> Result<Box<Content>> {
    let len = part.errors.len();
    let mean = part.errors.iter().map(|error| f64::from(error.get())).sum::<f64>() / len.max(1) as f64;
    let number = |value: u64| Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
    let values = Metadata::from([
        ("stream".to_owned(), Value::Text(name.to_owned())),
        ("first".to_owned(), number(first)),
        ("len".to_owned(), number(len as u64)),
    ]);
    Ok(Box::new(Content {
        encoded: Encoded { code: part.encode()?, error: mean as f32, norm, without_predictor: false },
        residual: None,
        search: part.search.clone(),
        metadata: SlotMetadata { key: Some(part_key(name, first)), values },
        kind: SlotKind::StreamRoot,
    }))
}
