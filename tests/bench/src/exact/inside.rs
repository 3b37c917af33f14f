//! In the machine.

use std::{process::Command, time::Duration};

use anyhow::{Context, ensure};

use super::{Case, Sample, Setting, hooks::Counting, mark, profile::Symbols};
use crate::{Pods, Stage};

/// Connections are made, and programs have what they keep, before anything counts.
const WARM: Duration = Duration::from_secs(1);

/// Begins a line that is a [`Sample`].
pub const SAMPLE: &str = "sample ";

/// Begins a line that is the kernel's functions, for the samples of the setting before it.
pub const SYMBOLS: &str = "symbols ";

/// Measures each of these settings in turn and prints a line of JSON for each kind of traffic.
/// With `symbols` also the kernel's functions.
pub fn inside(
    settings: &[Setting],
    cases: &[Case],
    duration: Duration,
    symbols: bool,
) -> anyhow::Result<()> {
    for setting in settings {
        println!("{}: two pods with a sidecar each", setting.name());
        let pods = Pods::new(*setting)?;
        for case in cases {
            let sample = sample(&pods, *case, duration)
                .with_context(|| format!("{}, {}", setting.name(), case.name()))?;
            println!("{SAMPLE}{}", serde_json::to_string(&sample)?);
        }
        if symbols {
            // While its programs are loaded: a later setting's may lie where they lay.
            let packed = Command::new("sh").args(["-c", Symbols::PACK]).output()?;
            println!("{SYMBOLS}{}", String::from_utf8(packed.stdout)?);
        }
    }
    Ok(())
}

fn sample(pods: &Pods, case: Case, duration: Duration) -> anyhow::Result<Sample> {
    let load = |duration| {
        let measured = pods.load(&case.load(duration))?;
        ensure!(measured.errors == 0, "{} requests failed", measured.errors);
        Ok(measured.requests)
    };
    let before = pods.requests();
    let warm = load(WARM)?;
    if let Some(before) = before.filter(|_| case.is_http() && pods.setting() != Setting::Direct) {
        let seen = pods.wait_for_requests(before, warm);
        ensure!(
            seen.outbound.min(seen.inbound) >= warm,
            "the sidecars saw {seen:?} of {warm} requests"
        );
    }
    mark::pass();
    let requests = load(duration)?;
    mark::pass();
    let counting = Counting::new()?;
    let requests_counted = load(WARM)?;
    Ok(Sample {
        setting: pods.setting(),
        case,
        requests,
        requests_counted,
        hooks: counting.end()?,
    })
}
