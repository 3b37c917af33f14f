//! The same as a picture.

use std::path::Path;

use anyhow::anyhow;
use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    element::{Rectangle, Text},
    prelude::{IntoDrawingArea, SVGBackend},
    series::LineSeries,
    style::{BLACK, Color, IntoFont, RGBColor, WHITE},
};

use super::{Line, Report, Setting};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 420;
const INK: RGBColor = RGBColor(60, 60, 60);
/// A bar's share of the room it has.
const THICK: f64 = 0.9;

const fn colour(setting: Setting) -> RGBColor {
    match setting {
        Setting::Direct => RGBColor(204, 204, 204),
        Setting::Explicit => RGBColor(186, 186, 186),
        Setting::Nftables => RGBColor(125, 125, 125),
        Setting::Iptables => RGBColor(158, 158, 158),
        Setting::Off => RGBColor(179, 205, 227),
        Setting::Pod => RGBColor(107, 174, 214),
        Setting::Node => RGBColor(33, 113, 181),
        Setting::NodeAndApplication => RGBColor(8, 48, 107),
        #[cfg(feature = "naive")]
        Setting::Naive => RGBColor(203, 24, 29),
    }
}

/// Draws requests/s (above) and kernel time per request (below), as a part of the first setting's, into an SVG file.
pub fn draw(report: &Report, file: &Path) -> anyhow::Result<()> {
    let lines = report.lines();
    let bars = |title: &str, of: fn(&Line) -> f64| {
        let settings = report.settings.iter().map(|setting| {
            let own = lines.iter().filter(|line| line.setting == *setting);
            (*setting, own.map(of).collect())
        });
        Bars {
            title: title.to_owned(),
            groups: report.cases.iter().map(|case| case.name()).collect(),
            settings: settings.collect(),
        }
    };
    let pictures = [
        bars("requests/s, iptables = 1 (more is better)", |line| {
            line.ratio.median
        }),
        bars(
            "kernel time per request, iptables = 1 (less is better)",
            |line| line.kernel_ratio.median,
        ),
    ];
    draw_all(&pictures, file)
}

/// Draws these, one below the other.
pub(crate) fn draw_all(pictures: &[Bars], file: &Path) -> anyhow::Result<()> {
    let count = u32::try_from(pictures.len())?;
    let area = SVGBackend::new(file, (WIDTH, count * HEIGHT)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", file.display());
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    for (area, bars) in area.split_evenly((pictures.len(), 1)).iter().zip(pictures) {
        bars.draw(area).map_err(|e| failed(&e))?;
    }
    area.present().map_err(|e| failed(&e))
}

/// Groups of bars, one for each kind of traffic.
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) groups: Vec<&'static str>,
    /// Each setting's, by group.
    pub(crate) settings: Vec<(Setting, Vec<f64>)>,
}

type Area<'a> = plotters::drawing::DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Bars {
    fn draw(&self, area: &Area<'_>) -> anyhow::Result<()> {
        let all = self.settings.iter().flat_map(|(_, values)| values);
        // Above the bars there is room for the legend.
        let top = all.copied().fold(1.0, f64::max) * 1.5;
        let end = count(self.groups.len());
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .caption(&self.title, ("sans-serif", 18).into_font().color(&INK))
            .x_label_area_size(28)
            .y_label_area_size(40)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        let name = |at: &f64| self.group_at(*at).to_owned();
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(BLACK.mix(0.1))
            .light_line_style(BLACK.mix(0.03))
            .x_labels(2 * self.groups.len() + 1)
            .x_label_formatter(&name)
            .y_label_formatter(&|value| format!("{value:.1}"))
            .label_style(("sans-serif", 14).into_font().color(&INK))
            .draw()?;
        let width = 1.0 / (count(self.settings.len()) + 1.0);
        for (at, (setting, values)) in self.settings.iter().enumerate() {
            let colour = colour(*setting);
            let left = |group: usize| count(group) + width * (count(at) + 0.5);
            let bars = values.iter().enumerate().map(|(group, value)| {
                let left = left(group);
                Rectangle::new(
                    [(left, 0.0), (left + width * THICK, *value)],
                    colour.filled(),
                )
            });
            chart
                .draw_series(bars)?
                .label(setting.name())
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled())
                });
            let style = ("sans-serif", 11).into_font().color(&INK);
            let numbers = values.iter().enumerate().map(|(group, value)| {
                let at = (left(group) + width * 0.08, value + top * 0.05);
                Text::new(format!("{value:.2}"), at, style.clone())
            });
            chart.draw_series(numbers)?;
        }
        chart.draw_series(LineSeries::new([(0.0, 1.0), (end, 1.0)], INK))?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .border_style(BLACK.mix(0.2))
            .background_style(WHITE.mix(0.9))
            .label_font(("sans-serif", 12))
            .draw()?;
        Ok(())
    }

    /// The name at the middle of a group; nothing elsewhere.
    fn group_at(&self, at: f64) -> &'static str {
        let mut middles = self.groups.iter().enumerate();
        let found = middles.find(|(group, _)| (at - count(*group) - 0.5).abs() < 0.01);
        found.map_or("", |(_, name)| name)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
const fn count(of: usize) -> f64 {
    of as f64
}
