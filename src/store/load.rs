//! Opening: what is kept in memory, from what is on disk.

use super::counts::Counts;
use super::file::Handle;
use super::guard::{callers, guarded, is_fatal, storage};
use super::live::{Live, SlotSize, row_bytes};
use super::stream::bytes_beside;
use super::tables::{
    COUNTERS, KEYS, META, METADATA, RESIDUALS, SLOTS, STATE, STREAMS, USES, counter_place, meta_place,
    metadata_place, optional, slot_place, stream_place, use_place,
};
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::policy::Occupant;
use apcm_format::{
    CounterChunk, DecodeError, Similarity, SlotKind, SlotMetadata, SlotRecord, StoreHeader, StoreState,
    StreamHead, StreamPart, UseChunk, frame, limits, stream::part_key,
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Slots whose search vectors are derived at a time; most numbers of those, and most bytes of their codes.
const BATCH: usize = 4_096;
const BATCH_NUMBERS: usize = 1 << 20;
const BATCH_BYTES: usize = 16 << 20;

/// Builds what is kept in memory from what is on disk.
///
/// `may_take` is asked before memory is taken in proportion to numbers in the file.
pub(super) fn load(
    handle: &Handle,
    header: &StoreHeader,
    codec: &dyn Codec,
    may_take: impl Fn(u64) -> Result<()>,
) -> Result<Live> {
    let transaction = handle.begin_read()?;
    let meta = transaction.open_table(META).map_err(storage("open a table"))?;
    let state: StoreState = match meta.get(STATE).map_err(storage("read the state"))? {
        Some(value) => frame::open(value.value(), meta_place(header.uuid, STATE)),
        None => Err(DecodeError::Truncated { what: "the store's state", needed: 1, found: 0 }),
    }
    .map_err(|cause| Error::Corrupt { what: "the store's state".to_owned(), cause })?;
    // One more than the highest is a store that has given them all: it is read, and written to no more.
    if state.next_seq > limits::SEQ_MAX + 1 {
        return Err(Error::Corrupt {
            what: "the store's state".to_owned(),
            cause: DecodeError::Limit {
                what: "a sequence number",
                found: state.next_seq,
                max: limits::SEQ_MAX,
            },
        });
    }
    let dims = header.search_dims as usize;
    let mut live = Live::new(header.capacity, dims, header.policy, state);
    let slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
    // The database says how many, and no checksum of ours vouches for it.
    let rows = slots.len().map_err(storage("read the slots"))?.min(header.capacity.into());
    may_take(rows * live.bytes_per_slot())?;
    live.reserve_vectors(rows as usize).map_err(Error::memory("what a store keeps in memory"))?;
    fill_all(&mut live, &slots, header, codec, &may_take)?;
    // Sequence numbers must never repeat, whatever the state says.
    let highest = live.bank().iter().map(|(_, occupant)| occupant.seq).max().unwrap_or(0);
    live.set_state(StoreState { next_seq: state.next_seq.max(highest + 1), ..state });
    // What stands beside the slots. A page there that cannot be read is no reason to keep a reader from all memories; a
    // writer is refused, or it would write on what nobody has seen.
    let lenient = handle.writable().is_err();
    for table in [sizes_of_metadata, sizes_of_keys, sizes_of_residuals, sizes_of_heads, counts, uses] {
        match guarded("load the store", || table(&mut live, &transaction, header)) {
            Err(error) if lenient && is_fatal(&error) => {}
            other => other?,
        }
    }
    Ok(live)
}

fn sizes_of_metadata(live: &mut Live, transaction: &ReadTransaction, header: &StoreHeader) -> Result<()> {
    let metadata = transaction.open_table(METADATA).map_err(storage("open a table"))?;
    for entry in metadata.iter().map_err(storage("read metadata"))? {
        let (slot, value) = entry.map_err(storage("read metadata"))?;
        let slot = slot.value();
        live.resize(slot, |size| size.metadata += row_bytes(value.value().len()));
        // A search that ranked it could not say what it had found, and would fail for the sake of one.
        if metadata_place(header.uuid, slot).body("metadata", value.value()).is_err() {
            live.damage(slot);
        }
    }
    Ok(())
}

fn sizes_of_keys(live: &mut Live, transaction: &ReadTransaction, _: &StoreHeader) -> Result<()> {
    let keys = transaction.open_table(KEYS).map_err(storage("open a table"))?;
    for entry in keys.iter().map_err(storage("read the keys"))? {
        let (key, slot) = entry.map_err(storage("read the keys"))?;
        live.resize(slot.value(), |size| size.metadata += row_bytes(key.value().len()));
    }
    Ok(())
}

fn sizes_of_residuals(live: &mut Live, transaction: &ReadTransaction, _: &StoreHeader) -> Result<()> {
    let residuals = transaction.open_table(RESIDUALS).map_err(storage("open a table"))?;
    for entry in residuals.iter().map_err(storage("read the residuals"))? {
        let (slot, value) = entry.map_err(storage("read the residuals"))?;
        live.resize(slot.value(), |size| size.residual = row_bytes(value.value().len()));
    }
    Ok(())
}

fn sizes_of_heads(live: &mut Live, transaction: &ReadTransaction, header: &StoreHeader) -> Result<()> {
    let streams = optional(transaction.open_table(STREAMS)).map_err(storage("open a table"))?;
    let Some(streams) = streams else { return Ok(()) };
    let keys = transaction.open_table(KEYS).map_err(storage("open a table"))?;
    let metadata = transaction.open_table(METADATA).map_err(storage("open a table"))?;
    for entry in streams.iter().map_err(storage("read the streams"))? {
        let (name, value) = entry.map_err(storage("read the streams"))?;
        let Ok(head) = StreamHead::decode(value.value(), stream_place(header.uuid, name.value())) else {
            continue;
        };
        let key = part_key(name.value(), head.first);
        let part = keys.get(key.as_slice()).map_err(storage("look up a key"))?;
        let Some(slot) = part.map(|slot| slot.value()) else { continue };
        let said = metadata.get(slot).map_err(storage("read metadata"))?;
        let place = metadata_place(header.uuid, slot);
        let said = said.and_then(|said| frame::open::<SlotMetadata>(said.value(), place).ok());
        // A row of keys that leads astray, which nobody vouches for, is no reason to charge somebody else.
        if said.is_some_and(|said| said.key.as_ref() == Some(&key)) {
            live.resize(slot, |size| size.metadata = size.metadata.saturating_add(bytes_beside(&head)));
            if let Some(occupant) = live.bank().get(slot).filter(|_| !head.states.is_empty()) {
                live.update(slot, Occupant { open: true, ..occupant });
            }
        }
    }
    Ok(())
}

fn counts(live: &mut Live, transaction: &ReadTransaction, header: &StoreHeader) -> Result<()> {
    let counters = transaction.open_table(COUNTERS).map_err(storage("open a table"))?;
    for entry in counters.iter().map_err(storage("read the counts"))? {
        let (number, value) = entry.map_err(storage("read the counts"))?;
        let number = number.value();
        // Counts that cannot be read are counts that were lost: they start again at 0.
        if let Ok(chunk) = CounterChunk::decode(value.value(), counter_place(header.uuid, number)) {
            let (counts, bank): (&mut Counts, _) = live.counts_mut();
            counts.load(number, &chunk, bank);
        }
    }
    Ok(())
}

fn uses(live: &mut Live, transaction: &ReadTransaction, header: &StoreHeader) -> Result<()> {
    let rule = live.uses().rule();
    if !rule.keeps_words() {
        return Ok(());
    }
    let uses = optional(transaction.open_table(USES)).map_err(storage("open a table"))?;
    if let Some(uses) = uses {
        for entry in uses.iter().map_err(storage("read the uses"))? {
            let (number, value) = entry.map_err(storage("read the uses"))?;
            let number = number.value();
            if let Ok(chunk) = UseChunk::decode(value.value(), use_place(header.uuid, number)) {
                live.uses_mut().load(number, &chunk);
            }
        }
    }
    // Words that cannot be read are words that were lost: what is known of those memories has to do.
    let lost: Vec<(u32, u64)> = live
        .bank()
        .iter()
        .filter(|&(slot, _)| live.uses().get(slot) == 0)
        .map(|(slot, occupant)| (slot, rule.estimated(live.tick_of(occupant.seq), live.counts().get(slot))))
        .collect();
    lost.into_iter().for_each(|(slot, word)| live.uses_mut().set(slot, word));
    Ok(())
}

fn check_slot(slot: u32, header: &StoreHeader) -> Result<()> {
    if slot < header.capacity {
        return Ok(());
    }
    Err(Error::Corrupt {
        what: "the table of slots".to_owned(),
        cause: DecodeError::Limit {
            what: "a slot's number",
            found: slot.into(),
            max: u64::from(header.capacity) - 1,
        },
    })
}

/// Slots on their way from the file into memory.
#[derive(Default)]
struct Batch {
    readable: Vec<(u32, Occupant, SlotSize)>,
    /// Their codes, one after the other, and where each ends.
    codes: Vec<u8>,
    ends: Vec<usize>,
    /// Parts of streams, with their search vectors.
    parts: Vec<(u32, Occupant, SlotSize, Vec<f32>)>,
    /// Slots whose records cannot be read, and their lengths.
    damaged: Vec<(u32, usize)>,
}

impl Batch {
    fn add(&mut self, slot: u32, bytes: &[u8], header: &StoreHeader) {
        match SlotRecord::decode(bytes, slot_place(header.uuid, slot)) {
            Ok(record) => {
                let occupant = Occupant {
                    seq: record.seq,
                    pinned: record.flags.pinned,
                    damaged: false,
                    expires_at: record.expires_at,
                    open: false,
                };
                let size = SlotSize {
                    code: record.code.len() as u32,
                    record: bytes.len() as u32,
                    error: record.error.get(),
                    ..SlotSize::default()
                };
                match record.kind {
                    SlotKind::Record => {
                        self.readable.push((slot, occupant, size));
                        self.codes.extend_from_slice(record.code);
                        self.ends.push(self.codes.len());
                    }
                    // A part of a stream says itself what it means.
                    SlotKind::StreamRoot => {
                        match StreamPart::decode_for(record.code, header.search_dims as usize) {
                            Ok(part) => self.parts.push((slot, occupant, size, part.search)),
                            Err(_) => self.damaged.push((slot, bytes.len())),
                        }
                    }
                }
            }
            // One damaged slot must not take the others with it: it stays where it is, and is no hit.
            Err(_) => self.damaged.push((slot, bytes.len())),
        }
    }

    fn is_full(&self, dims: usize) -> bool {
        self.readable.len() + self.parts.len() >= BATCH.min(BATCH_NUMBERS / dims).max(1)
            || self.codes.len() > BATCH_BYTES
    }

    /// Takes the memory that filling its slots needs, if it may be taken.
    fn reserve(&self, live: &mut Live, may_take: &impl Fn(u64) -> Result<()>) -> Result<()> {
        let vectors = self.readable.len() + self.parts.len();
        live.reserve_vectors(vectors).map_err(Error::memory("what a store keeps in memory"))?;
        let readable = self.readable.iter().map(|&(slot, ..)| slot);
        let parts = self.parts.iter().map(|&(slot, ..)| slot);
        for slot in readable.chain(parts).chain(self.damaged.iter().map(|&(slot, _)| slot)) {
            // Asked after the pages of one slot were taken: they are few, and what they take is known then.
            live.reserve(slot).map_err(Error::memory("what a store keeps in memory"))?;
            may_take(live.memory())?;
        }
        Ok(())
    }

    fn fill(self, live: &mut Live, codec: &dyn Codec, similarity: Similarity) {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let codes: Vec<&[u8]> = starts.zip(&self.ends).map(|(start, &end)| &self.codes[start..end]).collect();
        let dims = live.scan().dims();
        match codec.search_vectors(&codes, similarity) {
            Ok(vectors) => {
                for ((slot, occupant, size), vector) in self.readable.iter().zip(vectors.chunks_exact(dims)) {
                    live.fill(*slot, *occupant, Some(vector), *size, SlotKind::Record);
                }
            }
            // Some code is not one of this codec's. One by one, to find which.
            Err(_) => {
                for ((slot, occupant, size), code) in self.readable.iter().zip(codes) {
                    match codec.search_vectors(&[code], similarity) {
                        Ok(vector) => live.fill(*slot, *occupant, Some(&vector), *size, SlotKind::Record),
                        Err(_) => fill_damaged(live, *slot, size.record as usize),
                    }
                }
            }
        }
        for (slot, occupant, size, search) in self.parts {
            live.fill(slot, occupant, Some(&search), size, SlotKind::StreamRoot);
        }
        for (slot, record) in self.damaged {
            fill_damaged(live, slot, record);
        }
    }
}

/// Reads all slots and sends them off in batches.
fn read_all(
    slots: &ReadOnlyTable<u32, &'static [u8]>,
    header: &StoreHeader,
    sender: &SyncSender<Batch>,
) -> Result<()> {
    let mut batch = Batch::default();
    for entry in slots.iter().map_err(storage("read the slots"))? {
        let (slot, value) = entry.map_err(storage("read the slots"))?;
        let slot = slot.value();
        check_slot(slot, header)?;
        batch.add(slot, value.value(), header);
        // The receiver is gone only if filling failed; the filler reports that error.
        if batch.is_full(header.search_dims as usize) && sender.send(std::mem::take(&mut batch)).is_err() {
            return Ok(());
        }
    }
    let _ = sender.send(batch);
    Ok(())
}

/// Fills all slots, while another thread reads those that come after.
fn fill_all(
    live: &mut Live,
    slots: &ReadOnlyTable<u32, &'static [u8]>,
    header: &StoreHeader,
    codec: &dyn Codec,
    may_take: &impl Fn(u64) -> Result<()>,
) -> Result<()> {
    let (sender, receiver) = sync_channel::<Batch>(2);
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("apcm-open".to_owned())
            .spawn_scoped(scope, move || guarded("read the slots", || read_all(slots, header, &sender)))
            .map_err(Error::io(Path::new("a thread that opens the store")))?;
        let filled = receiver.into_iter().try_for_each(|batch| {
            batch.reserve(live, may_take)?;
            callers(|| batch.fill(live, codec, header.similarity));
            Ok(())
        });
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        filled.and(read)
    })
}

fn fill_damaged(live: &mut Live, slot: u32, record: usize) {
    let occupant = Occupant { seq: 0, pinned: false, damaged: true, expires_at: None, open: false };
    let size = SlotSize { record: record as u32, ..SlotSize::default() };
    live.fill(slot, occupant, None, size, SlotKind::Record);
}
