//! Measures the settings in turn, round by round.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};

use super::{Case, Report, Round, Stage};
use sidestep_kit::mesh::{CpuTime, Requests};

/// Failed requests that are no news: one of so many. A sidecar may close a connection just as it is used again.
const FEW: u64 = 2000;
/// Requests that are looked at one by one before each round.
const CHECKED: usize = 5;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds; in each, every setting is measured once, in changing order.
    pub rounds: u32,
    /// How long each kind of traffic is measured, in whole seconds.
    pub duration: Duration,
    /// Kinds of traffic.
    pub cases: Vec<Case>,
}

/// Measures; `tell` hears what was measured.
pub fn measure(
    plan: &Plan,
    stages: &mut [Box<dyn Stage + '_>],
    tell: impl Fn(&str),
) -> anyhow::Result<Report> {
    let settings = stages.iter().map(|stage| stage.setting()).collect();
    let mut report = Report::new(plan, settings);
    for round in 0..plan.rounds {
        let mut order: Vec<usize> = (0..stages.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let stage = &mut *stages[at];
            if round > 0 {
                stage.renew();
            }
            for case in &plan.cases {
                let measured = once(stage, *case, plan.duration)
                    .with_context(|| format!("{}, {}", stage.setting().name(), case.name()))?;
                tell(&format!(
                    "round {} of {}: {:<24}{:<24}{:>9.0}/s {:>7.1} µs in the kernel",
                    round + 1,
                    plan.rounds,
                    stage.setting().name(),
                    case.name(),
                    measured.rate,
                    measured.kernel_us
                ));
                report.add(stage.setting(), *case, measured);
            }
        }
    }
    for stage in &*stages {
        report.counts.insert(stage.setting(), stage.counts());
    }
    Ok(report)
}

fn once(stage: &dyn Stage, case: Case, duration: Duration) -> anyhow::Result<Round> {
    let before = stage.requests();
    for answer in stage.answers(CHECKED)? {
        let proven = answer.headers.get("x-forwarded-client-cert");
        ensure!(
            proven.is_some_and(|cert| cert.contains("/sa/")),
            "the server saw the wrong caller: {answer:?}"
        );
    }
    let (cpu, machine) = (stage.cpu(), whole_machine()?);
    let measured = stage.load(&case.load(duration))?;
    let (cpu, machine) = (stage.cpu() - cpu, whole_machine()? - machine);
    ensure!(
        measured.errors * FEW <= measured.requests,
        "{} of {} requests failed",
        measured.errors,
        measured.requests
    );
    if let Some(before) = before.filter(|_| case.is_http()) {
        let Requests { outbound, inbound } = stage.wait_for_requests(before, measured.requests);
        ensure!(
            outbound.min(inbound) >= measured.requests,
            "the sidecars saw {outbound} and {inbound} of {} requests",
            measured.requests
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = |time: Duration| time.as_secs_f64() * 1e6 / measured.requests as f64;
    Ok(Round {
        rate: measured.rate,
        kernel_us: each(cpu.kernel),
        user_us: each(cpu.user),
        machine_kernel_us: each(machine.kernel),
        machine_user_us: each(machine.user),
    })
}

/// The whole machine's time: user, and system with both kinds of interrupts. It counts what runs in kernel threads too,
/// and whatever else runs.
fn whole_machine() -> anyhow::Result<CpuTime> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq, in ticks of 10 ms.
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else {
        anyhow::bail!("/proc/stat: {line}");
    };
    let time = |ticks: u64| Duration::from_millis(10 * ticks);
    Ok(CpuTime {
        user: time(user + nice),
        kernel: time(system + irq + softirq),
    })
}
