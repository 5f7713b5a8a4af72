//! From values to heights, and which values get a label.

/// The most labels of an axis that stands and of one that lies.
pub(super) const TICKS_UPRIGHT: usize = 6;
pub(super) const TICKS_ACROSS: usize = 13;

/// How values are laid out along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From zero up to `end`, labelled every `step`.
    Linear { end: f64, step: f64 },
    /// From ten to the power of `first` up to that of `last`.
    Logarithmic { first: i32, last: i32 },
}

impl Scale {
    /// A scale from zero that has room for `highest`, and at most `ticks_max` labels.
    pub(super) fn linear(highest: f64, ticks_max: usize) -> Self {
        let highest = if highest.is_finite() && highest > 0.0 { highest } else { 1.0 };
        let magnitude = 10f64.powf((highest / (ticks_max - 1) as f64).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude);
        let fits = |step: &f64| highest / step <= (ticks_max - 1) as f64 + 1e-9;
        let step = steps.into_iter().find(fits).unwrap_or(10.0 * magnitude);
        Self::Linear { end: (highest / step).ceil() * step, step }
    }

    /// A scale of whole decades that has room for all from `lowest` to `highest`.
    pub(super) fn logarithmic(lowest: f64, highest: f64) -> Self {
        let decade = |value: f64| {
            let value = if value.is_finite() && value > 0.0 { value } else { 1.0 };
            value.log10()
        };
        let first = decade(lowest).floor() as i32;
        let last = (decade(highest).ceil() as i32).max(first + 1);
        Self::Logarithmic { first, last }
    }

    /// Where a value is: 0 at the axis' start, 1 at its end.
    pub(super) fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { end, .. } => value / end,
            Self::Logarithmic { first, last } => {
                (value.max(f64::MIN_POSITIVE).log10() - f64::from(first)) / f64::from(last - first)
            }
        };
        place.clamp(0.0, 1.0)
    }

    /// The values that get a label, with it.
    pub(super) fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Linear { end, step } => {
                let count = (end / step).round() as usize;
                (0..=count).map(|index| index as f64 * step).map(|v| (v, label(v, step))).collect()
            }
            Self::Logarithmic { first, last } => (first..=last)
                .map(|power| 10f64.powi(power))
                .map(|value| (value, label(value, value)))
                .collect(),
        }
    }
}

/// A value as short as it can be told from its neighbours `step` away; thousands are parted.
fn label(value: f64, step: f64) -> String {
    let decimals = if step >= 1.0 { 0 } else { (-step.log10()).ceil() as usize };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut parted = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            parted.push(' ');
        }
        parted.push(digit);
    }
    parted + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn a_linear_axis_has_round_labels_and_room_for_all() {
        assert_eq!(labels(Scale::linear(430_000.0, 6))[1], "100 000");
        for highest in [0.0, f64::NAN, 0.003, 0.7, 1.0, 7.0, 99.0, 100.0, 101.0, 1.3e7] {
            let scale = Scale::linear(highest, TICKS_UPRIGHT);
            let labels = labels(scale);
            assert!((2..=TICKS_UPRIGHT).contains(&labels.len()), "{highest}: {labels:?}");
            let mut parted = labels.clone();
            parted.dedup();
            assert_eq!(parted, labels, "{highest}: every label differs");
            if highest > 0.0 {
                let place = scale.place(highest);
                assert!(place > 0.4 && place <= 1.0, "{highest} is at {place}");
            }
        }
        assert_eq!(labels(Scale::linear(0.3, 6)), ["0.0", "0.1", "0.2", "0.3"]);
    }

    #[test]
    fn a_logarithmic_axis_has_a_label_for_each_decade() {
        let scale = Scale::logarithmic(0.02, 40.0);
        assert_eq!(labels(scale), ["0.01", "0.1", "1", "10", "100"]);
        assert!((scale.place(1.0) - 0.5).abs() < 1e-9);
        assert!(scale.place(0.0).abs() < 1e-9);
        assert_eq!(labels(Scale::logarithmic(f64::INFINITY, 0.0)), ["1", "10"]);
        assert_eq!(labels(Scale::logarithmic(10.0, 10.0)), ["10", "100"]);
    }
}
