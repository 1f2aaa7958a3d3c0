//! Opening: what is kept in memory, from what is on disk.

use super::batch::Batch;
use super::counts::Counts;
use super::sizes::{bytes_beside, row_bytes};
use super::slots::Resident;
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::policy::Occupant;
use crate::store::file::{
    COUNTERS, Handle, KEYS, META, METADATA, RESIDUALS, SLOTS, STATE, STREAMS, USES, callers, counter_place,
    guarded, is_fatal, meta_place, metadata_place, optional, storage, stream_place, use_place,
};
use apcm_format::{
    CounterChunk, DecodeError, SlotMetadata, StoreHeader, StoreState, StreamHead, UseChunk, frame, limits,
    stream::part_key,
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Builds what is kept in memory from what is on disk.
///
/// `may_take` is asked before memory is taken in proportion to numbers in the file.
pub(crate) fn load(
    handle: &Handle,
    header: &StoreHeader,
    codec: &dyn Codec,
    may_take: impl Fn(u64) -> Result<()>,
) -> Result<Resident> {
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
    let mut resident = Resident::new(header.capacity, dims, header.policy, state);
    let slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
    // The number of rows comes from the database and has no checksum of ours.
    let rows = slots.len().map_err(storage("read the slots"))?.min(header.capacity.into());
    may_take(rows * resident.bytes_per_slot())?;
    resident.reserve_vectors(rows as usize).map_err(Error::memory("what a store keeps in memory"))?;
    fill_all(&mut resident, &slots, header, codec, &may_take)?;
    // Sequence numbers must never repeat, whatever the state says.
    let highest = resident.bank().iter().map(|(_, occupant)| occupant.seq).max().unwrap_or(0);
    resident.set_state(StoreState { next_seq: state.next_seq.max(highest + 1), ..state });
    // Tables beside the slots. An unreadable page there does not keep a reader from the memories; a writer is
    // refused, because it would build on unread data.
    let lenient = handle.writable().is_err();
    for table in [sizes_of_metadata, sizes_of_keys, sizes_of_residuals, sizes_of_heads, counts, uses] {
        match guarded("load the store", || table(&mut resident, &transaction, header)) {
            Err(error) if lenient && is_fatal(&error) => {}
            other => other?,
        }
    }
    Ok(resident)
}

fn sizes_of_metadata(
    resident: &mut Resident,
    transaction: &ReadTransaction,
    header: &StoreHeader,
) -> Result<()> {
    let metadata = transaction.open_table(METADATA).map_err(storage("open a table"))?;
    for entry in metadata.iter().map_err(storage("read metadata"))? {
        let (slot, value) = entry.map_err(storage("read metadata"))?;
        let slot = slot.value();
        resident.resize(slot, |size| size.metadata += row_bytes(value.value().len()));
        // A search that ranked it could not say what it had found, and would fail for the sake of one.
        if metadata_place(header.uuid, slot).body("metadata", value.value()).is_err() {
            resident.damage(slot);
        }
    }
    Ok(())
}

fn sizes_of_keys(resident: &mut Resident, transaction: &ReadTransaction, _: &StoreHeader) -> Result<()> {
    let keys = transaction.open_table(KEYS).map_err(storage("open a table"))?;
    for entry in keys.iter().map_err(storage("read the keys"))? {
        let (key, slot) = entry.map_err(storage("read the keys"))?;
        resident.resize(slot.value(), |size| size.metadata += row_bytes(key.value().len()));
    }
    Ok(())
}

fn sizes_of_residuals(resident: &mut Resident, transaction: &ReadTransaction, _: &StoreHeader) -> Result<()> {
    let residuals = transaction.open_table(RESIDUALS).map_err(storage("open a table"))?;
    for entry in residuals.iter().map_err(storage("read the residuals"))? {
        let (slot, value) = entry.map_err(storage("read the residuals"))?;
        resident.resize(slot.value(), |size| size.residual = row_bytes(value.value().len()));
    }
    Ok(())
}

fn sizes_of_heads(
    resident: &mut Resident,
    transaction: &ReadTransaction,
    header: &StoreHeader,
) -> Result<()> {
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
        // Rows of keys have no checksum: a head counts only for a slot that names its key.
        if said.is_some_and(|said| said.key.as_ref() == Some(&key)) {
            resident.resize(slot, |size| size.metadata = size.metadata.saturating_add(bytes_beside(&head)));
            if let Some(occupant) = resident.bank().get(slot).filter(|_| !head.states.is_empty()) {
                resident.update(slot, Occupant { open: true, ..occupant });
            }
        }
    }
    Ok(())
}

fn counts(resident: &mut Resident, transaction: &ReadTransaction, header: &StoreHeader) -> Result<()> {
    let counters = transaction.open_table(COUNTERS).map_err(storage("open a table"))?;
    for entry in counters.iter().map_err(storage("read the counts"))? {
        let (number, value) = entry.map_err(storage("read the counts"))?;
        let number = number.value();
        // Counts that cannot be read are counts that were lost: they start again at 0.
        if let Ok(chunk) = CounterChunk::decode(value.value(), counter_place(header.uuid, number)) {
            let (counts, bank): (&mut Counts, _) = resident.counts_mut();
            counts.load(number, &chunk, bank);
        }
    }
    Ok(())
}

fn uses(resident: &mut Resident, transaction: &ReadTransaction, header: &StoreHeader) -> Result<()> {
    let rule = resident.uses().rule();
    if !rule.keeps_words() {
        return Ok(());
    }
    let uses = optional(transaction.open_table(USES)).map_err(storage("open a table"))?;
    if let Some(uses) = uses {
        for entry in uses.iter().map_err(storage("read the uses"))? {
            let (number, value) = entry.map_err(storage("read the uses"))?;
            let number = number.value();
            if let Ok(chunk) = UseChunk::decode(value.value(), use_place(header.uuid, number)) {
                resident.uses_mut().load(number, &chunk);
            }
        }
    }
    // Words that cannot be read are words that were lost: what is known of those memories has to do.
    let lost: Vec<(u32, u64)> = resident
        .bank()
        .iter()
        .filter(|&(slot, _)| resident.uses().get(slot) == 0)
        .map(|(slot, occupant)| {
            (slot, rule.estimated(resident.tick_of(occupant.seq), resident.counts().get(slot)))
        })
        .collect();
    lost.into_iter().for_each(|(slot, word)| resident.uses_mut().set(slot, word));
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
    resident: &mut Resident,
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
            batch.reserve(resident, may_take)?;
            callers(|| batch.fill(resident, codec, header.similarity));
            Ok(())
        });
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        filled.and(read)
    })
}
