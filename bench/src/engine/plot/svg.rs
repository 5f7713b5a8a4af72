//! Panels above each other with one time axis, written as SVG.

use std::fmt::Write;

use super::scale::{Scale, TICKS_ACROSS};

const WIDTH: f64 = 1_040.0;
const HEAD: f64 = 94.0;
const PANEL: f64 = 210.0;
const PANEL_GAP: f64 = 52.0;
const FOOT: f64 = 50.0;
const LEFT: f64 = 104.0;
const RIGHT: f64 = 28.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;

/// How wide a letter of a legend is, at most: the viewer chooses the font.
const LEGEND_CHARACTER: f64 = 7.4;

/// Colours that people who see no red or green tell apart too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Color {
    Blue,
    Orange,
    Grey,
}

impl Color {
    fn code(self) -> &'static str {
        match self {
            Self::Blue => "#0072b2",
            Self::Orange => "#d55e00",
            Self::Grey => "#6b7280",
        }
    }
}

/// One series of a panel; gaps are `None`.
#[derive(Debug)]
pub(super) struct Line {
    name: &'static str,
    color: Color,
    /// Lengths of dash and gap; `none` for a solid line.
    dashes: &'static str,
    is_filled: bool,
    points: Vec<Option<(f64, f64)>>,
}

impl Line {
    pub(super) fn solid(name: &'static str, color: Color, points: Vec<Option<(f64, f64)>>) -> Self {
        Self { name, color, dashes: "none", is_filled: false, points }
    }

    pub(super) fn dashed(
        name: &'static str,
        color: Color,
        points: Vec<Option<(f64, f64)>>,
    ) -> Self {
        Self { dashes: "8 5", ..Self::solid(name, color, points) }
    }

    pub(super) fn dotted(
        name: &'static str,
        color: Color,
        points: Vec<Option<(f64, f64)>>,
    ) -> Self {
        Self { dashes: "1 5", ..Self::solid(name, color, points) }
    }

    /// Also fills the area below.
    pub(super) fn filled(self) -> Self {
        Self { is_filled: true, ..self }
    }
}

/// One diagram.
#[derive(Debug)]
pub(super) struct Panel {
    name: &'static str,
    unit: &'static str,
    scale: Scale,
    lines: Vec<Line>,
}

impl Panel {
    pub(super) fn new(name: &'static str, unit: &'static str, scale: Scale) -> Self {
        Self { name, unit, scale, lines: Vec::new() }
    }

    pub(super) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }
}

/// A picture under way.
#[derive(Debug)]
pub(super) struct Svg {
    body: String,
    /// Where the next panel begins.
    top: f64,
    time: Scale,
    end: f64,
    shade: Option<(f64, &'static str)>,
}

impl Svg {
    /// A picture of `end` seconds.
    pub(super) fn new(title: &str, subtitle: &str, end: f64) -> Self {
        let time = Scale::linear(end, TICKS_ACROSS);
        let mut svg = Self { body: String::new(), top: HEAD, time, end, shade: None };
        svg.text((LEFT, 30.0), "title", title);
        svg.text((LEFT, 50.0), "note", subtitle);
        svg
    }

    /// Marks the time from `start` on, if there is one.
    pub(super) fn shade_from(&mut self, start: Option<f64>, name: &'static str) {
        self.shade = start.map(|start| (start, name));
    }

    /// Adds a panel below the others.
    pub(super) fn add(&mut self, panel: &Panel) {
        let top = self.top;
        self.top += PANEL + PANEL_GAP;
        if let Some((start, name)) = self.shade {
            let from = self.x(start);
            let width = LEFT + PLOT_WIDTH - from;
            self.put(&format!(
                "<rect class=\"shade\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                 height=\"{PANEL}\"/>"
            ));
            if top == HEAD {
                self.text((from + 6.0, top + 16.0), "note", name);
            }
        }
        self.grid(panel, top);
        for line in &panel.lines {
            self.line(line, panel.scale, top);
        }
        self.legend(panel, top - 10.0);
    }

    fn grid(&mut self, panel: &Panel, top: f64) {
        let (right, bottom) = (LEFT + PLOT_WIDTH, top + PANEL);
        for (value, label) in panel.scale.ticks() {
            let y = bottom - panel.scale.place(value) * PANEL;
            self.put(&format!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>"));
            self.text((LEFT - 10.0, y + 4.0), "value", &label);
        }
        for (value, label) in self.time.ticks() {
            if value > self.end * 1.0001 {
                break;
            }
            let x = self.x(value);
            self.put(&format!("<path class=\"grid\" d=\"M{x:.1} {top}V{bottom}\"/>"));
            self.text((x, bottom + 18.0), "time", &label);
        }
        self.put(&format!("<path class=\"axis\" d=\"M{LEFT} {top}V{bottom}H{right}\"/>"));
        let middle = top + PANEL / 2.0;
        let name = format!("{}, {}", panel.name, panel.unit);
        self.put(&format!(
            "<text class=\"name\" transform=\"translate(22 {middle}) rotate(-90)\">{}</text>",
            escape(&name)
        ));
    }

    fn line(&mut self, line: &Line, scale: Scale, top: f64) {
        let bottom = top + PANEL;
        let mut path = String::new();
        let mut area = String::new();
        for stretch in line.points.split(Option::is_none) {
            let places: Vec<(f64, f64)> = stretch
                .iter()
                .flatten()
                .map(|(at, value)| (self.x(*at), bottom - scale.place(*value) * PANEL))
                .collect();
            let Some(((first, _), (last, _))) = places.first().zip(places.last()) else { continue };
            let corners: String = places.iter().map(|(x, y)| format!(" {x:.1},{y:.1}")).collect();
            // A stretch of one point is drawn as well: its round cap makes it a dot.
            let _ = write!(path, "M{}L{corners}", corners.split_whitespace().next().unwrap_or(""));
            let _ = write!(area, "M{first:.1},{bottom:.1}L{corners} {last:.1},{bottom:.1}Z");
        }
        let color = line.color.code();
        if line.is_filled {
            self.put(&format!("<path d=\"{area}\" fill=\"{color}\" fill-opacity=\"0.12\"/>"));
        }
        let dashes = line.dashes;
        self.put(&format!(
            "<path class=\"line\" d=\"{path}\" stroke=\"{color}\" stroke-dasharray=\"{dashes}\"/>"
        ));
    }

    /// Names the lines above the panel, from the right.
    fn legend(&mut self, panel: &Panel, y: f64) {
        let mut x = LEFT + PLOT_WIDTH;
        for line in panel.lines.iter().rev() {
            x -= line.name.chars().count() as f64 * LEGEND_CHARACTER;
            self.text((x, y), "legend", line.name);
            let (from, middle) = (x - 32.0, y - 4.0);
            self.put(&format!(
                "<path class=\"line\" d=\"M{from:.1} {middle:.1}h25\" stroke=\"{}\" \
                 stroke-dasharray=\"{}\"/>",
                line.color.code(),
                line.dashes
            ));
            x = from - 22.0;
        }
    }

    /// The whole file.
    pub(super) fn finish(mut self) -> String {
        let height = self.top - PANEL_GAP + FOOT;
        self.text((LEFT + PLOT_WIDTH / 2.0, height - 12.0), "time", "seconds since the start");
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"Helvetica, Arial, DejaVu Sans, sans-serif\" \
             font-size=\"13\">\n<style>{STYLE}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.end).clamp(0.0, 1.0) * PLOT_WIDTH
    }

    fn put(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    fn text(&mut self, (x, y): (f64, f64), class: &str, text: &str) {
        let text = escape(text);
        self.put(&format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"));
    }
}

const STYLE: &str = ".title{font-size:17px;font-weight:bold;fill:#111827}\
.note{fill:#4b5563}.value{text-anchor:end;fill:#374151}.time{text-anchor:middle;fill:#374151}\
.name{text-anchor:middle;font-weight:bold;fill:#374151}.legend{fill:#111827}\
.grid{stroke:#e5e7eb;fill:none}.axis{stroke:#9ca3af;fill:none}.shade{fill:#f3f4f6}\
.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_panels_lines_units_and_gaps() {
        let mut svg = Svg::new("a <title>", "note", 10.0);
        svg.shade_from(Some(8.0), "settling");
        let mut panel = Panel::new("rate", "operations/s", Scale::linear(100.0, 6));
        let points = vec![Some((1.0, 0.0)), Some((2.0, 100.0)), None, Some((10.0, 50.0))];
        panel.add(Line::solid("now", Color::Blue, points).filled());
        panel.add(Line::dashed("limit", Color::Orange, vec![Some((0.0, 10.0))]));
        svg.add(&panel);
        let text = svg.finish();
        for part in [
            "a &lt;title&gt;",
            "rate, operations/s",
            "seconds since the start",
            ">settling<",
            ">now<",
            ">limit<",
            ">100<",
            "stroke-dasharray",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        let line = text.lines().find(|line| line.contains("class=\"line\"")).expect("a line");
        assert_eq!(line.matches('M').count(), 2, "a gap parts it: {line}");
        assert_eq!(text.matches("<text").count(), text.matches("</text>").count());
    }
}
