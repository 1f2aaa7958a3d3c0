//! A table of methods.

use apcm::report::Row;

/// Columns of a table of rows.
pub(crate) const COLUMNS: usize = 9;

/// Method, bytes, slot bytes, PSNR, relative error, SSIM, recall, encoded and decoded a second, as a table
/// shows them.
pub(crate) fn cells(row: &Row) -> [String; COLUMNS] {
    let number =
        |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    [
        row.method.clone(),
        number(Some(row.bytes), 2),
        number(row.slot_bytes, 1),
        number(Some(row.psnr_db), 2),
        number(row.relative_error, 4),
        number(row.ssim, 3),
        number(row.recall_at_10, 3),
        number(row.encode_per_s, 0),
        number(row.decode_per_s, 0),
    ]
}
