//! Go's spellings of booleans, numbers and durations.

use std::time::Duration;

use super::flags::Kind;

/// Decimal digits without sign, leading zero, underscore or space. Go and iptables read more spellings, some of them
/// (`010`) as another number. No injector writes those, so they are left to Istio.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if plain && !padded {
        text.parse().ok()
    } else {
        None
    }
}

/// `value` in its one normal spelling, or what it should have been.
pub(super) fn normal(kind: Kind, value: &str) -> Result<String, &'static str> {
    match kind {
        Kind::Text => Ok(value.to_owned()),
        Kind::Bool => match boolean(value) {
            Some(value) => Ok(value.to_string()),
            None => Err("a boolean"),
        },
        Kind::Number => match decimal(value).and_then(|number| u16::try_from(number).ok()) {
            Some(number) => Ok(number.to_string()),
            None => Err("a number from 0 to 65535"),
        },
        Kind::Duration if is_duration(value) => Ok(value.to_owned()),
        Kind::Duration => Err("a duration like 5s"),
    }
}

/// `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Whether `time.ParseDuration` takes it: numbers with units, at least one, or a bare `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let unit_at = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(unit_at);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // Go refuses what overflows 64 bits of nanoseconds, from seven digits of hours on.
        let sane = whole.len() <= 6 && !fraction.contains('.');
        if !sane || (whole.is_empty() && fraction.is_empty()) {
            return false;
        }
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_len);
        if !["ns", "us", "µs", "μs", "ms", "s", "m", "h"].contains(&unit) {
            return false;
        }
        rest = next;
    }
    true
}

/// A duration as Go reads it, and as people would write it: `300s`, `1500ms`.
pub(crate) fn duration_text(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}
