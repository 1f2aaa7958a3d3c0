//! How far a training is, and how much time it has.

use crate::progress::{Callback, Progress};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// When a training began, and how long all of it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeBudget {
    pub(crate) began: Instant,
    pub(crate) time_max: Option<Duration>,
}

impl TimeBudget {
    pub(crate) fn is_over(&self) -> bool {
        self.time_max.is_some_and(|time_max| self.began.elapsed() >= time_max)
    }
}

/// Tells the progress callback how far a quantizer is, and the quantizer whether to end.
pub(crate) fn watch<'a, 'c>(
    progress: &'a mut Option<Callback<'c>>,
    time: TimeBudget,
) -> impl FnMut(usize, usize) -> ControlFlow<()> + use<'a, 'c> {
    let counted = Instant::now();
    move |step, steps_max| {
        let seen = Progress::new("quantizer", (step as u64, steps_max as u64), time.began, counted);
        if let Some(callback) = progress {
            callback(&seen)?;
        }
        if time.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
