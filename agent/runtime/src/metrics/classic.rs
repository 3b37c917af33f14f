//! Prometheus' own text format, for whoever does not ask for OpenMetrics: `promtool check metrics`, older collectors, people
//! with curl. The library writes OpenMetrics alone. The two differ in the name of a counter's family, which in the older format
//! is the name of its samples, and in lines that only OpenMetrics has.

use std::collections::HashSet;

/// The media type.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// OpenMetrics text in the older format.
pub fn classic(text: &str) -> String {
    let counters: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let Some(about) = line.strip_prefix("# ") else {
            out.extend([line, "\n"]);
            continue;
        };
        // Of what begins with a hash, the older format has only these two.
        let mut words = about.splitn(3, ' ');
        if let (Some(word @ ("HELP" | "TYPE")), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next())
        {
            let total = if counters.contains(name) {
                "_total"
            } else {
                ""
            };
            out.extend(["# ", word, " ", name, total, " ", rest, "\n"]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_called_as_its_samples_are_and_the_rest_stays() {
        let text = "# HELP a Apples.\n# TYPE a counter\na_total{b=\"# TYPE x counter\"} 1\n\
                    # HELP g A gauge.\n# TYPE g gauge\n# UNIT g seconds\ng 2\n# EOF\n";
        let wanted = "# HELP a_total Apples.\n# TYPE a_total counter\na_total{b=\"# TYPE x counter\"} 1\n\
                      # HELP g A gauge.\n# TYPE g gauge\ng 2\n";
        assert_eq!(classic(text), wanted);
    }
}
