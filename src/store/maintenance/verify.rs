//! Is everything in this file as it must be? Nothing is written.

use super::check::{Check, Checked, Defect, Mend};
use crate::error::{Error, Result};
use crate::progress::{Progress, Reporter};
use crate::store::file::{Look, guarded, look, look_recovering, storage};
use crate::store::store::Store;
use redb::ReadableDatabase;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Something in a store that is not as it must be.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The slot it concerns.
    pub slot: Option<u32>,
    /// What is damaged.
    pub what: String,
    /// How.
    pub cause: String,
}

impl From<&Defect> for Finding {
    fn from(finding: &Defect) -> Self {
        let Defect { slot, what, cause, .. } = finding.clone();
        Self { slot, what, cause }
    }
}

/// Findings of a verification, and how much it checked.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Whether nothing is damaged. A file that only needs recovery after a crash is not damaged.
    pub ok: bool,
    /// Whether it was not closed cleanly. Opening it for writing recovers it; this report is of what it will be
    /// then.
    pub needs_recovery: bool,
    /// Whether the database's own checksums hold, of every page that is in use.
    pub pages_ok: bool,
    /// Slot records looked at, and as many codes.
    pub slots_checked: u64,
    /// Rows of metadata looked at.
    pub metadata_checked: u64,
    /// Residuals looked at.
    pub residuals_checked: u64,
    /// Rows of keys looked at.
    pub keys_checked: u64,
    /// Chunks of access counts looked at.
    pub counter_chunks_checked: u64,
    /// Chunks of the policy's words looked at.
    pub use_chunks_checked: u64,
    /// Heads of streams looked at.
    pub streams_checked: u64,
    /// Chunks of the codec, and of the sweeper tree, looked at.
    pub codec_chunks_checked: u64,
    /// Everything that is damaged, in the order in which it was found.
    pub findings: Vec<Finding>,
}

/// A verification; [`run`](Self::run) makes it.
#[must_use = "nothing is verified until it is run"]
pub struct Verify<'a> {
    path: PathBuf,
    progress: Reporter<'a>,
}

impl fmt::Debug for Verify<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts a verification of a file that no process has open for writing: see [`Verify`].
    pub fn verify<'a>(path: impl AsRef<Path>) -> Verify<'a> {
        Verify::new(path.as_ref())
    }
}

impl<'a> Verify<'a> {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), progress: Reporter::new("verify") }
    }

    /// Called after each slot with how many were looked at and how many there are; may stop the verification.
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.progress.set(callback);
        self
    }

    /// Looks at everything: every checksum, every row against the rows that must agree with it, every code
    /// against the codec, and the database's own checksums.
    ///
    /// Cost: reads the file twice. The file is opened for reading only and is left byte for byte as it was, a
    /// recovery after a crash included, which happens in memory.
    ///
    /// # Errors
    /// [`NotAStore`](Error::NotAStore), [`TooNew`](Error::TooNew), [`Locked`](Error::Locked) while it is open
    /// for writing, [`Io`](Error::Io), [`Cancelled`](Error::Cancelled). Damage is no error: it is in the
    /// report.
    pub fn run(mut self) -> Result<VerifyReport> {
        self.progress.begin();
        let examined = examine(&self.path, &mut self.progress)?;
        let Examined { findings, checked, needs_recovery, pages_ok } = examined;
        Ok(VerifyReport {
            ok: findings.is_empty(),
            needs_recovery,
            pages_ok,
            slots_checked: checked.slots,
            metadata_checked: checked.metadata,
            residuals_checked: checked.residuals,
            keys_checked: checked.keys,
            counter_chunks_checked: checked.counter_chunks,
            use_chunks_checked: checked.use_chunks,
            streams_checked: checked.streams,
            codec_chunks_checked: checked.codec_chunks,
            findings: findings.iter().map(Finding::from).collect(),
        })
    }
}

/// Everything found about a file.
pub(crate) struct Examined {
    pub(crate) findings: Vec<Defect>,
    pub(crate) checked: Checked,
    pub(crate) needs_recovery: bool,
    pub(crate) pages_ok: bool,
}

pub(crate) fn examine(path: &Path, progress: &mut Reporter<'_>) -> Result<Examined> {
    let unreadable = |what: &str, error: &Error| Defect {
        slot: None,
        what: what.to_owned(),
        cause: error.to_string(),
        mend: Mend::Salvage,
    };
    let mut examined = Examined {
        findings: Vec::new(),
        checked: Checked::default(),
        needs_recovery: false,
        pages_ok: false,
    };
    let looked = match look(path) {
        // A file that begins like a database and cannot be opened may have been a store. The database can
        // rebuild its account of the pages; then their contents are checked.
        Err(error @ (Error::Corrupt { .. } | Error::Storage { .. })) => {
            examined.findings.push(unreadable("the file", &error));
            look_recovering(path).ok()
        }
        other => Some(other?),
    };
    if let Some(Look { database, header, needs_recovery }) = looked {
        examined.needs_recovery = needs_recovery;
        let looked = guarded("read the tables", || {
            let transaction = database.begin_read().map_err(storage("begin a read"))?;
            let mut check = Check::new(&transaction, &header);
            check.run(progress)?;
            Ok((check.findings, check.checked))
        });
        match looked {
            Ok((findings, checked)) => {
                examined.findings.extend(findings);
                examined.checked = checked;
            }
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => examined.findings.push(unreadable("the tables", &error)),
        }
    }
    // In a view of its own: the database may roll its view back, or stop at what it meets.
    let pages = guarded("check the pages", || {
        let Look { mut database, .. } = look(path)?;
        database.check_integrity().map_err(storage("check the pages"))
    });
    match pages {
        Ok(true) => examined.pages_ok = true,
        Ok(false) => examined.findings.push(Defect {
            slot: None,
            what: "the database's pages".to_owned(),
            cause: "their checksums do not hold".to_owned(),
            mend: Mend::Salvage,
        }),
        Err(error) if examined.findings.is_empty() => {
            examined.findings.push(unreadable("the database's pages", &error));
        }
        Err(_) => {}
    }
    Ok(examined)
}
