//! One self-contained page: a table, pictures inside, nothing loaded from anywhere.

use super::table::cells;
use apcm::report::Row;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write;

/// A picture of a page.
#[derive(Debug)]
pub(crate) struct Figure<'a> {
    /// What it shows.
    pub(crate) caption: &'a str,
    /// The bytes of a PNG.
    pub(crate) png: &'a [u8],
}

/// What a page says.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    /// Its heading.
    pub(crate) title: &'a str,
    /// Sentences under the heading.
    pub(crate) said: &'a [String],
    /// The table.
    pub(crate) rows: &'a [Row],
    /// The pictures.
    pub(crate) figures: &'a [Figure<'a>],
}

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fafafa; margin: 0 auto;
  max-width: 62rem; padding: 2rem 1rem }
h1 { font-size: 1.6rem; margin-bottom: .3rem } p { margin: .3rem 0 }
table { border-collapse: collapse; margin: 1.5rem 0; width: 100%; background: #fff;
  font-variant-numeric: tabular-nums }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #e6e6e6 }
th { font-weight: 600; background: #f1f3f5 } th:first-child, td:first-child { text-align: left }
tr.own { background: #eef6ff; font-weight: 600 } tr.group td { border-top: 2px solid #bbb }
figure { margin: 1.5rem 0; background: #fff; padding: 1rem; border: 1px solid #e6e6e6 }
img { max-width: 100%; image-rendering: auto; display: block; margin: 0 auto } figcaption { color: #555;
  margin-top: .5rem }
";

impl Page<'_> {
    /// The page as HTML.
    pub(crate) fn html(&self) -> String {
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{0}</title><style>{STYLE}</style>\n<h1>{0}</h1>\n",
            escaped(self.title)
        );
        for sentence in self.said {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "<p>{}</p>", escaped(sentence));
        }
        out.push_str(
            "<table><tr><th>method<th>bytes<th>slot bytes<th>PSNR dB<th>relative error<th>SSIM<th>recall@10\
             <th>encode /s<th>decode /s</tr>\n",
        );
        let mut last = None;
        for row in self.rows {
            let group = last.is_some_and(|nominal| nominal != row.nominal_bytes);
            last = Some(row.nominal_bytes);
            let own = row.method.starts_with("apcm");
            let class = match (own, group) {
                (true, true) => " class=\"own group\"",
                (true, false) => " class=\"own\"",
                (false, true) => " class=\"group\"",
                (false, false) => "",
            };
            let cells = cells(row).map(|cell| escaped(&cell)).join("<td>");
            let _ = writeln!(out, "<tr{class}><td>{cells}</tr>");
        }
        out.push_str("</table>\n");
        for figure in self.figures {
            let _ = writeln!(
                out,
                "<figure><img alt=\"{0}\" src=\"data:image/png;base64,{1}\"><figcaption>{0}</figcaption></figure>",
                escaped(figure.caption),
                STANDARD.encode(figure.png)
            );
        }
        out.push_str("</html>\n");
        out
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
