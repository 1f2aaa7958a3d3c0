//! Pictures of a training: originals over reconstructions, and the loss curve.

use crate::codec::StageReport;
use crate::error::{Error, Result};
use crate::record::Records;
use embedded_graphics::mono_font::{MonoTextStyle, ascii::FONT_6X10};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{Line, Polyline, PrimitiveStyle};
use embedded_graphics::text::{Alignment, Text};
use std::convert::Infallible;
use std::path::Path;

const INK: Rgb888 = Rgb888::new(40, 40, 40);
const GRID: Rgb888 = Rgb888::new(225, 225, 225);
const TRAINING: Rgb888 = Rgb888::new(31, 119, 180);
const VALIDATION: Rgb888 = Rgb888::new(214, 39, 40);

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
        let file = std::fs::File::create(path).map_err(Error::io(path))?;
        let mut encoder = png::Encoder::new(std::io::BufWriter::new(file), self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.pixels).map_err(failed)?;
        writer.finish().map_err(failed)
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
    let mut canvas = Canvas::new(720, 420);
    let text = |color| MonoTextStyle::new(&FONT_6X10, color);
    let (left, right, top, bottom) = (60.0, 700.0, 40.0, 370.0);
    let first = stage.history.iter().find_map(|point| point.validation).filter(|&first| first > 0.0);
    let scale = stage.history.first().map_or(1.0, |point| point.training).max(f64::MIN_POSITIVE);
    let training: Vec<(f64, f64)> =
        stage.history.iter().map(|point| (point.step as f64, point.training / scale)).collect();
    let validation: Vec<(f64, f64)> = stage
        .history
        .iter()
        .filter_map(|point| Some((point.step as f64, point.validation? / first?)))
        .collect();
    let all = || training.iter().chain(&validation).map(|&(_, share)| share);
    let low = (all().fold(f64::INFINITY, f64::min).min(1.0) * 10.0).floor() / 10.0;
    let high = (all().fold(1.0, f64::max).min(3.0) * 10.0).ceil() / 10.0;
    let steps = stage.history.last().map_or(1, |point| point.step).max(1) as f64;
    let place = |&(step, share): &(f64, f64)| {
        let x = left + (right - left) * step / steps;
        let y = bottom - (bottom - top) * ((share.min(high) - low) / (high - low).max(1e-9));
        Point::new(x.round() as i32, y.round() as i32)
    };
    for tick in 0..=5 {
        let share = low + (high - low) * f64::from(tick) / 5.0;
        let (from, to) = (place(&(0.0, share)), place(&(steps, share)));
        let Ok(()) = Line::new(from, to).into_styled(PrimitiveStyle::with_stroke(GRID, 1)).draw(&mut canvas);
        let label = format!("{share:.2}");
        let at = from + Point::new(-8, 3);
        let Ok(_) = Text::with_alignment(&label, at, text(INK), Alignment::Right).draw(&mut canvas);
        let step = steps * f64::from(tick) / 5.0;
        let at = place(&(step, low)) + Point::new(0, 16);
        let Ok(_) =
            Text::with_alignment(&format!("{step:.0}"), at, text(INK), Alignment::Center).draw(&mut canvas);
    }
    for (curve, color) in [(&training, TRAINING), (&validation, VALIDATION)] {
        let points: Vec<Point> = curve.iter().map(place).collect();
        let Ok(()) =
            Polyline::new(&points).into_styled(PrimitiveStyle::with_stroke(color, 2)).draw(&mut canvas);
    }
    let title = format!("{}: error as a share of that at step 0", stage.name);
    for (label, at, color) in [
        (title.as_str(), Point::new(60, 20), INK),
        ("training batches", Point::new(480, 20), TRAINING),
        ("validation", Point::new(620, 20), VALIDATION),
        ("step", Point::new(370, 408), INK),
    ] {
        let Ok(_) = Text::new(label, at, text(color)).draw(&mut canvas);
    }
    canvas.save(path)
}
