//! What happens meanwhile.

use sidestep_agent::shortcut::{Options, Switches};
use sidestep_kit::{
    actor::{Actor, Kind, Load, Socket},
    kubelet::{KubeNode, PATIENCE, Proxy, Sandbox},
    process::eventually,
    redirect::{PodState, SERVICE},
};
use sidestep_torture::run::{Progress, run};

/// Pods of one round.
const PODS: u8 = 5;
/// Connections of each of them.
const CONNECTIONS: u32 = 200;
/// Random streams through the shortcut in one round, each byte checked.
const STREAMS: u64 = 40;
/// Rounds between two agents.
const AGENT: u64 = 3;

/// A pod that stays, with connections that never stop: in and out, kept and new.
pub(crate) struct Busy {
    loads: [(Actor, &'static str); 2],
    _server: (Actor, Socket),
    _proxy: Proxy,
    _sandbox: Sandbox,
}

impl Busy {
    pub(crate) fn start(node: &KubeNode) -> Self {
        let (sandbox, proxy) = node.create("busy", "").active("10.77.0.10");
        let (app, server) = (sandbox.app(), sandbox.app());
        let listener = server.serve("app", Kind::Tcp, "0.0.0.0:8080");
        let outside = node.base().outside();
        app.start_load(SERVICE, 1, 2);
        outside.start_load("10.77.0.10:8080", 1, 2);
        Self {
            loads: [(app, "outbound"), (outside, "inbound")],
            _server: (server, listener),
            _proxy: proxy,
            _sandbox: sandbox,
        }
    }

    /// Ends it; what was lost.
    pub(crate) fn end(self) -> Vec<String> {
        let lost = |(actor, by): &(Actor, &str)| faults_of(&actor.stop_load(), by);
        self.loads.iter().filter_map(lost).collect()
    }
}

fn faults_of(load: &Load, by: &str) -> Option<String> {
    let only = load.answered.keys().eq([by]);
    (!only || !load.failed.is_empty()).then(|| format!("connections, all for {by}: {load:?}"))
}

/// Pods that come and go, agents that do, and streams.
pub(crate) struct Churn {
    rounds: u64,
    pub(crate) pods: u64,
    pub(crate) connections: u64,
    pub(crate) agents: u64,
    streams: Progress,
    faults: Vec<String>,
}

impl Churn {
    pub(crate) fn start() -> anyhow::Result<Self> {
        Ok(Self {
            rounds: 0,
            pods: 0,
            connections: 0,
            agents: 1,
            streams: Progress::new()?,
            faults: Vec::new(),
        })
    }

    pub(crate) fn streams(&self) -> u64 {
        self.streams.connections
    }

    /// What was lost.
    pub(crate) fn faults(&self) -> Vec<String> {
        let streams = self.streams.report.faults.iter();
        let streams = streams.map(|(stream, fault)| format!("stream {stream}: {fault}"));
        self.faults.iter().cloned().chain(streams).collect()
    }

    /// Pods come, connect, and go, until nothing of them is left.
    pub(crate) fn round(&mut self, node: &KubeNode) -> anyhow::Result<()> {
        let round = self.rounds;
        self.rounds += 1;
        let names = (0..PODS).map(|nth| format!("pod-{round}-{nth}"));
        let pods: Vec<_> = names.map(|name| node.create(&name, "")).collect();
        let running: Vec<(Sandbox, Proxy)> = (1..)
            .zip(&pods)
            .map(|(nth, pod)| pod.active(&format!("10.77.{}.{nth}", 1 + round % 200)))
            .collect();
        let service = [SERVICE.to_owned()];
        for (sandbox, _) in &running {
            let load = sandbox.app().connect_many(&service, CONNECTIONS);
            self.faults.extend(faults_of(&load, "outbound"));
            self.connections += u64::from(CONNECTIONS);
        }
        for ((sandbox, proxy), pod) in running.into_iter().zip(pods) {
            drop(proxy);
            pod.delete();
            sandbox.end();
            self.pods += 1;
        }
        // Orphaned sockets keep a namespace until the last of them is acknowledged or given up.
        if !eventually(PATIENCE * 6, || node.inbound_links() == 1) {
            let left = node.inbound_links() - 1;
            self.faults.push(format!(
                "round {round}: {left} pods are not let go; {}",
                node.agent()
            ));
        }
        let options = Options {
            switches: Switches::TRUSTING,
            ..Options::default()
        };
        let streams = std::mem::take(&mut self.streams);
        let goal = streams.connections + STREAMS;
        self.streams = run(Some(options), goal, streams, None, |_| {})?;
        Ok(())
    }

    /// After some rounds the agent ends, or dies, and another takes its place.
    pub(crate) fn next_agent(&mut self, node: &mut KubeNode) {
        if !self.rounds.is_multiple_of(AGENT) {
            return;
        }
        if self.agents.is_multiple_of(2) {
            node.take_agent().kill();
        } else if !node.take_agent().stop().success() {
            self.faults.push("an agent failed as it ended".to_owned());
        }
        node.start_agent();
        node.wait_for("busy", PodState::Active);
        self.agents += 1;
    }
}
