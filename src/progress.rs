//! How far long work is: one shape of callback for all of it.

use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How far a piece of long work is; a callback gets it and returns whether to go on.
///
/// ```
/// # use apcm::{InMemoryBackend, PlainCodec, Store};
/// # use std::ops::ControlFlow;
/// # fn main() -> apcm::Result<()> {
/// # let store = Store::builder().capacity(8).create_on(InMemoryBackend::new(), PlainCodec::new(&[2], 2)?)?;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("copy.apcm");
/// store.backup(&path).progress(|progress| {
///     println!("{}: {} of {}", progress.stage, progress.done, progress.total);
///     ControlFlow::Continue(())
/// }).run()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// What is being done: `verify`, `backup`, `ingest`, a stage of a training.
    pub stage: &'a str,
    /// Units done: slots, rows, records or steps.
    pub done: u64,
    /// Units there are, as far as that is known.
    pub total: u64,
    /// Time since the work began.
    pub elapsed: Duration,
    /// Training only: the latest loss of the stage.
    pub loss: Option<f64>,
    /// Units that an earlier run had done.
    first: u64,
    /// Time since the first of these units.
    counted: Duration,
}

impl<'a> Progress<'a> {
    /// Of work that began at `began`, and whose units are counted since `counted`.
    pub(crate) fn new(stage: &'a str, (done, total): (u64, u64), began: Instant, counted: Instant) -> Self {
        let (elapsed, counted) = (began.elapsed(), counted.elapsed());
        Self { stage, done, total, elapsed, loss: None, first: 0, counted }
    }

    pub(crate) fn with_loss(self, loss: Option<f64>) -> Self {
        Self { loss, ..self }
    }

    /// The same under another name.
    pub(crate) fn named<'b>(&self, stage: &'b str) -> Progress<'b> {
        Progress { stage, ..*self }
    }

    /// Units of this stage a second, in this run.
    pub fn rate(&self) -> f64 {
        self.done.saturating_sub(self.first) as f64 / self.counted.as_secs_f64().max(1e-9)
    }

    /// Time until the end, at this rate.
    pub fn remaining(&self) -> Duration {
        let seconds = self.total.saturating_sub(self.done) as f64 / self.rate().max(1e-9);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// A callback of the user's.
pub(crate) type Callback<'a> = Box<dyn FnMut(&Progress<'_>) -> ControlFlow<()> + 'a>;

/// Calls the callback of one piece of work, if there is one.
pub(crate) struct Reporter<'a> {
    stage: &'static str,
    /// When the work began: at the first report, unless that was said.
    began: Option<Instant>,
    first: u64,
    callback: Option<Callback<'a>>,
}

impl fmt::Debug for Reporter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl<'a> Reporter<'a> {
    /// For work of this name.
    pub(crate) fn new(stage: &'static str) -> Self {
        Self { stage, began: None, first: 0, callback: None }
    }

    pub(crate) fn set(&mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) {
        self.callback = Some(Box::new(callback));
    }

    /// Begins to measure the time.
    pub(crate) fn begin(&mut self) {
        self.began = Some(Instant::now());
    }

    /// So many units were done by an earlier run.
    pub(crate) fn skip(&mut self, first: u64) {
        self.first = first;
    }

    /// Asks whether to go on.
    pub(crate) fn report(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        let Some(callback) = &mut self.callback else { return ControlFlow::Continue(()) };
        let began = *self.began.get_or_insert_with(Instant::now);
        callback(&Progress { first: self.first, ..Progress::new(self.stage, (done, total), began, began) })
    }
}
