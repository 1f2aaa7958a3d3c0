//! Writes: operations are staged, placed purely, and applied in one durable commit.

mod commit;
mod flusher;
mod plan;
mod set_policy;
mod single;
mod space;
mod tables;
mod transaction;
mod tree;

pub(crate) use commit::durable;
pub(crate) use flusher::Flusher;
pub(crate) use set_policy::check_policy;
pub use transaction::Transaction;
