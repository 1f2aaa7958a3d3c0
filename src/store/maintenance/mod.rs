//! Looking after a file: find what is damaged, mend it, copy it.

mod check;
mod compact;
mod verify;

pub use compact::CompactReport;
pub(super) use compact::compact;
pub use verify::{Damage, Verify, VerifyReport};
