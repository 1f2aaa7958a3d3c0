//! An append: the part under way with more records in it, or another one, in one transaction.

use super::handle::Appended;
use super::parts::{Part, Position};
use super::retry::until_unchanged;
use crate::codec::fidelity::f16_copy::{error_at_most, nearly};
use crate::codec::{Encoded, error_and_norm};
use crate::error::Result;
use crate::record::{Record, Records, check_shape};
use crate::sequence::{Frontier, SequenceState, SweeperTree};
use crate::store::engine::Engine;
use crate::store::staged::{Content, Expected, Op, ROUNDING_MARGIN, SearchVector};
use apcm_format::stream::part_key;
use apcm_format::{Metadata, Original, SlotKind, SlotMetadata, StoredReal, StreamHead, StreamPart, Value};

impl Engine {
    pub(crate) fn append(&self, name: &str, records: &Records) -> Result<Vec<Appended>> {
        self.check_usable()?;
        self.handle.writable()?;
        check_shape(self.header.shape, records.shape())?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let vectors = self.finite_vectors(records)?;
        // States are computed without a lock. The commit checks that the stream is unchanged since it was read;
        // if another thread was faster, this append starts over. Of several conflicting appends in one commit,
        // one succeeds.
        until_unchanged(|| {
            let kept = self.tree_at_hand()?;
            let position = self.reading("look at a stream", || self.position(&*self.snapshot()?, name))?;
            let begins = position.len;
            let expected = Expected { name: name.to_owned(), last: position.last, tree: kept.generation };
            let mut plan = AppendPlan::of(&kept.tree, name, position)?;
            plan.ops.insert(0, Op::Expect(expected));
            for (record, vector) in records.rows().zip(vectors.chunks_exact(self.header.search_dims as usize))
            {
                plan.append(record, vector)?;
            }
            let (ops, appended) = plan.finish()?;
            let done = self.commit(ops)?;
            let mut evicted = done.evicted;
            // The last part that was written holds the last record; those before it are full.
            let appended = (begins..).zip(appended).map(|(index, (part, error))| Appended {
                index,
                id: done.ids[part],
                error,
                evicted: std::mem::take(&mut evicted),
            });
            Ok(appended.collect())
        })
    }
}

/// Which of the parts that are written a record went to, and its error there.
type InPart = (usize, f32);

/// An append being put together: parts one after the other, the last of them under way.
struct AppendPlan<'a> {
    tree: &'a SweeperTree,
    name: &'a str,
    frontier: Frontier,
    /// The state of the part under way.
    state: SequenceState,
    first: u64,
    part: StreamPart,
    /// Copies of the records of the part under way: what its errors are measured against each time that it
    /// changes.
    originals: Vec<Original>,
    /// Records of the part under way that were there before.
    before: usize,
    /// The greatest of its records' norms: their mean, put together of what is kept rounded up, would climb
    /// with every append.
    norm: f32,
    ops: Vec<Op>,
    /// Which part each record went to, of those written here, and its error.
    appended: Vec<InPart>,
    written: usize,
}

impl<'a> AppendPlan<'a> {
    fn of(tree: &'a SweeperTree, name: &'a str, position: Position) -> Result<Self> {
        let mut plan = Self {
            tree,
            name,
            frontier: Frontier::new(),
            state: SequenceState::new(0, Vec::new()),
            first: position.len,
            part: StreamPart::default(),
            originals: Vec::new(),
            before: 0,
            norm: 0.0,
            ops: Vec::new(),
            appended: Vec::new(),
            written: 0,
        };
        if let Some((part, head)) = position.open
            && part.len() < tree.capacity()
            && let Ok(frontier) = Frontier::from_states(part.len(), head.states)
            && frontier.fits(tree)
            && let Some(originals) = originals(tree, &part, head.originals)?
        {
            (plan.norm, plan.before, plan.originals) = (part.norm, originals.len(), originals);
            (plan.frontier, plan.first, plan.part) = (frontier, part.first, part.content);
        }
        Ok(plan)
    }

    fn append(&mut self, record: &[f32], vector: &[f32]) -> Result<()> {
        if self.frontier.len() == self.tree.capacity() {
            self.write()?;
            self.first += self.frontier.len();
            (self.frontier, self.part, self.norm) = (Frontier::new(), StreamPart::default(), 0.0);
            (self.originals, self.before) = (Vec::new(), 0);
        }
        let record = Record::new(&self.tree.shape().dims(), record.to_vec())?;
        self.state = self.frontier.append(self.tree, &record)?;
        let (_, norm) = error_and_norm(record.values(), record.values());
        self.norm = self.norm.max(norm);
        self.originals.push(nearly(record.values()));
        self.part.search.resize(vector.len(), 0.0);
        let share = 1.0 / self.state.len() as f32;
        self.part
            .search
            .iter_mut()
            .zip(vector)
            .for_each(|(mean, value)| *mean = *mean * (1.0 - share) + value * share);
        Ok(())
    }

    /// Stages the part under way. Every record of it has another reconstruction than before, so all are
    /// measured again.
    fn write(&mut self) -> Result<()> {
        let decoded = self.tree.decode(&self.state)?;
        let errors = self.originals.iter().zip(decoded.rows());
        self.part.errors = errors
            .map(|(original, decoded)| {
                StoredReal::at_least(error_at_most(original, decoded) as f32 * ROUNDING_MARGIN)
            })
            .collect();
        self.part.state = self.state.values().to_vec();
        let new = &self.part.errors[self.before.min(self.part.errors.len())..];
        self.appended.extend(new.iter().map(|error| (self.written, error.get())));
        let content = content(self.name, self.first, &self.part, self.norm)?;
        self.ops.push(Op::Write { content, pinned: false, expiry: None });
        self.written += 1;
        Ok(())
    }

    /// All operations, and which part each record went to with which error.
    fn finish(mut self) -> Result<(Vec<Op>, Vec<InPart>)> {
        self.write()?;
        // Nothing is appended to a full part.
        let open = self.frontier.len() < self.tree.capacity();
        let states = self.frontier.states().filter(|_| open).map(<[f32]>::to_vec).collect();
        let originals = if open { self.originals } else { Vec::new() };
        let len = self.first.saturating_add(self.frontier.len());
        self.ops
            .push(Op::Head(self.name.to_owned(), StreamHead { first: self.first, len, states, originals }));
        Ok((self.ops, self.appended))
    }
}

/// What the errors of a part under way are measured against. A part that an older version began has no copies
/// of its records: then it is what they are now, with the errors that were stated, to which roots of changes
/// add. None for what is no such part's: it stays as it is, and another is begun.
fn originals(tree: &SweeperTree, part: &Part, kept: Vec<Original>) -> Result<Option<Vec<Original>>> {
    let fits = |original: &Original| original.values.len() == tree.shape().values();
    if !kept.is_empty() {
        return Ok((kept.len() as u64 == part.len() && kept.iter().all(fits)).then_some(kept));
    }
    let Ok(now) = tree.decode(&SequenceState::new(part.len(), part.content.state.clone())) else {
        return Ok(None);
    };
    let stated = now.rows().zip(&part.content.errors).map(|(row, error)| {
        let copy = nearly(row);
        Original { off: StoredReal::at_least((copy.off.get() + error.get().sqrt()).next_up()), ..copy }
    });
    Ok(Some(stated.collect()))
}

/// The contents of a slot for a part.
pub(crate) fn content(name: &str, first: u64, part: &StreamPart, norm: f32) -> Result<Box<Content>> {
    let len = part.errors.len();
    let mean = part.errors.iter().map(|error| f64::from(error.get())).sum::<f64>() / len.max(1) as f64;
    let number = |value: u64| Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
    let values = Metadata::from([
        ("stream".to_owned(), Value::Text(name.to_owned())),
        ("first".to_owned(), number(first)),
        ("len".to_owned(), number(len as u64)),
    ]);
    let metadata = SlotMetadata { key: Some(part_key(name, first)), values };
    Ok(Box::new(Content {
        encoded: Encoded { code: part.encode()?, error: mean as f32, norm, without_predictor: false },
        residual: None,
        search: SearchVector::one(part.search.clone()),
        metadata: Content::framed(&metadata)?,
        key: metadata.key,
        kind: SlotKind::StreamRoot,
    }))
}
