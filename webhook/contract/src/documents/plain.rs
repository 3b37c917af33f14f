//! Plain scalars as kubectl reads them.
//!
//! kubectl, Helm and the API server read YAML 1.1 (`sigs.k8s.io/yaml`), where a plain `0755` is 493 and `yes` is true. The
//! library here reads YAML 1.2, where both are texts. Only the scanner of a document knows what stands plain, so the words
//! are replaced before the document is read. Lines stay lines, and what is quoted or tagged stays as it is.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// `text`, with each plain scalar that YAML 1.1 reads otherwise written as YAML 1.2 writes its value. What cannot be scanned
/// is left for the reader to refuse.
pub(super) fn as_kubectl_reads(text: &str) -> Cow<'_, str> {
    let mut places = text.char_indices().map(|(at, _)| at).enumerate();
    let mut read = String::new();
    let mut done = 0;
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        let Event::Scalar(word, ScalarStyle::Plain, _, None) = event else {
            continue;
        };
        let Some(value) = value(&word) else { continue };
        let index = span.start.index();
        let Some((_, start)) = places.find(|(nth, _)| *nth == index) else {
            break;
        };
        let start = start + anchor(&text[start..]);
        if text[start..].starts_with(&*word) {
            read.push_str(&text[done..start]);
            read.push_str(&value);
            done = start + word.len();
        }
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    read.push_str(&text[done..]);
    Cow::Owned(read)
}

/// The length of an anchor and the blanks behind it; 0 where there is none. A scalar's place includes its anchor.
fn anchor(text: &str) -> usize {
    if !text.starts_with('&') {
        return 0;
    }
    let behind = text.trim_start_matches(|c: char| !c.is_whitespace());
    text.len() - behind.trim_start().len()
}

/// The value of a plain scalar as YAML 1.2 writes it, where YAML 1.1 may mean another one (`resolve.go` of go.yaml.in/yaml/v2).
fn value(word: &str) -> Option<String> {
    match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Some("true".to_owned()),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Some("false".to_owned()),
        _ => {}
    }
    let may_be_number = word.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c));
    if !may_be_number {
        return None;
    }
    let digits = word.replace('_', "");
    match integer(&digits) {
        Some(value) => {
            let value = value.to_string();
            (value != word).then_some(value)
        }
        None if digits.len() < word.len() || digits.starts_with('0') => decimal(&digits),
        None => None,
    }
}

/// As Go's `strconv.ParseInt` with base 0: a leading zero means base 8.
fn integer(digits: &str) -> Option<i128> {
    let (sign, digits) = match digits.as_bytes().first()? {
        b'-' => (-1, &digits[1..]),
        b'+' => (1, &digits[1..]),
        _ => (1, digits),
    };
    let bases = [
        ("0x", 16),
        ("0X", 16),
        ("0b", 2),
        ("0B", 2),
        ("0o", 8),
        ("0O", 8),
    ];
    let prefixed = bases.iter().find_map(|(prefix, base)| {
        let digits = digits.strip_prefix(prefix)?;
        Some((digits, *base))
    });
    let (digits, base) = prefixed.unwrap_or(match digits {
        "0" => (digits, 10),
        _ if digits.starts_with('0') => (digits, 8),
        _ => (digits, 10),
    });
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None; // a second sign
    }
    let value = i128::from_str_radix(digits, base).ok()? * sign;
    // Larger ones are floating-point numbers for kubectl, as for the reader here.
    (i128::from(i64::MIN)..=i128::from(u64::MAX))
        .contains(&value)
        .then_some(value)
}

/// A decimal number that is no integer to `integer`: `08`, or `1_000.5` without its underscore.
fn decimal(digits: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let value: f64 = digits.chars().all(allowed).then(|| digits.parse().ok())??;
    value
        .is_finite()
        .then(|| serde_json::Value::from(value).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::from_yaml;
    use serde_json::json;

    /// What Helm 4.0 makes of them as values, asked once by hand.
    #[test]
    fn plain_scalars_are_read_as_by_kubectl() {
        for (plain, value) in [
            (
                "[yes, Yes, YES, yEs, y, Y]",
                json!([true, true, true, "yEs", true, true]),
            ),
            (
                "[n, N, no, off, OFF, oN]",
                json!([false, false, false, false, false, "oN"]),
            ),
            (
                "[on, On, ON, true, TRUE, tRue]",
                json!([true, true, true, true, true, "tRue"]),
            ),
            ("[null, Null, ~, NULL]", json!([null, null, null, null])),
            (
                "[0755, 0o755, 0O755, 0b11, 0x1F, 0X1f]",
                json!([493, 493, 493, 3, 31, 31]),
            ),
            ("[1_000, 0_7, 012_3, _1, 1_]", json!([1000, 7, 83, "_1", 1])),
            ("[08, 09, 0789]", json!([8.0, 9.0, 789.0])),
            (
                "[+12, -0755, +0755, 00, 0, -0]",
                json!([12, -493, 493, 0, 0, 0]),
            ),
            (
                "[.5, 1., 1e3, 1.5e3, 1E-2]",
                json!([0.5, 1.0, 1000.0, 1500.0, 0.01]),
            ),
            (
                "[1_000.5, 0.10, 685_230.15]",
                json!([1000.5, 0.1, 685_230.15]),
            ),
            (
                "[12:30, 2001-01-01, 0x1p-2]",
                json!(["12:30", "2001-01-01", "0x1p-2"]),
            ),
            (
                "[0b, 0x, 0o8, ., +, .., ._1]",
                json!(["0b", "0x", "0o8", ".", "+", "..", "._1"]),
            ),
            (
                "{yes: 1, 0755: 2, 12: 6}",
                json!({"true": 1, "493": 2, "12": 6}),
            ),
        ] {
            assert_eq!(
                from_yaml(&format!("v: {plain}\n")),
                Ok(json!({"v": value})),
                "{plain}"
            );
        }
    }

    #[test]
    fn what_is_quoted_tagged_or_in_a_block_stays_a_text() {
        let text = "a: 'yes'\nb: \"0755\"\nc: |\n  on\n  0755\nd: !!str no\ne: >-\n  off\n# yes\nf: ä yes\ng: {ä: 0755}\n";
        let value = json!({"a": "yes", "b": "0755", "c": "on\n0755\n", "d": "no", "e": "off", "f": "ä yes", "g": {"ä": 493}});
        assert_eq!(from_yaml(text), Ok(value));
    }

    #[test]
    fn anchors_hold_what_they_held() {
        let value = json!({"a": true, "b": true, "c": 493, "d": [493]});
        assert_eq!(
            from_yaml("a: &x yes\nb: *x\nc: &y 0755\nd:\n- *y\n"),
            Ok(value)
        );
    }
}
