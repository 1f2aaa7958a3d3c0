//! Looking after a file: find what is damaged, mend it, copy it.

mod backup;
mod check;
mod compact;
mod repair;
mod salvage;
mod verify;

pub use backup::{Backup, BackupReport};
pub use compact::CompactReport;
pub use repair::{Repair, RepairPlan, RepairStep};
pub use salvage::{Salvage, SalvageReport};
pub use verify::{Finding, Verify, VerifyReport};
