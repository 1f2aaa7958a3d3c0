//! What a transaction stages, as values, and the queue in which transactions wait for a commit.

mod content;
mod group;
mod operation;

pub(crate) use content::{Content, ROUNDING_MARGIN, SearchVector};
pub(crate) use group::Group;
pub(crate) use operation::{Expected, Expiry, Op, Source, changed, is_changed};
