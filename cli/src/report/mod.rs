//! `apcm report`: how codecs do on the user's own data.

mod data;
mod draw;
mod measure;
mod options;
mod own;
mod page;
mod run;
mod summary;
mod table;

pub(crate) use options::Report;
pub(crate) use run::run;
