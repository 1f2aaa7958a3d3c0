//! Memories on their way from one file to another: recode, export, import.

mod export;
mod import;
mod moved;
#[cfg(test)]
mod power_loss_test;
mod recode;

pub use export::{ExportPack, ExportReport};
pub use import::{Import, ImportReport, Unpack};
pub use recode::{Recode, RecodeReport};
