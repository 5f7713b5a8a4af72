//! Figures, their targets, and the tables they are shown in.

use serde::{Serialize, Serializer};

/// What repeated measurements of one quantity gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Spread {
    /// The spread of at least one figure.
    pub(super) fn of(figures: &[f64]) -> Self {
        assert!(!figures.is_empty(), "there is no median of nothing");
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Self { median, lowest: sorted[0], highest: sorted[sorted.len() - 1] }
    }

    fn text(&self) -> String {
        let median = figure(self.median);
        if self.lowest == self.highest {
            return median;
        }
        format!("{median} ({}-{})", figure(self.lowest), figure(self.highest))
    }
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// The ratio, or the figure where there is nothing to compare with, may be this large.
    AtMost(f64),
    /// The ratio, or the figure where there is nothing to compare with, may be this small.
    AtLeast(f64),
    /// The node's figure may be this large, whatever it is compared with.
    FigureAtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) | Self::FigureAtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) | Self::FigureAtMost(limit) => format!("<= {limit:.2}"),
            Self::AtLeast(limit) => format!(">= {limit:.2}"),
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) section: &'static str,
    pub(super) measurement: String,
    pub(super) unit: &'static str,
    /// The node's figure.
    pub(super) larder: Spread,
    /// What it is held against, by name.
    pub(super) reference: Option<(String, Spread)>,
    /// What is wanted.
    pub(super) target: Option<Target>,
}

impl Row {
    /// A figure that stands alone.
    pub(super) fn alone(
        section: &'static str,
        measurement: impl Into<String>,
        unit: &'static str,
        larder: &[f64],
    ) -> Self {
        let larder = Spread::of(larder);
        let measurement = measurement.into();
        Self { section, measurement, unit, larder, reference: None, target: None }
    }

    /// The row with a figure beside it to compare with.
    pub(super) fn against(mut self, name: impl Into<String>, figures: &[f64]) -> Self {
        self.reference = Some((name.into(), Spread::of(figures)));
        self
    }

    /// The row with what is wanted of it.
    pub(super) fn wanted(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// The node's median over the other's.
    pub(super) fn ratio(&self) -> Option<f64> {
        let (_, reference) = self.reference.as_ref()?;
        (reference.median > 0.0).then(|| self.larder.median / reference.median)
    }

    /// Whether the target is met. A comparison without a ratio meets nothing.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let target = self.target?;
        let by_figure = self.reference.is_none() || matches!(target, Target::FigureAtMost(_));
        let judged = if by_figure { Some(self.larder.median) } else { self.ratio() };
        let met = judged.is_some_and(|judged| target.is_met(judged));
        Some(if met { Verdict::Pass } else { Verdict::Fail })
    }

    fn cells(&self) -> [String; 8] {
        let (name, other) = match &self.reference {
            Some((name, spread)) => (name.clone(), spread.text()),
            None => (String::new(), String::new()),
        };
        [
            format!("{}: {}", self.section, self.measurement),
            self.unit.to_owned(),
            self.larder.text(),
            other,
            name,
            self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            self.target.map_or_else(String::new, Target::text),
            self.verdict().map_or_else(String::new, |verdict| verdict.word().to_owned()),
        ]
    }
}

/// Whether a target is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Fail,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

const TITLES: [&str; 8] =
    ["measurement", "unit", "larder", "other", "compared with", "ratio", "target", "verdict"];

/// The columns that hold numbers, set to the right.
const NUMBERS: [bool; 8] = [false, false, true, true, false, true, true, false];

/// The rows as an aligned table for a terminal.
pub(super) fn text(rows: &[Row]) -> String {
    let lines = lines_of(rows);
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..TITLES.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let aligned = line.iter().zip(&widths).zip(NUMBERS).map(|((cell, &width), number)| {
            if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let aligned = aligned.collect::<Vec<_>>().join("  ");
        out.push_str(aligned.trim_end());
        out.push('\n');
    }
    out
}

/// The rows as a Markdown table.
pub(super) fn markdown(rows: &[Row]) -> String {
    let mut out = String::new();
    for (index, line) in lines_of(rows).iter().enumerate() {
        let cells = line.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>();
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
        if index == 0 {
            let rule = NUMBERS.map(|number| if number { "---:" } else { "---" });
            out.push_str(&format!("| {} |\n", rule.join(" | ")));
        }
    }
    out
}

fn lines_of(rows: &[Row]) -> Vec<[String; 8]> {
    let titles = TITLES.map(str::to_owned);
    std::iter::once(titles).chain(rows.iter().map(Row::cells)).collect()
}

/// A figure with about three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        vec![
            Row::alone("ram", "GET a|b", "us", &[0.5, 0.4, 0.6])
                .against("memcached", &[1.0])
                .wanted(Target::AtMost(0.5)),
            Row::alone("start", "empty", "s", &[1.25]).wanted(Target::AtMost(1.0)),
            Row::alone("two", "rate", "1/s", &[123_456.7]).against("memcached", &[0.0]),
        ]
    }

    #[test]
    fn the_spread_has_the_median_of_odd_and_even_counts() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]).median, 2.0);
        let even = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((even.median, even.lowest, even.highest), (2.5, 1.0, 4.0));
    }

    #[test]
    fn targets_judge_the_ratio_or_the_lone_figure() {
        let verdicts: Vec<_> = rows().iter().map(Row::verdict).collect();
        assert_eq!(verdicts, [Some(Verdict::Pass), Some(Verdict::Fail), None]);
        let rate = Row::alone("durable", "rate", "1/s", &[80.0]).against("one", &[10.0]);
        assert_eq!(rate.clone().wanted(Target::AtLeast(8.0)).verdict(), Some(Verdict::Pass));
        assert_eq!(rate.wanted(Target::AtLeast(8.1)).verdict(), Some(Verdict::Fail));
        let nothing = Row::alone("idle", "CPU", "%", &[1.0]).against("other", &[0.0]);
        assert_eq!(nothing.clone().wanted(Target::AtMost(9.0)).verdict(), Some(Verdict::Fail));
        assert_eq!(nothing.wanted(Target::FigureAtMost(1.0)).verdict(), Some(Verdict::Pass));
    }

    #[test]
    fn the_text_table_is_aligned() {
        let expected = "\
measurement   unit               larder  other  compared with  ratio   target  verdict
ram: GET a|b  us    0.500 (0.400-0.600)   1.00  memcached       0.50  <= 0.50  pass
start: empty  s                    1.25                               <= 1.00  fail
two: rate     1/s                123457  0.000  memcached
";
        assert_eq!(text(&rows()), expected);
    }

    #[test]
    fn the_markdown_table_escapes_bars() {
        let table = markdown(&rows());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[1], "| --- | --- | ---: | ---: | --- | ---: | ---: | --- |");
        assert!(lines[2].starts_with("| ram: GET a\\|b | us | 0.500 (0.400-0.600) | 1.00 |"));
        assert!(lines[3].ends_with("| <= 1.00 | fail |"));
    }
}
