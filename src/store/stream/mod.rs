//! Streams: sequences of records, each folded into a few slots.
//!
//! As many records as a sweeper tree takes are one *part*: a slot whose code is the tree's state, found by the
//! mean of its records' search vectors and evicted like any memory. The slot's metadata say `stream`, `first`
//! and `len`, and its key, which no user can give, leads to it. What appending needs besides, the subtrees that
//! wait, is the stream's *head*.
//!
//! A head that is lost costs nothing but room: the next append begins a part of its own.

mod append;
mod handle;
mod parts;
mod recall;
mod retry;

pub(crate) use append::content;
pub use handle::{Appended, Recalled, Stream, StreamInfo};
