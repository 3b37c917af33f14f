//! A difference that the rounds agree about, and its words.

use sidestep_bench::statistics::Spread;

/// A difference in whole percent: the least and the most of those that are told together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Change {
    is_less: bool,
    least: u32,
    most: u32,
}

impl Change {
    /// Nothing where it is noise: where the rounds' ratios are further from each other than their median is from 1.
    pub(super) fn of(ratio: Spread) -> Option<Self> {
        let difference = ratio.median - 1.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number of percent"
        )]
        let percent = (difference.abs() * 100.0).round() as u32;
        (percent > 0 && !ratio.is_noise()).then_some(Self {
            is_less: difference < 0.0,
            least: percent,
            most: percent,
        })
    }

    /// Both in one, if they are of the same direction.
    pub(super) fn join(self, other: Self) -> Option<Self> {
        (self.is_less == other.is_less).then(|| Self {
            is_less: self.is_less,
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        })
    }

    /// As in "5 to 9 % more", with this word for less.
    pub(super) fn words(self, less: &str) -> String {
        let Self {
            is_less,
            least,
            most,
        } = self;
        let word = if is_less { less } else { "more" };
        if least == most {
            format!("{least} % {word}")
        } else {
            format!("{least} to {most} % {word}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lowest: f64, median: f64, highest: f64) -> Option<String> {
        let spread = Spread {
            median,
            lowest,
            highest,
        };
        Change::of(spread).map(|change| change.words("less"))
    }

    #[test]
    fn a_difference_is_told_if_the_rounds_are_closer_to_each_other() {
        assert_eq!(words(1.05, 1.09, 1.12).as_deref(), Some("9 % more"));
        assert_eq!(words(0.74, 0.77, 0.81).as_deref(), Some("23 % less"));
    }

    #[test]
    fn otherwise_it_is_noise() {
        assert_eq!(words(1.02, 1.09, 1.15), None);
        assert_eq!(words(0.96, 0.98, 0.99), None);
        assert_eq!(words(1.001, 1.001, 1.001), None);
        assert_eq!(words(f64::NAN, f64::NAN, f64::NAN), None);
    }

    #[test]
    fn only_those_of_one_direction_are_told_together() {
        let change = |is_less, percent| Change {
            is_less,
            least: percent,
            most: percent,
        };
        let joined = change(true, 23).join(change(true, 19)).expect("both less");
        assert_eq!(joined.words("fewer"), "19 to 23 % fewer");
        assert_eq!(change(true, 23).join(change(false, 19)), None);
    }
}
