//! Exporting a pack: one snapshot, its values as they are.

use crate::error::{Error, Result};
use crate::pack::{Packed, Writer};
use crate::progress::{Progress, Reporter};
use crate::store::engine::Engine;
use crate::store::file::{KEYS, Snapshot, callers, permissions_of, read_codec, slot_place, storage};
use crate::store::read::vanished;
use crate::store::store::Store;
use crate::whole_file;
use apcm_format::{DecodeError, Features, PackHeader, PackRow, SlotKind, SlotRecord, StoreUuid};
use rand::TryRng;
use redb::{ReadOnlyTable, ReadableTable};
use std::fmt;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Memories that are in memory at a time; most numbers of their search vectors, and most bytes but for the last
/// of them.
const BATCH: usize = 4_096;
const BATCH_NUMBERS: usize = 1 << 20;
const BATCH_BYTES: usize = 16 << 20;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ExportReport {
    /// Memories in it.
    pub memories: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Slots with parts of streams, which packs do not take.
    pub parts_left_out: u64,
}

/// An export into a pack; [`run`](Self::run) makes it.
#[must_use = "nothing is written until it is run"]
pub struct ExportPack<'a> {
    store: &'a Store,
    to: PathBuf,
    progress: Reporter<'a>,
}

impl fmt::Debug for ExportPack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportPack").field("store", &self.store).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts an export of the store as it is now into a pack, while it is in use: see [`ExportPack`].
    pub fn export_pack<'a>(&'a self, to: impl AsRef<Path>) -> ExportPack<'a> {
        ExportPack::new(self, to.as_ref())
    }
}

impl<'a> ExportPack<'a> {
    pub(crate) fn new(store: &'a Store, to: &Path) -> Self {
        Self { store, to: to.to_owned(), progress: Reporter::new("pack") }
    }

    /// Called now and then with how many memories were written and how many there are; may stop the export.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress.set(callback);
        self
    }

    /// Writes the store as it is now, while others go on reading and writing: every memory that has not
    /// expired, with its id, key, metadata, residual, pin, expiry and count.
    ///
    /// The file is built under a temporary name, marked read-only, synced, and renamed: under its own name
    /// there is all of it or nothing (a crash may leave `.apcm-new-..` beside it, which may be deleted). The
    /// pack has the permissions of the store's file, read-only. Cost: reads every memory and derives its search
    /// vector; four bytes of memory a slot and a key, and some 32 MiB, and twice the largest memory.
    ///
    /// # Errors
    /// [`Exists`](Error::Exists), [`Io`](Error::Io), [`Cancelled`](Error::Cancelled);
    /// [`Corrupt`](Error::Corrupt) for a damaged memory, which a pack cannot hold: remove or
    /// [repair](Store::repair) it first.
    pub fn run(mut self) -> Result<ExportReport> {
        self.progress.begin();
        let engine = &self.store.engine;
        let snapshot = engine.reading("begin an export", || engine.snapshot())?;
        let mut report = ExportReport { memories: 0, bytes: 0, parts_left_out: 0 };
        whole_file::create(&self.to, None, |file| {
            report = write(engine, &snapshot, file, &self.to, &mut self.progress)?;
            // A pack never changes; the read-only mark tells readers so.
            let own = || file.metadata().map(|metadata| metadata.permissions()).map_err(Error::io(&self.to));
            let mut permissions = self.store.path().and_then(permissions_of).map_or_else(own, Ok)?;
            permissions.set_readonly(true);
            file.set_permissions(permissions).map_err(Error::io(&self.to))
        })?;
        Ok(report)
    }
}

fn write(
    engine: &Engine,
    snapshot: &Snapshot,
    file: &File,
    to: &Path,
    progress: &mut Reporter<'_>,
) -> Result<ExportReport> {
    let now = engine.now();
    let (slots, parts_left_out) = engine.reading("read the slots", || slots_of(engine, snapshot, now))?;
    let total = slots.len() as u64;
    let mut uuid = [0; 16];
    rand::rngs::SysRng
        .try_fill_bytes(&mut uuid)
        .map_err(|error| Error::io(to)(std::io::Error::other(error.to_string())))?;
    let from = &engine.header;
    let header = PackHeader {
        uuid: StoreUuid(uuid),
        store: from.uuid,
        features: Features::default(),
        capacity: from.capacity,
        similarity: from.similarity,
        shape: from.shape,
        search_dims: from.search_dims,
        fingerprint: from.fingerprint,
        created_at: now.into(),
        last_seq: engine.resident.read().state().next_seq.saturating_sub(1),
        memories: slots.len() as u32,
        keys: 0,
        codec_len: 0,
        memories_len: 0,
        blocks_crc: 0,
    };
    let image = engine.reading("read the codec", || read_codec(&snapshot.transaction, from, u64::MAX))?;
    let mut writer = Writer::new(file, to, header, &image)?;
    drop(image);
    let at_once = BATCH.min(BATCH_NUMBERS / from.search_dims as usize).max(1);
    let (mut done, mut keyed) = (0, 0);
    while done < slots.len() {
        let (batch, codes) =
            engine.reading("read the memories", || some(engine, snapshot, &slots[done..], at_once))?;
        done += batch.len();
        keyed += batch.iter().filter(|packed| packed.keyed).count();
        let codes: Vec<&[u8]> = codes.iter().map(Vec::as_slice).collect();
        writer.add(batch, &engine.search_vectors(&codes)?)?;
        if callers(|| progress.report(done as u64, total)).is_break() {
            return Err(Error::Cancelled);
        }
    }
    engine.reading("read the keys", || {
        let keys = snapshot.transaction.open_table(KEYS).map_err(storage("open a table"))?;
        for entry in keys.iter().map_err(storage("read the keys"))? {
            let (key, slot) = entry.map_err(storage("read the keys"))?;
            // The row of a key counts only where its slot names the key in return.
            if let Ok(row) = slots.binary_search(&slot.value())
                && engine.metadata(snapshot, slot.value())?.key.as_deref() == Some(key.value())
            {
                writer.key(row as u32);
                keyed -= 1;
            }
        }
        Ok(())
    })?;
    if keyed > 0 {
        let cause = DecodeError::Invalid { what: "the number of keys without a row", found: keyed as u64 };
        return Err(Error::Corrupt { what: "the table of keys".to_owned(), cause });
    }
    Ok(ExportReport { memories: total, bytes: writer.finish()?, parts_left_out })
}

/// The memories of the next slots, with their codes: as many as may be in memory at a time.
fn some(
    engine: &Engine,
    snapshot: &Snapshot,
    slots: &[u32],
    at_once: usize,
) -> Result<(Vec<Packed>, Vec<Vec<u8>>)> {
    let (mut batch, mut codes, mut bytes) = (Vec::new(), Vec::new(), 0);
    for &slot in slots.iter().take(at_once) {
        let (packed, code) = packed(engine, snapshot, slot)?;
        bytes += packed.record.len() + packed.metadata.len() + packed.residual.len();
        batch.push(packed);
        codes.push(code);
        if bytes > BATCH_BYTES {
            break;
        }
    }
    Ok((batch, codes))
}

/// Slots whose memories have not expired, in order, and how many hold parts of streams, which a pack does not
/// take.
fn slots_of(engine: &Engine, snapshot: &Snapshot, now: u32) -> Result<(Vec<u32>, u64)> {
    let (mut slots, mut parts) = (Vec::new(), 0);
    for entry in snapshot.slots.iter().map_err(storage("read the slots"))? {
        let (slot, value) = entry.map_err(storage("read the slots"))?;
        let record = engine.slot_record(slot.value(), value.value())?;
        if record.kind == SlotKind::StreamRoot {
            parts += 1;
        } else if record.expires_at.is_none_or(|at| at > now) {
            slots.push(slot.value());
        }
    }
    Ok((slots, parts))
}

/// A memory as it is stored, and its code.
fn packed(engine: &Engine, snapshot: &Snapshot, slot: u32) -> Result<(Packed, Vec<u8>)> {
    let stored = engine.stored_in(snapshot, slot, None)?;
    // Read again for the fields that `Stored` does not have.
    let value = snapshot.slots.get(slot).map_err(storage("look up a slot"))?;
    let (Some(stored), Some(value)) = (stored, value) else { return Err(vanished(slot)) };
    let record = value.value().to_vec();
    let known = SlotRecord::decode(&record, slot_place(engine.header.uuid, slot))?;
    if known.kind != SlotKind::Record {
        let cause = DecodeError::Invalid { what: "the kind of a slot", found: known.kind as u64 };
        return Err(Error::Corrupt { what: format!("slot {slot}"), cause });
    }
    stored.residual(engine.header.uuid)?;
    let metadata = raw(&snapshot.metadata, slot)?;
    let residual = stored.residual.unwrap_or_default();
    let row = PackRow {
        offset: 0,
        seq: known.seq,
        error: known.error,
        slot,
        record_len: record.len() as u32,
        metadata_len: metadata.len() as u32,
        residual_len: residual.len() as u32,
        expires_at: known.expires_at.unwrap_or(0),
        count: engine.count_of(stored.id),
    };
    let keyed = stored.metadata.key.is_some();
    Ok((Packed { row, keyed, record, metadata, residual }, stored.code))
}

fn raw(table: &ReadOnlyTable<u32, &'static [u8]>, slot: u32) -> Result<Vec<u8>> {
    let value = table.get(slot).map_err(storage("look up metadata"))?;
    Ok(value.map(|value| value.value().to_vec()).unwrap_or_default())
}
