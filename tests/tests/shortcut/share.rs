//! What a pod takes of the maps that all pods share.

use sidestep_agent::shortcut::Options;
use sidestep_ebpf_common::shortcut::{Count, MANNERS_SHARE};
use sidestep_kit::{
    actor::Kind,
    needs,
    process::{PATIENCE, eventually},
};

use crate::stage::{Ends, NODE, Pod, Stage, carries, connect, warm};

/// An application's connection to its own proxy.
fn to_own_proxy(pod: &Pod) -> Ends {
    connect(&pod.app, "127.0.0.1:15001", &pod.outbound)
}

/// The first one shows that the application does not block.
fn learn(pod: &Pod) {
    let Ends { near, far } = to_own_proxy(pod);
    carries(&near, &far, "of the application");
    carries(&far, &near, "of the proxy");
}

#[needs(root)]
fn a_pod_with_all_of_its_ends_goes_by_tcp_and_others_notice_nothing() {
    const SHARE: u32 = 8;
    let options = Options {
        ends_share: SHARE,
        ..Options::default()
    };
    let stage = Stage::with(Some(options), NODE, Kind::Tcp);
    let [greedy, other] = &stage.pods;
    learn(other);
    let none = eventually(PATIENCE, || stage.ends() == 0);
    assert!(none, "{} ends of connections that are closed", stage.ends());

    let taken: Vec<Ends> = (0..SHARE / 2).map(|_| to_own_proxy(greedy)).collect();
    for ends in &taken {
        warm(&stage, ends);
    }
    assert_eq!(stage.ends(), SHARE as usize);
    let refused = stage.counted(Count::Refused);
    let beyond = to_own_proxy(greedy);
    carries(&beyond.near, &beyond.far, "by TCP");
    carries(&beyond.far, &beyond.near, "by TCP");
    assert_eq!(stage.ends(), SHARE as usize, "more than its share");
    assert!(stage.counted(Count::Refused) > refused, "nobody counted it");
    warm(&stage, &to_own_proxy(other));

    drop(taken);
    let closed = eventually(PATIENCE, || stage.ends() == 0);
    assert!(closed, "{} ends are left", stage.ends());
    warm(&stage, &to_own_proxy(greedy));
}

#[needs(root)]
fn a_pod_of_which_all_that_may_be_is_known_learns_no_more_and_others_do() {
    let stage = Stage::new();
    let [many, other] = &stage.pods;
    // One program connected, and one port accepted, when the stage was made.
    let known = u16::try_from(MANNERS_SHARE).expect("a small number") - 2;
    // Whether the second connection that a port accepts goes past TCP, which is so where it is known not to block.
    let is_learnt = |pod: &Pod, port: u16| {
        let address = format!("[::]:{port}");
        let server = pod.app.listen(&address);
        let accept = || connect(&pod.proxy, &format!("127.0.0.1:{port}"), &server);
        let before = stage.counted(Count::Redirected);
        for _ in 0..2 {
            let Ends { near, far } = accept();
            carries(&near, &far, "a question");
            carries(&far, &near, "an answer");
            carries(&near, &far, "another");
            carries(&far, &near, "another");
        }
        stage.counted(Count::Redirected) > before
    };
    for port in 0..known {
        assert!(is_learnt(many, 20_000 + port), "port {port} of {known}");
    }
    assert!(!is_learnt(many, 30_000), "more than its share");
    assert!(is_learnt(other, 30_000), "another pod's");
}
