//! Pictures: originals over reconstructions, curves, histograms.

use apcm::codec::StageReport;
use apcm::whole_file::{self, Taken};
use apcm::{Error, ErrorSummary, Records, Result};
use embedded_graphics::mono_font::{MonoTextStyle, ascii::FONT_6X10};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{Line, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Alignment, Text};
use std::convert::Infallible;
use std::path::Path;

const INK: Rgb888 = Rgb888::new(40, 40, 40);
const GRID: Rgb888 = Rgb888::new(225, 225, 225);

/// A picture in memory, white at first.
struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        Self { width, height, pixels: vec![255; (width * height * 3) as usize] }
    }

    fn save(&self, path: &Path) -> Result<()> {
        let failed = |error: png::EncodingError| Error::Io { path: path.to_owned(), source: error.into() };
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        whole_file::write_as(path, &bytes, Taken::Replace, whole_file::usual_permissions())
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, color) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(at.x), u32::try_from(at.y))
                && x < self.width
                && y < self.height
            {
                let start = ((y * self.width + x) * 3) as usize;
                self.pixels[start..start + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

/// Draws originals over their reconstructions, in rows of `columns` pairs, each pixel `scale` wide.
///
/// # Errors
/// [`Argument`](Error::Argument) for records that are not `[height, width]` or sets of different size,
/// [`Io`](Error::Io).
pub fn reconstructions(
    path: &Path,
    originals: &Records,
    decoded: &Records,
    columns: usize,
    scale: usize,
) -> Result<()> {
    let dims = originals.shape().dims();
    let &[height, width] = dims.as_slice() else {
        return Err(Error::argument("records for a picture", "of two axes", format!("{dims:?}")));
    };
    if decoded.len() != originals.len() || decoded.shape() != originals.shape() || columns == 0 || scale == 0
    {
        return Err(Error::argument("reconstructions", originals.len().to_string(), decoded.len()));
    }
    const GAP: usize = 4;
    let bands = originals.len().div_ceil(columns);
    let (cell_width, band_height) = (width * scale + GAP, 2 * height * scale + 3 * GAP);
    let mut canvas = Canvas::new((columns * cell_width + GAP) as u32, (bands * band_height + GAP) as u32);
    for (index, (original, decoded)) in originals.rows().zip(decoded.rows()).enumerate() {
        let left = GAP + index % columns * cell_width;
        let top = GAP + index / columns * band_height;
        for (values, top) in [(original, top), (decoded, top + height * scale + GAP / 2)] {
            let pixels =
                (0..height * scale).flat_map(|y| (0..width * scale).map(move |x| (x, y))).map(|(x, y)| {
                    let value = values[y / scale * width + x / scale];
                    let grey = (value.clamp(0.0, 1.0) * 255.0).round() as u8;
                    Pixel(Point::new((left + x) as i32, (top + y) as i32), Rgb888::new(grey, grey, grey))
                });
            let Ok(()) = canvas.draw_iter(pixels);
        }
    }
    canvas.save(path)
}

/// Draws the loss curve of a stage: training and validation, each as a share of its first point.
///
/// # Errors
/// [`Io`](Error::Io).
pub fn loss_curve(path: &Path, stage: &StageReport) -> Result<()> {
    let first = stage.history.iter().find_map(|point| point.validation).filter(|&first| first > 0.0);
    let scale = stage.history.first().map_or(1.0, |point| point.training).max(f64::MIN_POSITIVE);
    let training = stage.history.iter().map(|point| (point.step as f64, (point.training / scale).min(3.0)));
    let validation = stage
        .history
        .iter()
        .filter_map(|point| Some((point.step as f64, (point.validation? / first?).min(3.0))));
    Plot {
        title: &format!("{}: error as a share of that at step 0", stage.name),
        across: "step",
        logarithmic: false,
        curves: &[
            Curve { name: "training batches", points: training.collect() },
            Curve { name: "validation", points: validation.collect() },
        ],
    }
    .save(path)
}

/// A line of a plot.
#[derive(Debug, Clone)]
pub struct Curve<'a> {
    /// What the legend says.
    pub name: &'a str,
    /// Where it goes, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A plot of a few curves.
#[derive(Debug, Clone, Copy)]
pub struct Plot<'a> {
    /// What it shows, and what rises.
    pub title: &'a str,
    /// What runs from left to right.
    pub across: &'a str,
    /// Whether that is spaced by its logarithm.
    pub logarithmic: bool,
    /// At most ten, so that their colours can be told apart.
    pub curves: &'a [Curve<'a>],
}

/// The ten colours of Tableau.
const COLORS: [Rgb888; 10] = [
    Rgb888::new(31, 119, 180),
    Rgb888::new(214, 39, 40),
    Rgb888::new(44, 160, 44),
    Rgb888::new(255, 127, 14),
    Rgb888::new(148, 103, 189),
    Rgb888::new(140, 86, 75),
    Rgb888::new(227, 119, 194),
    Rgb888::new(127, 127, 127),
    Rgb888::new(188, 189, 34),
    Rgb888::new(23, 190, 207),
];
const PLOT: (f64, f64, f64, f64) = (60.0, 540.0, 40.0, 370.0);

impl Plot<'_> {
    /// Draws it. Points that are not finite are left out.
    ///
    /// # Errors
    /// [`Io`](Error::Io).
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut canvas = Canvas::new(720, 420);
        let along = |x: f64| if self.logarithmic { x.max(f64::MIN_POSITIVE).log2() } else { x };
        let points = || {
            let all = self.curves.iter().flat_map(|curve| &curve.points);
            all.filter(|(x, y)| x.is_finite() && y.is_finite())
        };
        let range = |of: &dyn Fn(&(f64, f64)) -> f64| {
            let (low, high) = points()
                .map(of)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
            if low < high { (low, high) } else { (low.min(0.0), low.max(0.0) + 1.0) }
        };
        let (x_low, x_high) = range(&|&(x, _)| along(x));
        let (y_low, y_high) = range(&|&(_, y)| y);
        let margin = 0.05 * (y_high - y_low);
        let area = PlotArea { x: (x_low, x_high), y: (y_low - margin, y_high + margin) };
        for tick in 0..=5 {
            let share = f64::from(tick) / 5.0;
            let y = area.y.0 + (area.y.1 - area.y.0) * share;
            area.rule(&mut canvas, y, &tidy(y, area.y.1 - area.y.0));
            let x = x_low + (x_high - x_low) * share;
            let shown = if self.logarithmic { x.exp2() } else { x };
            label(
                &mut canvas,
                &tidy(shown, shown),
                area.place(x, area.y.0) + Point::new(0, 16),
                INK,
                Alignment::Center,
            );
        }
        for (index, curve) in self.curves.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            let line: Vec<Point> = curve
                .points
                .iter()
                .filter(|(x, y)| x.is_finite() && y.is_finite())
                .map(|&(x, y)| area.place(along(x), y))
                .collect();
            // Line by line: the joints of a thick polyline overflow in embedded-graphics 0.8 where it turns
            // sharply.
            for ends in line.windows(2) {
                let segment = Line::new(ends[0], ends[1]);
                let Ok(()) = segment.into_styled(PrimitiveStyle::with_stroke(color, 2)).draw(&mut canvas);
            }
            if line.len() <= 12 {
                for &point in &line {
                    let dot = Rectangle::with_center(point, Size::new(6, 6));
                    let Ok(()) = dot.into_styled(PrimitiveStyle::with_fill(color)).draw(&mut canvas);
                }
            }
            let at = Point::new(556, 50 + 18 * index as i32);
            label(&mut canvas, curve.name, at, color, Alignment::Left);
        }
        label(&mut canvas, self.title, Point::new(60, 20), INK, Alignment::Left);
        label(&mut canvas, self.across, Point::new(300, 408), INK, Alignment::Center);
        canvas.save(path)
    }
}

/// Draws how many records have which error.
///
/// # Errors
/// [`Io`](Error::Io).
pub fn histogram(path: &Path, title: &str, errors: &ErrorSummary) -> Result<()> {
    let mut canvas = Canvas::new(720, 420);
    let most = errors.histogram.iter().copied().max().unwrap_or(1).max(1) as f64;
    let (low, high) = (errors.edges[0], errors.edges[errors.edges.len() - 1]);
    let area = PlotArea { x: (0.0, errors.histogram.len() as f64), y: (0.0, most) };
    for tick in 0..=5 {
        let share = f64::from(tick) / 5.0;
        area.rule(&mut canvas, most * share, &format!("{:.0}", most * share));
        let shown = low + (high - low) * share;
        let at = area.place(area.x.1 * share, 0.0) + Point::new(0, 16);
        label(&mut canvas, &format!("{shown:.1e}"), at, INK, Alignment::Center);
    }
    for (bar, &count) in errors.histogram.iter().enumerate() {
        let (from, to) = (area.place(bar as f64, count as f64), area.place(bar as f64 + 1.0, 0.0));
        let bar = Rectangle::with_corners(from + Point::new(1, 0), to - Point::new(1, 1));
        if count > 0 {
            let Ok(()) = bar.into_styled(PrimitiveStyle::with_fill(COLORS[0])).draw(&mut canvas);
        }
    }
    for (row, (name, value)) in [
        ("mean", errors.mean),
        ("half below", errors.p50),
        ("95 % below", errors.p95),
        ("largest", errors.max),
    ]
    .into_iter()
    .enumerate()
    {
        let at = Point::new(556, 50 + 18 * row as i32);
        label(&mut canvas, &format!("{name} {value:.2e}"), at, INK, Alignment::Left);
    }
    label(&mut canvas, title, Point::new(60, 20), INK, Alignment::Left);
    label(
        &mut canvas,
        "mean squared error of a record, per element",
        Point::new(300, 408),
        INK,
        Alignment::Center,
    );
    canvas.save(path)
}

/// Where numbers go on the canvas.
struct PlotArea {
    x: (f64, f64),
    y: (f64, f64),
}

impl PlotArea {
    fn place(&self, x: f64, y: f64) -> Point {
        let share = |v: f64, (low, high): (f64, f64)| (v - low) / (high - low).max(f64::MIN_POSITIVE);
        let (left, right, top, bottom) = PLOT;
        let at = (left + (right - left) * share(x, self.x), bottom - (bottom - top) * share(y, self.y));
        Point::new(at.0.round() as i32, at.1.round() as i32)
    }

    fn rule(&self, canvas: &mut Canvas, y: f64, name: &str) {
        let (from, to) = (self.place(self.x.0, y), self.place(self.x.1, y));
        let Ok(()) = Line::new(from, to).into_styled(PrimitiveStyle::with_stroke(GRID, 1)).draw(canvas);
        label(canvas, name, from + Point::new(-8, 3), INK, Alignment::Right);
    }
}

fn label(canvas: &mut Canvas, text: &str, at: Point, color: Rgb888, alignment: Alignment) {
    let style = MonoTextStyle::new(&FONT_6X10, color);
    let Ok(_) = Text::with_alignment(text, at, style, alignment).draw(canvas);
}

/// A number with as many digits as a spread of this size needs.
fn tidy(value: f64, spread: f64) -> String {
    match spread.abs() {
        spread if spread >= 20.0 => format!("{value:.0}"),
        spread if spread >= 2.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_that_turn_sharply_or_stand_still_are_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.png");
        let saw: Vec<(f64, f64)> =
            (0..400).map(|i| (f64::from(i / 3), f64::from(i * 7919 % 101 - 50).powi(3))).collect();
        for points in [saw, vec![(0.0, 1.0), (10.0, 0.998), (20.0, 0.999)], vec![(1.0, 1.0); 3], vec![]] {
            let curves = [Curve { name: "a", points }];
            Plot { title: "t", across: "x", logarithmic: false, curves: &curves }.save(&path).unwrap();
            assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
        }
    }
}
