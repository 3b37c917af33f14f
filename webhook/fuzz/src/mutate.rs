//! Changes to JSON that keep it JSON: libFuzzer's own changes to bytes rarely get past the parser.

use serde_json::{Map, Value, json};

/// What stands in pods that are decided about.
const WORDS: [&str; 36] = [
    "istio-init",
    "istio-validation",
    "istio-proxy",
    "istio-iptables",
    "--run-validation",
    "--skip-rule-apply",
    "--probe-timeout=300s",
    "--iptables-probe-port=15002",
    "--",
    "-u",
    "-u=0",
    "1337",
    "0",
    "-o15002",
    "-o1:65535",
    "-mTPROXY",
    "$(X)",
    "ALL",
    "true",
    "false",
    "node",
    "namespace",
    "application",
    "DoesNotExist",
    "metadata.name",
    "sidestep.dev/accelerated",
    "sidestep.dev/enabled",
    "sidestep.dev/shortcut",
    "sidestep.dev/left-alone",
    "sidestep.dev/policy",
    "sidestep.dev/unsupported",
    "kubernetes.io/config.mirror",
    "CREATE",
    "UPDATE",
    "Pod",
    "~1/~0",
    "",
];

/// Random numbers from a seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.next() % bound).unwrap_or_default()
    }

    fn word(&mut self) -> String {
        WORDS[self.below(WORDS.len())].to_owned()
    }
}

/// One or a few changes to a document, by a seed; nothing if the bytes are not JSON.
pub fn json(bytes: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let mut random = Random(seed.into());
    for _ in 0..=random.below(4) {
        let donor = pick(&document, &mut random).clone();
        change(&mut document, &donor, &mut random);
    }
    Some(document.to_string().into_bytes())
}

/// A value somewhere in the document.
fn pick<'a>(document: &'a Value, random: &mut Random) -> &'a Value {
    let inner = match document {
        Value::Object(fields) if !fields.is_empty() => {
            fields.values().nth(random.below(fields.len()))
        }
        Value::Array(items) if !items.is_empty() => items.get(random.below(items.len())),
        _ => None,
    };
    match inner {
        Some(inner) if random.below(8) > 0 => pick(inner, random),
        _ => document,
    }
}

/// Changes something somewhere in the document, rather far down.
fn change(document: &mut Value, donor: &Value, random: &mut Random) {
    let deeper = random.below(6) > 0;
    match document {
        Value::Object(fields) if !fields.is_empty() && deeper => {
            let place = random.below(fields.len());
            if let Some(inner) = fields.values_mut().nth(place) {
                change(inner, donor, random);
            }
        }
        Value::Array(items) if !items.is_empty() && deeper => {
            let place = random.below(items.len());
            change(&mut items[place], donor, random);
        }
        Value::Object(fields) => change_object(fields, donor, random),
        Value::Array(items) => change_list(items, donor, random),
        other => *other = leaf(donor, random),
    }
}

fn change_object(fields: &mut Map<String, Value>, donor: &Value, random: &mut Random) {
    let names: Vec<_> = fields.keys().cloned().collect();
    let name = (!names.is_empty()).then(|| names[random.below(names.len())].clone());
    match (random.below(3), name) {
        (0, Some(name)) => drop(fields.remove(&name)),
        (1, Some(name)) => drop(fields.insert(name, donor.clone())),
        _ => drop(fields.insert(random.word(), leaf(donor, random))),
    }
}

fn change_list(items: &mut Vec<Value>, donor: &Value, random: &mut Random) {
    let place = random.below(items.len() + 1);
    match (random.below(4), items.get(place).cloned()) {
        (0, Some(_)) => drop(items.remove(place)),
        (1, Some(item)) => items.insert(random.below(items.len()), item),
        (2, Some(_)) => {
            let other = random.below(items.len());
            items.swap(place, other);
        }
        _ => items.insert(place, leaf(donor, random)),
    }
}

fn leaf(donor: &Value, random: &mut Random) -> Value {
    match random.below(12) {
        0 => donor.clone(),
        1 => Value::Null,
        2 => json!(random.below(2) == 0),
        3 => json!(i64::from_ne_bytes(random.next().to_ne_bytes())),
        4 => json!([]),
        5 => json!({}),
        6 => json!(random.below(70_000)),
        _ => json!(random.word()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_is_json_and_mostly_another() {
        let document = br#"{"a": [1, {"b": "c"}], "d": null}"#;
        let changed = (0..1000).filter(|seed| {
            let bytes = json(document, *seed).expect("JSON");
            let after: Value = serde_json::from_slice(&bytes).expect("JSON");
            after != serde_json::from_slice::<Value>(document).expect("JSON")
        });
        assert!(changed.count() > 900);
        assert_eq!(json(b"{", 0), None);
    }
}
