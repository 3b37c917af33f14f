//! The agent's port for metrics, which every pod reaches, in the hands of one that means no good.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use sidestep_kit::{
    actor::assert_captured,
    kubelet::{Driver, KubeNode},
    needs,
    redirect::{PodState, SERVICE},
};

const HELD: usize = 500;
const SCRAPERS: usize = 16;

#[needs(apiserver)]
fn a_flood_of_scrapes_and_idle_connections_holds_up_neither_probes_nor_arming() {
    let node = KubeNode::with_agent();
    let address = node.metrics_address();
    let (stop, scrapes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let namespace = node.server().namespace();
    thread::scope(|scope| {
        for _ in 0..SCRAPERS {
            scope.spawn(|| namespace.enter(|| flood(&address, &stop, &scrapes)));
        }
        let _ends_also_where_something_is_wrong = Stop(&stop);
        let pods = ["one", "two", "three", "four"];
        for (nth, name) in pods.into_iter().enumerate() {
            let pod = node.create(name, "");
            let sandbox = pod.sandbox(&format!("10.77.0.1{nth}"));
            let _proxy = sandbox.proxy();
            for what in ["ready", "alive"] {
                assert_eq!(node.probe(what), (true, String::new()));
            }
            node.wait_for(name, PodState::Active);
            assert_captured(&sandbox.app(), "outbound", SERVICE);
        }
    });
    assert!(
        scrapes.load(Ordering::SeqCst) > HELD,
        "no flood: {scrapes:?}"
    );
}

/// Ends the flood.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Holds connections open that ask half of something, and scrapes as fast as it can meanwhile.
fn flood(address: &str, stop: &AtomicBool, scrapes: &AtomicUsize) {
    let mut held = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ended_by_the_agent = stream.write_all(b"GET /met");
            held.push(stream);
            held.drain(..held.len().saturating_sub(HELD / SCRAPERS));
        }
        let Ok(mut stream) = TcpStream::connect(address) else {
            continue;
        };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
        if asked.is_ok() && stream.read_to_string(&mut answer).is_ok() {
            scrapes.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[needs(apiserver)]
fn kubelets_probe_says_why_the_agent_is_not_ready() {
    let mut node = KubeNode::without_agent(Driver::Cgroupfs);
    node.capabilities = Some("-all,+sys_ptrace".to_owned());
    node.launch_agent();
    node.agent().wait("the reason to be told", || {
        let (well, said) = node.probe("ready");
        !well && said.contains("programs: CAP_DAC_READ_SEARCH is missing")
    });
    assert_eq!(node.probe("alive"), (true, String::new()));
    node.take_agent().kill();
    let (well, said) = node.probe("alive");
    assert!(!well && said.contains("no agent answers"), "{said}");
}
