//! Output: results on standard output, progress on standard error and only to a terminal.

use crate::outcome::{Failure, Outcome};
use apcm::Error;
use apcm::ingest::npy;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fs::Permissions;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// Prints a result: one JSON document, or the text.
pub(crate) fn result(json: bool, document: &impl serde::Serialize, text: impl FnOnce() -> String) -> Outcome {
    let mut out = if json { serde_json::to_string_pretty(document).unwrap_or_default() } else { text() };
    out.push('\n');
    print(out.as_bytes())
}

/// Writes to standard output; a closed pipe is not a failure.
pub(crate) fn print(bytes: &[u8]) -> Outcome {
    match io::stdout().write_all(bytes) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Pipe),
        Err(source) => Err(Error::Io { path: "standard output".into(), source }.into()),
    }
}

/// The store's permissions, for what is decoded from it.
pub(crate) fn permissions_of(store: &Path) -> Option<Permissions> {
    let mut permissions = std::fs::metadata(store).ok()?.permissions();
    // A pack is marked read-only, which says nothing about readers.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        permissions.set_mode(permissions.mode() & 0o666 | 0o200);
    }
    #[cfg(not(unix))]
    permissions.set_readonly(false);
    Some(permissions)
}

/// Writes an array of what was decoded from a store.
pub(crate) fn array(out: &Path, store: &Path, dims: &[usize], values: &[f32]) -> Result<(), Error> {
    let mut writer = npy::Writer::create_as(out, dims, permissions_of(store))?;
    writer.push(values)?;
    writer.finish()
}

/// A progress bar, hidden without a terminal.
pub(crate) fn bar(len: u64, what: &str) -> ProgressBar {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(len), target);
    let style = ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len}  {rate}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A bar that cannot be written is ignored.
            let _ = write!(out, "{}/s", count(state.per_sec() as u64));
        });
    bar.set_style(style);
    bar.set_message(what.to_owned());
    bar
}

/// A key as text; one that is not text is shown in hexadecimal.
pub(crate) fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(_) => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Bytes as a person reads them.
pub(crate) fn bytes(count: f64) -> String {
    match count {
        count if count < 1_000.0 => format!("{count:.0} B"),
        count if count < 1e6 => format!("{:.1} kB", count / 1e3),
        count if count < 1e9 => format!("{:.2} MB", count / 1e6),
        count => format!("{:.2} GB", count / 1e9),
    }
}

/// A number with a comma between its thousands.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Lines of a name and a value, the values in one column.
pub(crate) fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1_000, 1_234_567].map(count));
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(1_234_000.0), "1.23 MB");
        assert_eq!(key_text(b"a/1"), "a/1");
        assert_eq!(key_text(&[0xff, 0x00]), "ff00");
    }
}
