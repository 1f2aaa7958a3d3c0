//! Metrics of reconstructions and searches.

mod metrics;
mod row;

pub use metrics::{
    mean_absolute_error, mean_psnr_db, mean_squared_error, psnr_db, recall_at, relative_error,
    squared_errors, ssim, variance,
};
pub use row::Row;
