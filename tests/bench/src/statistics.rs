//! What a few rounds' numbers say together.

use serde::Serialize;

/// The median of some numbers, the lowest and the highest of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// NaN where there are no numbers, as are the others.
    pub median: f64,
    /// The lowest.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
}

impl Spread {
    /// Of these numbers.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let sorted = sorted(values);
        Self {
            median: quantile(&sorted, 0.5),
            lowest: quantile(&sorted, 0.0),
            highest: quantile(&sorted, 1.0),
        }
    }

    /// Whether ratios say nothing: they are further from each other than their median is from 1.
    pub fn is_noise(&self) -> bool {
        // NaN is noise, too.
        let says = self.highest - self.lowest <= (self.median - 1.0).abs();
        !says
    }

    /// Of the ratios of numbers to others, round by round.
    pub fn of_ratios(own: &[f64], others: &[f64]) -> Self {
        Self::of(own.iter().zip(others).map(|(own, other)| own / other))
    }
}

/// Half the interquartile range, as a share of the median.
pub fn noise(values: &[f64]) -> f64 {
    let sorted = sorted(values.iter().copied());
    (quantile(&sorted, 0.75) - quantile(&sorted, 0.25)) / 2.0 / quantile(&sorted, 0.5)
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of sorted values, between neighbours in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    #[expect(clippy::cast_precision_loss, reason = "a few rounds")]
    let at = share * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of rounds"
    )]
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    let fraction = at - at.floor();
    sorted[below] + (sorted[above] - sorted[below]) * fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert!(close(quantile(&[1.0, 2.0], 0.5), 1.5));
        assert!(close(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratios = Spread::of_ratios(&[110.0, 260.0, 480.0], &[100.0, 200.0, 400.0]);
        assert!(close(ratios.median, 1.2));
        assert!(close(ratios.lowest, 1.1) && close(ratios.highest, 1.3));
    }

    #[test]
    fn ratios_that_disagree_by_more_than_they_show_are_noise() {
        let ratios = |values: [f64; 3]| Spread::of(values);
        assert!(!ratios([1.05, 1.09, 1.12]).is_noise());
        assert!(!ratios([0.74, 0.77, 0.81]).is_noise());
        assert!(ratios([1.02, 1.09, 1.15]).is_noise());
        assert!(ratios([0.96, 0.98, 0.99]).is_noise());
        assert!(Spread::of([]).is_noise());
        assert!(
            !ratios([1.0, 1.0, 1.0]).is_noise(),
            "the first setting itself"
        );
    }

    #[test]
    fn noise_leaves_out_the_quarters_at_both_ends() {
        assert!(close(noise(&[10.0, 9.0, 11.0, 100.0, 1.0]), 0.1));
    }
}
