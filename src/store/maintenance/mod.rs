//! Looking after a file: find what is damaged, mend it, copy it.

mod backup;
mod check;
mod compact;
mod repair;
mod salvage;
mod verify;

pub use backup::{Backup, BackupReport};
pub use compact::CompactReport;
pub(super) use compact::compact;
pub use repair::{RepairPlan, RepairStep};
pub use salvage::SalvageReport;
pub(super) use salvage::salvage;
pub use verify::{Damage, Verify, VerifyReport};
