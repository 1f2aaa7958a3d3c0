//! The store: one file, a fixed number of slots, a codec.
//!
//! The only user of redb. Memory (search vectors, occupancy, counts) changes only after the commit that it
//! reflects. A commit that is refused before it is written leaves the handle as it was; a storage error poisons
//! it.
//!
//! In order of dependency: each row imports only the rows above it.
//!
//! | | |
//! | --- | --- |
//! | `outcome` | results of operations, as values |
//! | `file/` | bytes on a medium: open, create, lock, probe, tables. Knows no memories |
//! | `resident/` | what is kept in RAM, rebuilt from the file on open; never writes |
//! | `staged/` | operations of transactions, as values, and the queue of a group commit |
//! | `engine` | the shared fields and locks |
//! | `store` | the handle |
//! | `read/` | snapshots: get, search, soft reads, iteration, statistics; never writes |
//! | `write/` | transactions, and one commit, planned purely and applied once |
//! | `builder` | create and open |
//! | `stream/` | sequences folded into slots |
//! | `transfer/` | recode, export, import |
//! | `maintenance/` | verify, repair, salvage, backup, compact |
//!
//! `read`, `write`, `builder`, `stream`, `transfer` and `maintenance` each add their methods to [`Store`].

mod builder;
mod engine;
mod file;
mod maintenance;
mod outcome;
mod read;
mod resident;
mod staged;
#[expect(clippy::module_inception, reason = "the handle is the store")]
mod store;
mod stream;
mod transfer;
mod write;

pub use builder::StoreBuilder;
pub use file::panic_becomes_error;
pub use maintenance::{
    Backup, BackupReport, CompactReport, Finding, Repair, RepairPlan, RepairStep, Salvage, SalvageReport,
    Verify, VerifyReport,
};
pub use outcome::{Attributes, CodecStats, Committed, Description, Evicted, HotFirstReport, Stats, Written};
pub use read::{AccessFrequency, Entries, Entry, MemoryFrequency, SoftMemory, SoftRead, SoftShare};
pub use store::Store;
pub use stream::{Appended, Recalled, Stream, StreamInfo};
pub use transfer::{ExportPack, ExportReport, Import, ImportReport, Recode, RecodeReport, Unpack};
pub use write::Transaction;
