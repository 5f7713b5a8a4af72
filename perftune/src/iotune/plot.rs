//! Latency against load, per size, as one SVG file that needs nothing else.

use crate::measure::{LoadCurve, LoadKind};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 60.0;

/// Colours that people who see no red or green tell apart too.
const COLORS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6b7280"];

const STYLE: &str = "text{fill:#374151}.title{font-size:17px;font-weight:bold}\
.grid{stroke:#e5e7eb;fill:none}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}";

/// An axis of whole decades, along so many points of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Decades {
    first: i32,
    last: i32,
    start: f64,
    length: f64,
}

impl Decades {
    /// An axis that has room for all values; those that are no positive number are left out.
    fn around(values: impl Iterator<Item = f64>, start: f64, length: f64) -> Self {
        let usable = values.filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) = usable.fold((f64::INFINITY, 0.0), |(least, most), value| {
            (f64::min(least, value), f64::max(most, value))
        });
        let (least, most) = if most > 0.0 { (least, most) } else { (1.0, 1.0) };
        let first = least.log10().floor() as i32;
        let last = (most.log10().ceil() as i32).max(first + 1);
        Self { first, last, start, length }
    }

    fn place(self, value: f64) -> f64 {
        let decade = value.max(f64::MIN_POSITIVE).log10() - f64::from(self.first);
        let part = decade / f64::from(self.last - self.first);
        self.start + part.clamp(0.0, 1.0) * self.length
    }

    /// The decades, each with its place.
    fn ticks(self) -> impl Iterator<Item = (f64, f64)> {
        (self.first..=self.last).map(move |power| {
            let value = 10f64.powi(power);
            (value, self.place(value))
        })
    }
}

/// Draws curves.
pub(super) fn draw(title: &str, curves: &[LoadCurve]) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let rates = points().map(|point| point.per_second);
    let across = Decades::around(rates, LEFT, WIDTH - LEFT - RIGHT);
    let latencies = points().map(|point| f64::from(point.p99_us));
    let upright = Decades::around(latencies, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT);
    let mut body = text((LEFT, 32.0), "class=\"title\"", title);
    body.push_str(&grid(across, upright));
    for (index, curve) in curves.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let mut corners = String::new();
        for point in &curve.points {
            let (x, y) = (across.place(point.per_second), upright.place(f64::from(point.p99_us)));
            corners.push_str(&format!("{x:.1},{y:.1} "));
            body.push_str(&format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"><title>{} at a \
                 time</title></circle>\n",
                point.depth
            ));
        }
        let corners = corners.trim_end();
        body.push_str(&format!(
            "<polyline class=\"line\" points=\"{corners}\" stroke=\"{color}\"/>\n"
        ));
        let y = TOP + 10.0 + 22.0 * index as f64;
        let (x, middle) = (WIDTH - RIGHT + 20.0, y - 4.0);
        body.push_str(&format!(
            "<path class=\"line\" d=\"M{x:.1} {middle:.1}h20\" stroke=\"{color}\"/>\n"
        ));
        body.push_str(&text((x + 28.0, y), "", &name(curve)));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"Helvetica, Arial, sans-serif\" \
         font-size=\"13\">\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn grid(across: Decades, upright: Decades) -> String {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut body = String::new();
    for (value, y) in upright.ticks() {
        body.push_str(&format!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\n"));
        body.push_str(&text((LEFT - 8.0, y + 4.0), "text-anchor=\"end\"", &value.to_string()));
    }
    for (value, x) in across.ticks() {
        body.push_str(&format!("<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>\n"));
        let place = (x, bottom + 20.0);
        body.push_str(&text(place, "text-anchor=\"middle\"", &value.to_string()));
    }
    let middle = (LEFT + right) / 2.0;
    body.push_str(&text(
        (middle, HEIGHT - 14.0),
        "text-anchor=\"middle\"",
        "requests a second (more and more at a time)",
    ));
    let up = (TOP + bottom) / 2.0;
    let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 22 {up})\"");
    body.push_str(&text((22.0, up), &turned, "99th percentile of latency, us"));
    body
}

fn name(curve: &LoadCurve) -> String {
    let what = match curve.kind {
        LoadKind::RandomRead => "random reads",
        LoadKind::RandomWrite => "random writes",
        LoadKind::SequentialRead => "reads in a row",
        LoadKind::SequentialWrite => "writes in a row",
        LoadKind::Mixed => "reads and writes",
    };
    format!("{what}, {} KiB", curve.length >> 10)
}

fn text((x, y): (f64, f64), attributes: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::LoadPoint;

    #[test]
    fn every_size_has_its_line_and_name() {
        let curve = |kind, length, rate: f64| LoadCurve {
            kind,
            length,
            points: [1, 4, 16]
                .map(|depth| LoadPoint {
                    depth,
                    per_second: rate * f64::from(depth),
                    p99_us: 90 * depth,
                })
                .to_vec(),
        };
        let picture = draw(
            "a <disk>",
            &[
                curve(LoadKind::RandomRead, 4096, 10_000.0),
                curve(LoadKind::RandomRead, 65_536, 3_000.0),
                curve(LoadKind::RandomWrite, 4096, 20_000.0),
            ],
        );
        for part in [
            "a &lt;disk&gt;",
            "random reads, 4 KiB",
            "random reads, 64 KiB",
            "random writes, 4 KiB",
            "16 at a time",
            ">1000<",
            ">1000000<",
        ] {
            assert!(picture.contains(part), "{part}");
        }
        assert_eq!(picture.matches("<polyline").count(), 3);
        assert_eq!(picture.matches("<circle").count(), 9);
        assert_eq!(picture.matches("<text").count(), picture.matches("</text>").count());
    }

    #[test]
    fn an_axis_has_room_for_all_and_survives_nonsense() {
        let axis = Decades::around([20.0, 4_000.0].into_iter(), 0.0, 300.0);
        assert_eq!((axis.first, axis.last), (1, 4));
        assert!((axis.place(100.0) - 100.0).abs() < 1e-9);
        let empty = Decades::around([f64::NAN, 0.0].into_iter(), 0.0, 1.0);
        assert_eq!((empty.first, empty.last), (0, 1));
        assert!((0.0..=1.0).contains(&empty.place(0.0)));
    }
}
