//! Lines over time, as SVG.

use std::{error::Error as StdError, path::Path};

use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    prelude::{IntoDrawingArea, IntoFont, PathElement, RGBColor, SVGBackend},
    series::LineSeries,
    style::{Color, WHITE},
};

const SIZE: (u32, u32) = (900, 300);

/// Told apart also by those who don't see red and green (Okabe and Ito's palette).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A line with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// As the legend says it.
    pub name: String,
    /// Seconds since the start, and values.
    pub points: Vec<(f64, f64)>,
}

/// Draws lines into a file; nothing where there is nothing to draw. Whether there was.
///
/// # Errors
/// The file can't be written.
pub fn draw(
    path: &Path,
    title: &str,
    unit: &str,
    series: &[Series],
) -> Result<bool, Box<dyn StdError>> {
    let points = || series.iter().flat_map(|one| one.points.iter().copied());
    let end = points().map(|(at, _)| at).fold(0.0, f64::max);
    let top = points().map(|(_, value)| value).fold(0.0, f64::max);
    if end <= 0.0 {
        return Ok(false);
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let top = if top > 0.0 { top * 1.05 } else { 1.0 };
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18).into_font())
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart.configure_mesh().x_desc("seconds").y_desc(unit).light_line_style(WHITE).draw()?;
    for (one, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(one.points.iter().copied(), colour.stroke_width(2)))?
            .label(&one.name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    if series.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .draw()?;
    }
    area.present()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: two lines; then nothing at all.
    /// Guarantees: an SVG with title, unit and both names; no file for nothing.
    #[test]
    fn lines_are_drawn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.svg");
        let line =
            |name: &str| Series { name: name.to_owned(), points: vec![(0.0, 1.0), (9.0, 3.0)] };
        assert!(draw(&path, "Title", "unit", &[line("one"), line("two")]).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        for expected in ["<svg", "Title", "unit", "one", "two", "<polyline"] {
            assert!(text.contains(expected), "no {expected} in {text}");
        }
        let none = directory.path().join("b.svg");
        assert!(!draw(&none, "Title", "unit", &[]).unwrap());
        assert!(!none.exists());
    }
}
