//! Ids of pods with users of their own.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use common::policy;
use sidestep_contract::GroupSet;
use sidestep_rules::Users;

/// As kubelet maps them: a range of 65,536 for each pod.
const MAP: &str = "         0     655360      65536\n";

#[test]
fn every_id_of_a_policy_becomes_the_nodes() {
    let users = Users::parse(MAP, "0 131072 65536\n").expect("two maps");
    let before = policy(
        "-u 1337,0 -g 1337",
        &[("ISTIO_OUTBOUND_OWNER_GROUPS", "101,202")],
    );
    let policy = users.on_node(&before).expect("ids that are mapped");
    assert_eq!(policy.proxy_uids, [656_697, 655_360]);
    assert_eq!(policy.proxy_gids, [132_409]);
    let groups = GroupSet::Only(vec![131_173, 131_274]);
    assert_eq!(policy.groups.include, groups);
    assert_eq!(policy.outbound_port, before.outbound_port);
}

#[test]
fn excluded_groups_become_the_nodes_too() {
    let users = Users::parse(MAP, MAP).expect("two maps");
    let before = policy("-u 1337", &[("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "5")]);
    let policy = users.on_node(&before).expect("ids that are mapped");
    assert_eq!(policy.groups.exclude, [655_365]);
}

#[test]
fn an_id_is_looked_for_in_every_range() {
    let map = "0 100000 1000\n1337 1337 1\n2000 200000 10\n";
    let users = Users::parse(map, map).expect("two maps");
    let of = |uid: u32| users.on_node(&policy(&format!("-u {uid}"), &[]));
    let uids = |uid| of(uid).map(|policy| policy.proxy_uids);
    assert_eq!(uids(999), Ok(vec![100_999]));
    assert_eq!(uids(1337), Ok(vec![1337]));
    assert_eq!(uids(2009), Ok(vec![200_009]));
    for nobodys in [1000, 1336, 1338, 2010, 65_534] {
        let error = uids(nobodys).expect_err("it is in no range").to_string();
        assert!(
            error.starts_with(&format!("user id {nobodys} of")),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_map_is_not_understood() {
    for text in ["0 1\n", "0 x 1\n", "-1 0 1\n", "\n"] {
        assert_eq!(Users::parse(text, MAP), None, "{text:?}");
        assert_eq!(Users::parse(MAP, text), None, "{text:?}");
    }
}
