//! Figures and pictures about codecs.

mod metrics;
#[cfg(feature = "cli")]
pub mod pictures;

pub use metrics::{mean_squared_error, psnr_db};
