//! How quickly a pod is armed after its sandbox has started, and what an agent costs that looks after 500 of them: `make
//! bench-agent`. Prints a table, and fails where a goal is missed.

use std::{fs, process::ExitCode, thread, time::Duration};

use serde_json::json;
use sidestep_kit::{
    kubelet::{Driver, KubeNode, PATIENCE, Proxy, Sandbox, pod},
    needs,
    process::eventually,
    redirect::PodState,
};

/// Pods on the node.
const PODS: usize = 500;
/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_mins(1);

/// Milliseconds from a pod's first process in its network namespace to its record: the 99th percentile.
const REACTION_GOAL: f64 = 5.0;
/// MiB, resident.
const MEMORY_GOAL: f64 = 40.0;
/// Percent of one CPU.
const CPU_GOAL: f64 = 0.1;

fn main() -> ExitCode {
    // `cargo test` builds and runs benchmarks, too; there is nothing to test here.
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    if !needs::are_met(needs::apiserver) {
        return ExitCode::SUCCESS;
    }
    let node = KubeNode::without_agent(Driver::Cgroupfs);
    node.start_agent();
    let pid = node.agent().pid();
    let empty = memory(pid);
    let pods = create(&node);
    // Nobody else is at work when sandboxes start.
    let known: Vec<_> = pods.iter().map(|name| node.known(name)).collect();
    let sandboxes: Vec<Sandbox> = known
        .iter()
        .enumerate()
        .map(|(n, pod)| {
            let sandbox = pod.sandbox(&format!("10.77.{}.{}", 1 + n / 250, 1 + n % 250));
            // To ask the agent would keep it from what is measured.
            assert!(eventually(PATIENCE, || node.inbound_links() > n));
            sandbox
        })
        .collect();
    for name in &pods {
        node.wait_for(name, PodState::Armed);
    }
    let _proxies: Vec<Proxy> = sandboxes.iter().map(Sandbox::proxy).collect();
    let status = node.agent().status().expect("an answer");
    let armed = status.pods.len();
    let mut reactions: Vec<u64> = status.pods.iter().filter_map(|p| p.reaction_us).collect();
    let mut programming: Vec<u64> = status.pods.iter().filter_map(|p| p.programmed_us).collect();
    let seen = reactions.len();

    // What the start of so many pods left to do is done.
    thread::sleep(Duration::from_secs(10));
    let before = cpu(pid);
    thread::sleep(IDLE);
    let idle = (cpu(pid) - before) / IDLE.as_secs_f64() * 100.0;
    let full = memory(pid);

    let (median, p99) = percentiles(&mut reactions);
    let (median_own, p99_own) = percentiles(&mut programming);
    println!("{armed} pods armed, {seen} of them seen as they started");
    println!("                                          median      p99     goal");
    println!(
        "first process → armed, ms             {median:>10.2} {p99:>8.2} {REACTION_GOAL:>8.2}"
    );
    println!("of this programming, ms               {median_own:>10.2} {p99_own:>8.2}");
    println!(
        "resident memory, MiB                  {full:>10.1}          {MEMORY_GOAL:>8.1}   ({empty:.1} without pods)"
    );
    println!("idle, % of one CPU                    {idle:>10.3}          {CPU_GOAL:>8.3}");
    if seen > 0 && p99 <= REACTION_GOAL && full <= MEMORY_GOAL && idle <= CPU_GOAL {
        ExitCode::SUCCESS
    } else {
        println!("a goal is missed");
        ExitCode::FAILURE
    }
}

fn create(node: &KubeNode) -> Vec<String> {
    let names: Vec<String> = (0..PODS).map(|n| format!("web-{n}")).collect();
    let items: Vec<_> = names.iter().map(|name| pod(name, &node.name, "")).collect();
    let all = json!({"apiVersion": "v1", "kind": "List", "items": items});
    node.server()
        .feed(&format!("create -n {}", node.name), &all)
        .expect("the API server takes them");
    names
}

/// Median and 99th percentile of microseconds, in milliseconds.
fn percentiles(times: &mut [u64]) -> (f64, f64) {
    times.sort_unstable();
    let at = |percent: usize| {
        let time = times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        Duration::from_micros(time.copied().unwrap_or(0)).as_secs_f64() * 1000.0
    };
    (at(50), at(99))
}

/// Resident memory, MiB.
fn memory(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.expect("a number of kB") / 1024.0
}

/// Seconds on a CPU, of all threads.
fn cpu(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs");
    let times = tasks.flatten().filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ')
            .next()?
            .parse()
            .ok()
            .map(Duration::from_nanos)
    });
    times.sum::<Duration>().as_secs_f64()
}
