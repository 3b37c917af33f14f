//! Each step of arming made to fail in turn, on the real dataplane: the pod stays closed, nothing of it is captured in
//! part, and it is armed as soon as the step succeeds.

use std::{
    collections::HashMap,
    io,
    os::fd::BorrowedFd,
    thread,
    time::{Duration, Instant},
};

use sidestep_agent::{
    dataplane::{Bpf, Dataplane, DataplaneError, Repairs},
    pods::folder,
    preflight::{self, PinFolder},
    reconcile::{Mode, Reconciler},
    rules::Rules,
    sandbox::{Named, listeners::Listener},
    status::PodState,
};
use sidestep_ebpf_common::{Row, sighting::QuietKey};
use sidestep_kernel::{link::LinkError, netns::Cookie};
use sidestep_kit::{
    actor::{Errno, Identity, Kind},
    needs,
    process::PATIENCE,
    redirect::Node,
};

use crate::{POD, SERVICE, assert_captured};

/// The steps, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    OpenState,
    WriteRules,
    AttachInbound,
    AddListener,
    Commit,
    Activate,
    /// The same, where the programs have activated the pod meanwhile, as they do when its gate listens.
    LateActivate,
}

/// The real dataplane, but for one step that fails a number of times, after it was done half.
struct Faulty {
    real: Bpf,
    step: Step,
    failures: u32,
}

impl Faulty {
    fn fails(&mut self, step: Step) -> Result<(), DataplaneError> {
        if step != self.step || self.failures == 0 {
            return Ok(());
        }
        self.failures -= 1;
        Err(LinkError::Attach {
            hook: "a step made to fail",
            error: io::Error::other(format!("{step:?}")),
        }
        .into())
    }
}

impl Dataplane for Faulty {
    fn open_state(&mut self, pod: Cookie) -> Result<(), DataplaneError> {
        self.real.open_state(pod)?;
        self.fails(Step::OpenState)
    }
    fn write_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError> {
        self.real.write_rules(rules)?;
        self.fails(Step::WriteRules)
    }
    fn attach_inbound(&mut self, pod: Cookie, netns: BorrowedFd<'_>) -> Result<(), DataplaneError> {
        self.real.attach_inbound(pod, netns)?;
        self.fails(Step::AttachInbound)
    }
    fn add_listener(&mut self, pod: Cookie, listener: &Listener) -> Result<(), DataplaneError> {
        self.real.add_listener(pod, listener)?;
        self.fails(Step::AddListener)
    }
    // These two are what opens a pod: they fail before they do anything.
    fn commit(&mut self, pod: Cookie, rules: &Rules) -> Result<(), DataplaneError> {
        self.fails(Step::Commit)?;
        self.real.commit(pod, rules)
    }
    fn activate(&mut self, pod: Cookie, spread: bool) -> Result<(), DataplaneError> {
        self.fails(Step::Activate)?;
        self.real.activate(pod, spread)?;
        self.fails(Step::LateActivate)
    }
    fn armed(&self) -> Result<Vec<Cookie>, DataplaneError> {
        self.real.armed()
    }
    fn new_rules_id(&mut self) -> u32 {
        self.real.new_rules_id()
    }
    fn delete_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError> {
        self.real.delete_rules(rules)
    }
    fn sweep_rules(&mut self) -> Result<(), DataplaneError> {
        self.real.sweep_rules()
    }
    fn rules_of(&self, pod: Cookie) -> Result<Option<u32>, DataplaneError> {
        self.real.rules_of(pod)
    }
    fn has_listener(&self, pod: Cookie) -> bool {
        self.real.has_listener(pod)
    }
    fn is_active(&self, pod: Cookie) -> Result<bool, DataplaneError> {
        self.real.is_active(pod)
    }
    fn disarm(&mut self, pod: Cookie) -> Result<(), DataplaneError> {
        self.real.disarm(pod)
    }
    fn is_attached(&self, pod: Cookie) -> Result<bool, DataplaneError> {
        self.real.is_attached(pod)
    }
    fn counts(&self, pod: Cookie) -> Vec<(Row, u64)> {
        self.real.counts(pod)
    }
    fn flows(&self) -> HashMap<Cookie, usize> {
        self.real.flows()
    }
    fn repair(&mut self) -> Repairs {
        self.real.repair()
    }
    fn mute(&mut self, who: QuietKey, time: Duration) {
        self.real.mute(who, time);
    }
    fn remove(&mut self) -> Result<(), DataplaneError> {
        self.real.remove()
    }
}

/// A reconciler on this node's real dataplane, on which the step will fail this many times.
fn reconciler(node: &Node, step: Step, failures: u32) -> Reconciler<Faulty, Named> {
    let offsets = preflight::check(node.pods().path()).expect("a machine that can run the agent");
    let pins = PinFolder::lock(&node.folders().pins()).expect("pins of this test's alone");
    let real = Bpf::establish(pins, node.pods().path(), offsets).expect("programs and maps");
    let faulty = Faulty {
        real,
        step,
        failures,
    };
    Reconciler::new(faulty, Named, Mode::standalone(true), Box::new(|_, _| {}))
}

/// A policy that changes while the pod is armed: a step that fails leaves it captured, by the old policy or by the new.
fn a_failing_step_keeps_an_armed_pod_captured(step: Step) {
    let node = Node::without_agent();
    let pod = node.bare_pod("client", &[POD]);
    node.add_pod_file(&pod);
    let mut reconciler = reconciler(&node, step, 0);
    let folder = node.folders().pods();
    let wanted = || folder::read(&folder).expect("a Pod file");
    reconciler
        .want(wanted().entries())
        .expect("a dataplane that works");
    let _proxy = pod.proxy();
    assert_captured(&pod.app(), "outbound", SERVICE);

    let changed = pod
        .manifest()
        .replace("15090,15021,15020", "15090,15021,15020,9999");
    node.write_pod_file(&pod, &changed);
    reconciler.dataplane().failures = 1;
    reconciler
        .want(wanted().entries())
        .expect("a dataplane that works");
    for address in ["10.77.0.10:8080", "10.77.0.10:80"] {
        assert_captured(&node.outside(), "inbound", address);
    }
    assert_captured(&pod.app(), "outbound", SERVICE);
    let deadline = Instant::now() + PATIENCE;
    while node.outside().call(&format!("{POD}:9999")).is_ok() {
        assert!(Instant::now() < deadline, "{:?}", reconciler.status());
        assert_eq!(reconciler.pass().failure(), None);
    }
    assert_captured(&node.outside(), "inbound", "10.77.0.10:8080");
    reconciler.remove().expect("everything is taken away");
}

/// The first pass fails at the step; the proxy, listening all the time, must not be reached by anybody through us.
fn a_failing_step_keeps_the_pod_closed(step: Step) {
    let node = Node::without_agent();
    let pod = node.bare_pod("client", &[POD]);
    let proxy = pod.actor(&Identity::proxy());
    let _listeners = [
        proxy.serve("outbound", Kind::Tcp, "0.0.0.0:15001"),
        proxy.serve("inbound", Kind::Tcp, "0.0.0.0:15006"),
    ];
    node.add_pod_file(&pod);
    let wanted = folder::read(&node.folders().pods()).expect("a Pod file");
    let mut reconciler = reconciler(&node, step, 1);
    reconciler
        .want(wanted.entries())
        .expect("a dataplane that works");

    let status = reconciler.status().remove(0);
    assert_eq!(status.state, PodState::Pending, "{status:?}");
    let reason = status.reason.expect("a reason");
    assert!(reason.contains(&format!("{step:?}")), "{reason}");
    // The gate dials itself like this, and opens only if it is redirected.
    let itself = proxy.call(&format!("{POD}:15002"));
    assert_eq!(itself.err(), Some(Errno::REFUSED));
    let outside = node.outside().call(&format!("{POD}:8080"));
    assert_eq!(outside.err(), Some(Errno::REFUSED));

    let deadline = Instant::now() + PATIENCE;
    while reconciler.status()[0].state != PodState::Active {
        assert!(Instant::now() < deadline, "{:?}", reconciler.status());
        if let Some(due) = reconciler.next_retry() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        assert_eq!(reconciler.pass().failure(), None);
    }
    assert_captured(&proxy, "inbound", &format!("{POD}:15002"));
    assert_captured(&pod.app(), "outbound", SERVICE);
    assert_captured(&node.outside(), "inbound", &format!("{POD}:8080"));
    reconciler.remove().expect("everything is taken away");
}

/// Whoever got through the gate meanwhile must find everything captured.
#[needs(root, "bpftool")]
fn a_pod_that_became_active_before_a_step_failed_stays_captured() {
    let node = Node::without_agent();
    let pod = node.bare_pod("client", &[POD]);
    let _proxy = pod.proxy();
    node.add_pod_file(&pod);
    let wanted = folder::read(&node.folders().pods()).expect("a Pod file");
    let mut reconciler = reconciler(&node, Step::LateActivate, 1);
    reconciler
        .want(wanted.entries())
        .expect("a dataplane that works");
    let status = reconciler.status().remove(0);
    assert_eq!(status.state, PodState::Pending, "{status:?}");
    assert_captured(&pod.app(), "outbound", SERVICE);
    assert_captured(&node.outside(), "inbound", &format!("{POD}:8080"));

    let sets = ["PORTS", "ADDRS", "GROUPS"];
    let once = node.entries(&sets);
    let deadline = Instant::now() + PATIENCE;
    while reconciler.status()[0].state != PodState::Active {
        assert!(Instant::now() < deadline, "{:?}", reconciler.status());
        assert_eq!(reconciler.pass().failure(), None);
    }
    assert_captured(&pod.app(), "outbound", SERVICE);
    assert_eq!(
        node.entries(&sets),
        once,
        "the sets of the first attempt are left"
    );
    reconciler.remove().expect("everything is taken away");
}

macro_rules! steps {
    ($case:ident: $($name:ident: $step:ident,)+) => {
        $(#[needs(root)] fn $name() { $case(Step::$step); })+
    };
}

steps! {
    a_failing_step_keeps_an_armed_pod_captured:
    a_change_whose_rules_fail_leaves_the_pod_captured: WriteRules,
    a_change_whose_inbound_link_fails_leaves_the_pod_captured: AttachInbound,
    a_change_whose_record_fails_leaves_the_pod_captured: Commit,
    a_change_whose_activation_fails_leaves_the_pod_captured: Activate,
}

steps! {
    a_failing_step_keeps_the_pod_closed:
    a_pod_whose_counters_fail_stays_closed: OpenState,
    a_pod_whose_rules_fail_stays_closed: WriteRules,
    a_pod_whose_inbound_link_fails_stays_closed: AttachInbound,
    a_pod_whose_listener_fails_stays_closed: AddListener,
    a_pod_whose_record_fails_stays_closed: Commit,
    a_pod_whose_activation_fails_stays_closed: Activate,
}
