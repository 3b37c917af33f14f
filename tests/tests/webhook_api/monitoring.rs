//! A real Prometheus scrapes a real agent and a real replica of the webhook: every query of the dashboard and of the alerts is
//! one, and finds what it should.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
    sync::Arc,
};

use sidestep_kit::{
    actor::assert_captured,
    kubelet::{Driver, KubeNode},
    monitoring::{alert_queries, panel_queries},
    needs,
    prometheus::{Prometheus, complaints},
    redirect::{PodState, SERVICE},
};

use crate::{
    cluster::{ADDRESSES, installed, is_gated, mutated, route},
    replica::Replica,
    until,
};

/// Series that are there only once something went wrong.
const PERHAPS_NOTHING: [&str; 2] = [
    "sidestep_webhook_watch_errors_total",
    "state=~\"pending|left\", reason!=\"\"",
];

/// Lets the kernel count how long BPF programs run, until it is dropped.
fn run_statistics() -> OwnedFd {
    const BPF_ENABLE_STATS: libc::c_long = 32;
    // `BPF_STATS_RUN_TIME`.
    let kind: u32 = 0;
    // SAFETY: the attribute is one number, and lives until the call returns.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_ENABLE_STATS,
            &raw const kind,
            size_of_val(&kind),
        )
    };
    assert!(fd >= 0, "BPF_ENABLE_STATS: {}", io::Error::last_os_error());
    let fd = i32::try_from(fd).expect("a descriptor");
    // SAFETY: the kernel just made it, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[needs(apiserver, part("helm"), part("prometheus"), part("promtool"))]
fn every_query_of_the_dashboard_and_of_the_alerts_finds_what_it_should() {
    let _counting = run_statistics();
    let server = Arc::new(installed(&[]));
    let replica = Replica::start(&server, "one", ADDRESSES[0], &[]);
    replica.ready();
    route(&server, &ADDRESSES[..1]);
    let node = KubeNode::on(Arc::clone(&server), Driver::Cgroupfs);
    node.start_agent();
    let sandbox = node.create("web", "").sandbox("10.77.0.10");
    let _proxy = sandbox.proxy();
    node.wait_for("web", PodState::Active);
    let app = sandbox.app();

    let (agent, webhook) = (node.metrics_address(), format!("{}:8080", ADDRESSES[0]));
    let targets = [("agent", agent.as_str()), ("webhook", webhook.as_str())];
    let mut prometheus = Prometheus::start(server.namespace(), &targets);
    let found = |prometheus: &Prometheus<'_>, expression: &str| {
        prometheus
            .query(expression)
            .is_ok_and(|found| !found.is_empty())
    };
    until("scrapes enough for a rate", || {
        assert!(!prometheus.has_ended(), "{}", prometheus.log());
        // Something to count.
        let gated = mutated(&server, "probe").is_ok_and(|pod| is_gated(&pod));
        assert_captured(&app, "outbound", SERVICE);
        gated
            && found(&prometheus, "count_over_time(sidestep_agent_ready[1m]) > 3")
            && found(
                &prometheus,
                "increase(sidestep_webhook_reviews_total[1m]) > 0",
            )
    });

    // With all the labels that the agents' own tests of the list cannot have.
    let reviews = replica.ask("/metrics");
    let (_, reviews) = reviews.split_once("\r\n\r\n").expect("HTTP");
    assert_eq!(complaints(reviews), "");
    assert_eq!(complaints(&node.admin("/metrics").1), "");

    for query in panel_queries() {
        let answer = prometheus.query(&query.expression);
        let series = answer.unwrap_or_else(|error| panic!("{query:?}: {error}"));
        let perhaps = PERHAPS_NOTHING
            .iter()
            .any(|of| query.expression.contains(of));
        assert!(!series.is_empty() || perhaps, "{query:?} finds nothing");
    }
    for query in alert_queries() {
        let answer = prometheus.query(&query.expression);
        let series = answer.unwrap_or_else(|error| panic!("{query:?}: {error}"));
        assert!(series.is_empty(), "{query:?}, and all is well: {series:?}");
    }
    let rules = || prometheus.get("rules").expect("it answers")["data"]["groups"].clone();
    until("each alert was evaluated", || {
        let groups = rules();
        let rules = groups.as_array().into_iter().flatten();
        let mut rules = rules
            .filter_map(|group| group["rules"].as_array())
            .flatten();
        rules.all(|rule| rule["health"] == "ok" && rule["state"] == "inactive")
    });
}
