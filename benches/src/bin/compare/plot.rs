//! The picture of README: what a server gets done, as a ratio to the raw epoll loop, in the cells that need no explanation.

use crate::peers::OURS;
use mainspring_benches::load::Failure;
use plotters::{element::ErrorBar, prelude::*};
use std::path::Path;

const SIZE: (u32, u32) = (920, 420);

/// What is drawn of all that is measured, and what it is called.
const CELLS: [(&str, &str); 5] = [
    ("echo-1", "1 client asks, and waits"),
    ("echo-64", "64 clients do"),
    ("line-16x256", "lines, 256 at a time"),
    ("churn-32", "connect, ask, close"),
    ("idle", "64 amid 10,000 silent"),
];

/// Whose servers, in which colours: which can be told apart without seeing red, or without seeing green.
const PEERS: [(&str, RGBColor); 5] = [
    (OURS, RGBColor(0, 114, 178)),
    ("mio", RGBColor(86, 180, 233)),
    ("tokio", RGBColor(230, 159, 0)),
    ("calloop", RGBColor(0, 158, 115)),
    ("asyncore", RGBColor(150, 150, 150)),
];

/// Of one server in one cell, over the rounds.
#[derive(Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

/// `ratio` knows it by the names of a cell and of a server.
pub(crate) fn draw(file: &Path, rounds: usize, ratio: impl Fn(&str, &str) -> Option<Ratio>) -> Result<(), Failure> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    draw_on(&area, rounds, ratio).map_err(|why| why.to_string().into())
}

fn draw_on<'a>(
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    rounds: usize,
    ratio: impl Fn(&str, &str) -> Option<Ratio>,
) -> Result<(), Box<dyn std::error::Error + 'a>> {
    area.fill(&WHITE)?;
    let all = CELLS.iter().flat_map(|(cell, _)| PEERS.iter().filter_map(|(peer, _)| ratio(cell, peer)));
    let top = all.map(|ratio| ratio.most).fold(1.3, f64::max) + 0.5; // there the names stand
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("Requests a second; 1 is a loop written by hand on epoll (medians of {rounds} rounds, and their range)"),
            ("sans-serif", 15),
        )
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(36)
        .build_cartesian_2d(0.0..CELLS.len() as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .disable_x_axis()
        .y_labels(7)
        .x_labels(0)
        .label_style(("sans-serif", 12))
        .draw()?;
    let width = 0.8 / PEERS.len() as f64;
    for (number, (peer, colour)) in PEERS.into_iter().enumerate() {
        let of_cells: Vec<(f64, Ratio)> = CELLS
            .iter()
            .enumerate()
            .filter_map(|(place, (cell, _))| Some((place as f64 + 0.1 + number as f64 * width, ratio(cell, peer)?)))
            .collect();
        let bars = of_cells
            .iter()
            .map(|&(left, ratio)| Rectangle::new([(left, 0.0), (left + width * 0.9, ratio.median)], colour.filled()));
        let series = chart.draw_series(bars)?;
        series.label(peer).legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
        chart.draw_series(of_cells.iter().map(|&(left, ratio)| {
            ErrorBar::new_vertical(left + width * 0.45, ratio.least, ratio.median, ratio.most, BLACK.filled(), 6)
        }))?;
    }
    let one = vec![(0.0, 1.0), (CELLS.len() as f64, 1.0)];
    chart.draw_series(std::iter::once(PathElement::new(one, BLACK)))?;
    let names = CELLS.into_iter().enumerate().map(|(place, (_, name))| {
        let style = ("sans-serif", 12).into_font().color(&BLACK);
        EmptyElement::at((place as f64 + 0.1, 0.0)) + Text::new(name.to_owned(), (0, 8), style)
    });
    chart.draw_series(names)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_five_cells_and_says_how_often_each_was_run() {
        let file = std::env::temp_dir().join(format!("compare-{}.svg", std::process::id()));
        let ratio = |cell: &str, peer: &str| {
            let median = 1.0 + (cell.len() as f64 - peer.len() as f64) / 20.0;
            (peer != "asyncore").then_some(Ratio { least: median - 0.1, median, most: median + 0.2 })
        };
        draw(&file, 9, ratio).expect("a picture");
        let text = std::fs::read_to_string(&file).expect("it is there");
        std::fs::remove_file(&file).expect("ours");
        assert!(CELLS.iter().all(|(_, name)| text.contains(name)) && text.contains("of 9 rounds"), "{text}");
        let published = include_str!("../../../../docs/benchmarks.svg");
        assert!(CELLS.iter().all(|(_, name)| published.contains(name)), "docs/benchmarks.svg is of an older program");
    }
}
