//! Mending a damaged file in place, in two steps: say what would be done, then do it.

use super::check::{Check, Defect, Mend};
use super::verify::{Finding, examine};
use crate::error::{Error, Result};
use crate::progress::{Progress, Reporter};
use crate::store::file::{
    Backing, COUNTERS, Handle, KEYS, META, METADATA, RESIDUALS, SLOTS, STATE, STREAMS, USES, counter_place,
    guarded, meta_place, metadata_place, open_writable, slot_place, storage,
};
use crate::store::store::Store;
use crate::store::write::durable;
use apcm_format::{CounterChunk, SlotMetadata, SlotRecord, StoreHeader, StoreState, frame, limits};
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The plan of a repair; [`apply`](Self::apply) carries it out.
#[must_use = "nothing is mended until the plan is applied"]
pub struct RepairPlan {
    path: PathBuf,
    findings: Vec<Defect>,
    needs_recovery: bool,
}

/// One thing that a repair does.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct RepairStep {
    /// What is damaged.
    pub finding: Finding,
    /// What is done about it.
    pub action: String,
    /// Whether a memory is lost by it.
    pub loses_a_memory: bool,
}

impl fmt::Debug for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepairPlan").field("path", &self.path).field("steps", &self.steps()).finish()
    }
}

/// A repair; [`plan`](Self::plan) looks at the file and says what to do.
#[must_use = "nothing is looked at until it is planned"]
pub struct Repair<'a> {
    path: PathBuf,
    progress: Reporter<'a>,
}

impl fmt::Debug for Repair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repair").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts the repair of a file that no process has open: see [`Repair`].
    pub fn repair<'a>(path: impl AsRef<Path>) -> Repair<'a> {
        Repair { path: path.as_ref().to_owned(), progress: Reporter::new("repair") }
    }
}

impl<'a> Repair<'a> {
    /// Called after each slot with how many were looked at and how many there are; may stop it.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress.set(callback);
        self
    }

    /// Looks at the file as [`Store::verify`] does, and plans; nothing is written until [`RepairPlan::apply`].
    ///
    /// # Errors
    /// As [`Verify::run`](crate::Verify::run).
    pub fn plan(mut self) -> Result<RepairPlan> {
        self.progress.begin();
        let examined = examine(&self.path, &mut self.progress)?;
        Ok(RepairPlan {
            path: self.path,
            findings: examined.findings,
            needs_recovery: examined.needs_recovery,
        })
    }
}

impl RepairPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether the file was not closed cleanly: applying the plan recovers it too.
    pub fn needs_recovery(&self) -> bool {
        self.needs_recovery
    }

    /// Whether this can be mended in place. What cannot is copied, as far as it can be read, by
    /// [`Store::salvage`](crate::Store::salvage).
    pub fn in_place(&self) -> bool {
        !self.findings.iter().any(|finding| finding.mend == Mend::Salvage)
    }

    /// What would be done, in order.
    pub fn steps(&self) -> Vec<RepairStep> {
        let step = |finding: &Defect| RepairStep {
            finding: Finding::from(finding),
            action: action(&finding.mend),
            loses_a_memory: matches!(finding.mend, Mend::Free(_)),
        };
        self.findings.iter().map(step).collect()
    }

    /// Mends the file, each pass in one durable transaction, until nothing is found any more. What is mended is
    /// looked at again under the lock and within that transaction, so a slot that got another memory since is
    /// not freed.
    ///
    /// # Errors
    /// [`Argument`](Error::Argument) where it cannot be mended in place, and when the file changed since the
    /// plan was made; as [`Store::open`](crate::Store::open). Nothing was written then.
    pub fn apply(self) -> Result<()> {
        if !self.in_place() {
            let found = "damage that `salvage` alone can get around";
            return Err(Error::argument("a file to mend in place", "one whose pages can be read", found));
        }
        let (handle, header) = open_writable(&Backing::File(self.path.clone()))?;
        let Handle::Writable(database) = &handle else { return Err(Error::ReadOnly) };
        let mut before = None;
        loop {
            let left = guarded("mend the file", || {
                let transaction = database.begin_write().map_err(storage("begin a write"))?;
                let findings = findings(database, &header)?;
                match &before {
                    None if findings != self.findings => {
                        let found = "one of another state";
                        return Err(Error::argument("a plan to apply", "of the file as it is", found));
                    }
                    Some(before) if findings == *before && !findings.is_empty() => {
                        let source = format!("{} findings are left as they were", findings.len()).into();
                        return Err(Error::Storage { during: "mend the file", source });
                    }
                    _ => {}
                }
                for finding in &findings {
                    mend(&transaction, &header, &finding.mend)?;
                }
                match findings.is_empty() {
                    true => transaction.abort().map_err(storage("end the repair"))?,
                    false => durable(transaction)?,
                }
                Ok(findings)
            })?;
            // What was freed leaves metadata, residuals and counts behind that no slot has: they go in a second
            // pass.
            if left.is_empty() {
                return Ok(());
            }
            before = Some(left);
        }
    }
}

/// What is to be mended, as far as rows tell.
fn findings(database: &Database, header: &StoreHeader) -> Result<Vec<Defect>> {
    let transaction = database.begin_read().map_err(storage("begin a read"))?;
    let mut check = Check::new(&transaction, header);
    check.run(&mut Reporter::new("repair"))?;
    Ok(check.findings)
}

fn action(mend: &Mend) -> String {
    match mend {
        Mend::Free(slot) => format!("free slot {slot}: its memory is lost"),
        Mend::DropMetadata(slot) => format!("keep slot {slot} without key and values"),
        Mend::Unname(slot) => format!("keep slot {slot} without its key"),
        Mend::DropResidual(slot) => format!("keep slot {slot} as its code alone gives it"),
        Mend::DropKey(key) => format!("forget the key {:?}", String::from_utf8_lossy(key)),
        Mend::AddKey(key, slot) => {
            format!("let the key {:?} lead to slot {slot}", String::from_utf8_lossy(key))
        }
        Mend::ResetCounts(number) => format!("begin the counts of chunk {number} again at 0"),
        Mend::ClearCounts(number, slots) => format!("set {} counts of chunk {number} to 0", slots.len()),
        Mend::DropHead(name) => format!("let the stream {name:?} go on in a part of its own"),
        Mend::DropUses(number) => {
            format!("estimate the uses of chunk {number} from counts and ages")
        }
        Mend::ResetState => {
            "begin the lifetime totals again, and number writes above all there are".to_owned()
        }
        Mend::DropPosition(name) => format!("forget {name:?}: that dataset is begun again"),
        Mend::Salvage => "not in place: `apcm salvage` copies what can be read".to_owned(),
    }
}

fn mend(transaction: &WriteTransaction, header: &StoreHeader, mend: &Mend) -> Result<()> {
    let uuid = header.uuid;
    match mend {
        Mend::Free(slot) => {
            let mut slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
            slots.remove(*slot).map_err(storage("free a slot"))?;
        }
        Mend::DropMetadata(slot) => {
            let mut table = transaction.open_table(METADATA).map_err(storage("open a table"))?;
            table.remove(*slot).map_err(storage("drop metadata"))?;
        }
        Mend::Unname(slot) => {
            let mut table = transaction.open_table(METADATA).map_err(storage("open a table"))?;
            let place = metadata_place(uuid, *slot);
            let said = match table.get(*slot).map_err(storage("read metadata"))? {
                Some(value) => frame::open::<SlotMetadata>(value.value(), place)?,
                None => return Ok(()),
            };
            let unnamed = frame::seal(&SlotMetadata { key: None, ..said }, place)?;
            table.insert(*slot, unnamed.as_slice()).map_err(storage("write metadata"))?;
        }
        Mend::DropResidual(slot) => drop_residual(transaction, header, *slot)?,
        Mend::DropKey(key) => {
            let mut keys = transaction.open_table(KEYS).map_err(storage("open a table"))?;
            keys.remove(key.as_slice()).map_err(storage("drop a key"))?;
        }
        Mend::AddKey(key, slot) => {
            let mut keys = transaction.open_table(KEYS).map_err(storage("open a table"))?;
            keys.insert(key.as_slice(), *slot).map_err(storage("write a key"))?;
        }
        Mend::ResetCounts(number) => {
            let mut counters = transaction.open_table(COUNTERS).map_err(storage("open a table"))?;
            counters.remove(*number).map_err(storage("reset counts"))?;
        }
        Mend::ClearCounts(number, free) => {
            let mut counters = transaction.open_table(COUNTERS).map_err(storage("open a table"))?;
            let place = counter_place(uuid, *number);
            let mut chunk = match counters.get(*number).map_err(storage("read counts"))? {
                Some(value) => CounterChunk::decode(value.value(), place)?,
                None => return Ok(()),
            };
            let first = number * limits::COUNTERS_PER_CHUNK as u32;
            for (slot, count) in (first..).zip(&mut chunk.counts) {
                if free.contains(&slot) {
                    *count = 0;
                }
            }
            counters.insert(*number, chunk.encode(place).as_slice()).map_err(storage("write counts"))?;
        }
        Mend::DropHead(name) => {
            let mut streams = transaction.open_table(STREAMS).map_err(storage("open a table"))?;
            streams.remove(name.as_str()).map_err(storage("forget a head"))?;
        }
        Mend::DropUses(number) => {
            let mut uses = transaction.open_table(USES).map_err(storage("open a table"))?;
            uses.remove(*number).map_err(storage("drop uses"))?;
        }
        Mend::ResetState => reset_state(transaction, header)?,
        Mend::DropPosition(name) => {
            let mut meta = transaction.open_table(META).map_err(storage("open a table"))?;
            meta.remove(name.as_str()).map_err(storage("drop a position"))?;
        }
        Mend::Salvage => {}
    }
    Ok(())
}

/// Takes a slot's residual away, if there is one, and tells its record.
fn drop_residual(transaction: &WriteTransaction, header: &StoreHeader, slot: u32) -> Result<()> {
    let mut residuals = transaction.open_table(RESIDUALS).map_err(storage("open a table"))?;
    residuals.remove(slot).map_err(storage("drop a residual"))?;
    let mut slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
    let place = slot_place(header.uuid, slot);
    let changed = match slots.get(slot).map_err(storage("read a slot"))? {
        Some(value) => match SlotRecord::decode(value.value(), place) {
            // How good the code is alone stood in the residual.
            Ok(record) if record.flags.residual => Some(record.without_residual(None).encode(place)?),
            _ => None,
        },
        None => None,
    };
    if let Some(changed) = changed {
        slots.insert(slot, changed.as_slice()).map_err(storage("write a slot"))?;
    }
    Ok(())
}

fn reset_state(transaction: &WriteTransaction, header: &StoreHeader) -> Result<()> {
    // Words of the policy are times of a clock that counts reads and writes: the clock begins again, and they
    // with it.
    transaction.delete_table(USES).map_err(storage("clear the uses"))?;
    let slots = transaction.open_table(SLOTS).map_err(storage("open a table"))?;
    let mut highest = 0;
    for row in slots.iter().map_err(storage("read the slots"))? {
        let (slot, value) = row.map_err(storage("read the slots"))?;
        if let Ok(record) = SlotRecord::decode(value.value(), slot_place(header.uuid, slot.value())) {
            highest = highest.max(record.seq);
        }
    }
    let mut meta = transaction.open_table(META).map_err(storage("open a table"))?;
    let place = meta_place(header.uuid, STATE);
    let known = match meta.get(STATE).map_err(storage("read the state"))? {
        Some(value) => frame::open::<StoreState>(value.value(), place).ok(),
        None => None,
    };
    let state = StoreState { next_seq: highest + 1, ..known.unwrap_or_default() };
    let sealed = frame::seal(&state, place)?;
    meta.insert(STATE, sealed.as_slice()).map_err(storage("write the state"))?;
    Ok(())
}
