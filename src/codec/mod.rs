//! Codecs: records into codes and back.
//!
//! A [`Codec`] is batch first and speaks host types only, so a store can keep any codec behind one pointer and
//! a test can write one in a page. What it promises the store:
//! - Codes are byte strings of variable length, at most [`Codec::code_len_max`].
//! - What [`Codec::encode`] measured is what [`Codec::decode`] returns, up to rounding.
//! - Search vectors depend on the code alone, have one length, and can be made again at any time.
//! - Decoding never panics on a code of the wrong length or content: codes come from disk.

mod bound;
mod device;
pub(crate) mod fidelity;
pub mod flow;
mod interface;
mod load;
mod measure;
mod plain;
pub(crate) mod principal_axes;
pub mod quantizer;
pub mod train;
pub(crate) mod weights;

pub use bound::GaussianBound;
pub use device::Device;
pub use fidelity::Fidelity;
pub use flow::FlowCodec;
pub use interface::{Codec, CodecInfo, Encoded, StoredCode, fingerprint};
pub use load::load;
pub(crate) use measure::{error_and_norm, mean_record};
pub use plain::PlainCodec;
pub use quantizer::{EntropySpec, QuantizerSpec, Rate, counted_bytes};
pub use train::{
    Autoencoder, EndedBy, LossPoint, QuantizerChoice, StageReport, TrainReport, Trained, Trainer,
};
