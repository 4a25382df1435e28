//! The picture of README: throughput by cell, as a ratio to the raw epoll loop.

use mainspring_benches::load::Failure;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (920, 400);

/// Good on white and on black, and told apart by those who see no red or no green.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(240, 228, 66),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
    RGBColor(140, 140, 140),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// By cell, the ratio of each peer.
pub(crate) fn draw(file: &Path, cells: &[(&str, Vec<(&str, f64)>)]) -> Result<(), Failure> {
    let mut peers: Vec<&str> = Vec::new();
    for (peer, _) in cells.iter().flat_map(|(_, ratios)| ratios) {
        if !peers.contains(peer) {
            peers.push(peer);
        }
    }
    let most = cells.iter().flat_map(|(_, ratios)| ratios).map(|&(_, ratio)| ratio).fold(1.0, f64::max);
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|why| why.to_string())?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Throughput, as a ratio to a loop written by hand on epoll", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(36)
        .build_cartesian_2d(0.0..cells.len() as f64, 0.0..most + 0.5)
        .map_err(|why| why.to_string())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .disable_x_axis()
        .y_labels(7)
        .x_labels(0)
        .label_style(("sans-serif", 12))
        .draw()
        .map_err(|why| why.to_string())?;
    let width = 0.8 / peers.len().max(1) as f64;
    for (number, peer) in peers.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let bars = cells.iter().enumerate().filter_map(|(place, (_, ratios))| {
            let ratio = ratios.iter().find(|(of, _)| of == peer)?.1;
            let left = place as f64 + 0.1 + number as f64 * width;
            Some(Rectangle::new([(left, 0.0), (left + width * 0.9, ratio)], colour.filled()))
        });
        let series = chart.draw_series(bars).map_err(|why| why.to_string())?;
        series.label(*peer).legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
    }
    let one = vec![(0.0, 1.0), (cells.len() as f64, 1.0)];
    chart.draw_series(std::iter::once(PathElement::new(one, BLACK))).map_err(|why| why.to_string())?;
    let names = cells.iter().enumerate().map(|(place, (name, _))| {
        let style = ("sans-serif", 12).into_font().color(&BLACK);
        EmptyElement::at((place as f64 + 0.1, 0.0)) + Text::new((*name).to_owned(), (0, 8), style)
    });
    chart.draw_series(names).map_err(|why| why.to_string())?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()
        .map_err(|why| why.to_string())?;
    area.present().map_err(|why| why.to_string().into())
}
