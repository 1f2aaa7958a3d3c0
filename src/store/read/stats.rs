//! The store in numbers.

use crate::error::Result;
use crate::store::engine::Engine;
use crate::store::outcome::{CodecStats, Stats};
use crate::store::store::Store;
use crate::summary::ErrorSummary;

impl Store {
    /// How many memories there are, expired ones not counted.
    pub fn len(&self) -> usize {
        let now = self.engine.now();
        let resident = self.engine.resident.read();
        resident.bank().occupied() as usize - resident.bank().expired(now).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The store in numbers.
    ///
    /// # Errors
    /// [`Storage`](crate::Error::Storage), [`Io`](crate::Error::Io).
    pub fn stats(&self) -> Result<Stats> {
        self.engine.stats()
    }
}

impl Engine {
    fn stats(&self) -> Result<Stats> {
        self.check_usable()?;
        let file_bytes = self.backing.len()?;
        let resident = self.resident.read();
        let sums = resident.sums();
        let readable = f64::from(resident.bank().occupied() - sums.damaged).max(1.0);
        let occupied = resident.bank().occupied();
        let slot_bytes = sums.stored_bytes as f64 / f64::from(occupied).max(1.0);
        let info = self.codec.info();
        Ok(Stats {
            capacity: self.header.capacity,
            occupied,
            free: self.header.capacity - occupied,
            policy: resident.policy(),
            pinned: resident.bank().pinned(),
            damaged: sums.damaged,
            code_bytes: sums.code_bytes as f64 / readable,
            slot_bytes: if occupied == 0 { 0.0 } else { slot_bytes },
            record_shape: self.header.shape.dims(),
            residuals: sums.residuals,
            stored_bytes: sums.stored_bytes,
            memory_bytes: resident.memory(),
            byte_budget: resident.state().byte_budget,
            residuals_dropped: resident.state().residuals_dropped,
            file_bytes,
            mean_error: sums.error / readable,
            errors: ErrorSummary::of(&resident.errors()),
            reads: resident.reads(),

            evictions: resident.state().evictions,
            evictions_never_read: resident.state().evictions_never_read,
            codec: CodecStats {
                preset: info.preset,
                quantizer: info.quantizer,
                fingerprint: self.header.fingerprint.to_string(),
                parameters: info.parameters,
                bytes: self.codec_bytes,
            },
        })
    }
}
