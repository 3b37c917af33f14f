//! One leads; another one follows.

use crate::{
    cluster::{ADDRESSES, holder, installed},
    replica::Replica,
    until,
};
use sidestep_kit::needs;

#[needs(apiserver, part("helm"))]
fn another_leads_when_the_leader_is_gone_at_once_where_it_could_say_so() {
    let server = installed(&[]);
    let one = Replica::start(&server, "one", ADDRESSES[0], &[]);
    one.ready();
    assert_eq!(holder(&server).as_deref(), Some("one"));
    let two = Replica::start(&server, "two", ADDRESSES[1], &[]);
    two.ready();
    assert!(!two.leads());
    one.stop();
    until("the other one leads", || two.leads());
    assert_eq!(holder(&server).as_deref(), Some("two"));
    let three = Replica::start(&server, "three", ADDRESSES[0], &[]);
    three.ready();
    two.crash();
    until("the lease runs out", || three.leads());
    assert_eq!(holder(&server).as_deref(), Some("three"));
}
