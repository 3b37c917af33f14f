//! A kernel that lets no program read its memory (`lockdown=confidentiality`): the programs load without those reads, and
//! take real ids for filesystem ids.

use sidestep_agent::{
    dataplane::Bpf,
    pods::folder,
    preflight::PinFolder,
    reconcile::{Mode, Reconciler},
    sandbox::Named,
    status::PodState,
};
use sidestep_ebpf_common::KernelOffsets;
use sidestep_kit::{needs, redirect::Node};

use crate::{POD, SERVICE, assert_captured};

#[needs(root)]
fn connections_are_captured_and_the_proxys_pass_without_reading_kernel_memory() {
    let node = Node::without_agent();
    let pod = node.bare_pod("client", &[POD]);
    node.add_pod_file(&pod);
    let wanted = folder::read(&node.folders().pods()).expect("a Pod file");
    let dataplane = Bpf::establish(
        PinFolder::lock(&node.folders().pins()).expect("pins of this test's alone"),
        node.pods().path(),
        KernelOffsets::UNREADABLE,
    )
    .expect("programs that read no kernel memory");
    let mode = Mode::standalone(true);
    let mut reconciler = Reconciler::new(dataplane, Named, mode, Box::new(|_, _| {}));
    reconciler
        .want(wanted.entries())
        .expect("a dataplane that works");
    let proxy = pod.proxy();
    while reconciler.status()[0].state != PodState::Active {
        assert_eq!(reconciler.pass().failure(), None);
    }
    assert_captured(&pod.app(), "outbound", SERVICE);
    assert_captured(proxy.actor(), "inbound", &format!("{POD}:8080"));
    assert!(
        proxy.actor().call(SERVICE).is_err(),
        "the proxy called itself"
    );
    reconciler.remove().expect("everything is taken away");
}
