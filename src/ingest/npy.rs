//! NumPy's array format, versions 1 to 3: little-endian floats and bytes in C order.
//!
//! The header is a Python dictionary as text. Three keys in any order are all it may have, so a small reader of
//! that text takes the place of a library that would bring a parser generator and big integers along.

use super::header::{Element, Header};
use crate::error::{Error, Result};
use crate::whole_file::{self, NewFile, Taken};
use std::fs::Permissions;
use std::io::Write;
use std::path::Path;

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header text that is looked at; NumPy writes about 100 bytes.
const TEXT_LEN_MAX: usize = 4_096;

/// Reads the header of an array of 1 to 4 axes.
pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("an npy file starts with 93 NUMPY")?;
    let (&[major, _minor], rest) = rest.split_first_chunk().ok_or("the npy header is cut short")?;
    let (len, len_len, rest) = match major {
        1 => rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_le_bytes(*len)), 2, rest)),
        2 | 3 => rest.split_first_chunk().map(|(len, rest)| (u32::from_le_bytes(*len) as usize, 4, rest)),
        _ => return Err(format!("npy versions 1 to 3 are read, found {major}")),
    }
    .ok_or("the npy header is cut short")?;
    if len > TEXT_LEN_MAX {
        return Err(format!("the npy header has {len} bytes, at most {TEXT_LEN_MAX} are read"));
    }
    // Copied out of the mapping first: text that is checked must be text that stays.
    let text = rest.get(..len).ok_or("the npy header is cut short")?.to_vec();
    let text = &String::from_utf8(text).map_err(|_| "the npy header is not text")?;
    let descr = quoted(value(text, "descr")?)?;
    let element = match descr {
        "|u1" | "u1" | "<u1" => Element::U8,
        "<f2" => Element::F16,
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        other => {
            return Err(format!("arrays of little-endian f16, f32, f64 or u8 are read, found {other:?}"));
        }
    };
    let dims = shape(value(text, "shape")?)?;
    match value(text, "fortran_order")? {
        order if order.starts_with("False") => {}
        // With one axis both orders are the same.
        order if order.starts_with("True") && dims.len() == 1 => {}
        order if order.starts_with("True") => {
            return Err(
                "arrays in C order are read, this one is in Fortran order: save np.ascontiguousarray of it"
                    .into(),
            );
        }
        _ => return Err("the npy header does not say its order".into()),
    }
    if dims.is_empty() || dims.len() > 4 {
        return Err(format!("an array of 1 to 4 axes was expected, found {}", dims.len()));
    }
    Ok(Header { dims, element, data: MAGIC.len() + 2 + len_len + len })
}

/// The text behind `'name':`.
fn value<'a>(text: &'a str, name: &str) -> Result<&'a str, String> {
    let missing = || format!("the npy header has no {name:?}");
    let (_, rest) = ["'", "\""]
        .iter()
        .find_map(|quote| text.split_once(&format!("{quote}{name}{quote}")))
        .ok_or_else(missing)?;
    Ok(rest.trim_start().strip_prefix(':').ok_or_else(missing)?.trim_start())
}

fn quoted(text: &str) -> Result<&str, String> {
    let bad = || "the npy header's descr is not a plain type".to_owned();
    let quote = text.chars().next().filter(|&quote| quote == '\'' || quote == '"').ok_or_else(bad)?;
    text[1..].split_once(quote).map(|(inner, _)| inner).ok_or_else(bad)
}

fn shape(text: &str) -> Result<Vec<usize>, String> {
    let bad = || "the npy header's shape is not a tuple of numbers".to_owned();
    let (inner, _) = text.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(bad)?;
    inner
        .split(',')
        .map(str::trim)
        .filter(|number| !number.is_empty())
        .map(|number| number.trim_end_matches('L').parse().map_err(|_| bad()))
        .collect()
}

/// Writes an `f32` array. A file of that name is replaced when the array is whole.
///
/// # Errors
/// [`Io`](Error::Io).
pub fn write(path: &Path, dims: &[usize], values: &[f32]) -> Result<()> {
    let mut writer = Writer::create(path, dims)?;
    writer.push(values)?;
    writer.finish()
}

/// Writes an `f32` array piece by piece.
#[derive(Debug)]
#[must_use = "without `finish` no file appears"]
pub struct Writer {
    path: std::path::PathBuf,
    new: NewFile,
    /// The same file.
    file: std::io::BufWriter<std::fs::File>,
    permissions: Option<Permissions>,
    left: usize,
}

impl Writer {
    /// Starts an array with these axes. The file gets its name when it is [finished](Self::finish), and
    /// replaces one that has it.
    ///
    /// # Errors
    /// [`Io`](Error::Io).
    pub fn create(path: &Path, dims: &[usize]) -> Result<Self> {
        Self::create_as(path, dims, whole_file::usual_permissions())
    }

    /// The same, with permissions.
    pub fn create_as(path: &Path, dims: &[usize], permissions: Option<Permissions>) -> Result<Self> {
        let tuple = match dims {
            [one] => format!("({one},)"),
            _ => format!("({})", dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple}, }}");
        // The data starts at a multiple of 64, and the header ends with a newline.
        let unpadded = MAGIC.len() + 4 + text.len() + 1;
        text.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
        text.push('\n');
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&[1, 0]);
        head.extend_from_slice(&(text.len() as u16).to_le_bytes());
        head.extend_from_slice(text.as_bytes());
        let new = NewFile::create(path, Taken::Replace)?;
        let file = std::io::BufWriter::new(new.file().try_clone().map_err(Error::io(path))?);
        let left = dims.iter().product();
        let mut writer = Self { path: path.to_owned(), new, file, permissions, left };
        writer.file.write_all(&head).map_err(Error::io(path))?;
        Ok(writer)
    }

    /// Adds values.
    ///
    /// # Errors
    /// [`Io`](Error::Io), and [`Argument`](Error::Argument) for more values than the axes announced.
    pub fn push(&mut self, values: &[f32]) -> Result<()> {
        self.left = self.left.checked_sub(values.len()).ok_or_else(|| {
            Error::argument("the values of an array", format!("at most {} more", self.left), values.len())
        })?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.write_all(&bytes).map_err(Error::io(&self.path))
    }

    /// Ends the array.
    ///
    /// # Errors
    /// [`Io`](Error::Io), and [`Argument`](Error::Argument) for fewer values than the axes announced.
    pub fn finish(mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::argument("the values of an array", format!("{} more", self.left), 0));
        }
        self.file.flush().map_err(Error::io(&self.path))?;
        self.new.finish(self.permissions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, text: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[version, 0]);
        match version {
            1 => bytes.extend_from_slice(&(text.len() as u16).to_le_bytes()),
            _ => bytes.extend_from_slice(&(text.len() as u32).to_le_bytes()),
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn reads_what_numpy_writes() {
        for (version, descr, element) in [
            (1, "<f4", Element::F32),
            (2, "<f2", Element::F16),
            (3, "<f8", Element::F64),
            (1, "|u1", Element::U8),
        ] {
            let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (7, 3), }}   \n");
            let found = header(&file(version, &text)).unwrap();
            assert_eq!((found.dims, found.element), (vec![7, 3], element));
        }
        assert_eq!(
            header(&file(1, "{'shape': (5,), 'descr': '<f4', 'fortran_order': True}")).unwrap().dims,
            [5]
        );
    }

    #[test]
    fn says_what_is_wrong_with_the_rest() {
        let dict = |descr: &str, order: &str, shape: &str| {
            file(1, &format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"))
        };
        for (bytes, part) in [
            (b"\x93NUMPY".to_vec(), "cut short"),
            (file(9, "{}"), "found 9"),
            (dict("'>f4'", "False", "(1,)"), ">f4"),
            (dict("'<i8'", "False", "(1,)"), "<i8"),
            (dict("[('a', '<f4')]", "False", "(1,)"), "plain type"),
            (dict("'<f4'", "True", "(2, 3)"), "Fortran"),
            (dict("'<f4'", "False", "()"), "found 0"),
            (dict("'<f4'", "False", "(1, 2, 3, 4, 5)"), "found 5"),
            (dict("'<f4'", "False", "(-1,)"), "tuple"),
            (dict("'<f4'", "False", "(99999999999999999999999,)"), "tuple"),
            (file(1, "{'descr': '<f4', 'fortran_order': False}"), "shape"),
        ] {
            let error = header(&bytes).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
