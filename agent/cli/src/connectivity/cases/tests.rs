use super::*;
use crate::connectivity::accelerated;
use crate::connectivity::call::{Answer, Failed, Made, Seen};

fn place() -> Place {
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    let pods = ["near", "far", "near-istio", "far-istio"];
    let pods = pods.iter().zip(1..);
    let pods: BTreeMap<_, _> = pods.map(|(name, n)| ((*name).to_owned(), ip(n))).collect();
    let services = pods.keys().cloned().zip((101..).map(ip));
    Place {
        namespace: "test".to_owned(),
        services: services.collect(),
        pods,
    }
}

fn steps(name: &str) -> Vec<Step> {
    let place = place();
    let scene = Scene {
        side: Side::Sidestep,
        path: Path::SameNode,
        place: &place,
    };
    let mut cases = CASES.iter();
    let case = cases.find(|case| case.name == name).expect("a case");
    case.steps(&scene)
}

fn seen(pod: &str, certificate: Option<&str>) -> Seen {
    Seen {
        us: 7,
        answer: Some(Answer {
            pod: pod.to_owned(),
            certificate: certificate.map(ToOwned::to_owned),
        }),
        ..Seen::default()
    }
}

fn failed(timed_out: bool) -> Made {
    Err(Failed {
        timed_out,
        said: "it is no more".to_owned(),
    })
}

#[test]
fn every_case_has_calls_that_name_objects_which_are_there() {
    let place = place();
    for case in &CASES {
        for side in [Side::Sidestep, Side::Istio] {
            for path in [Path::SameNode, Path::TwoNodes] {
                let scene = Scene {
                    side,
                    path,
                    place: &place,
                };
                let steps = case.steps(&scene);
                assert!(!steps.is_empty(), "{}", case.name);
                for step in steps {
                    let is_of_side = step.from == client(side) || step.from == OUTSIDE;
                    assert!(is_of_side, "{step:?}");
                    let is_reached = step.to.is_some() || step.call.to().is_none();
                    assert!(is_reached, "{step:?}");
                }
            }
        }
    }
}

#[test]
fn the_readme_says_of_every_case_what_it_is() {
    let readme = include_str!("../../../README.md");
    let (_, section) = readme
        .split_once("\n## connectivity-test\n")
        .expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let names = CASES.iter().map(|case| case.name);
    for name in names.chain([accelerated::NAME]) {
        let row = format!("\n| `{name}` | ");
        assert!(section.contains(&row), "no row for {name}");
    }
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    assert_eq!(rows.count(), CASES.len() + 1);
}

#[test]
fn whoever_should_answer_must() {
    let http = &steps("http")[0];
    assert_eq!(http.judged(&Ok(seen("near", None))), Ok(7));
    let why = http.judged(&Ok(seen("far", None))).expect_err("another");
    assert_eq!(why, "HTTP to near port 8080: pod far answers, not near");
    let why = http.judged(&failed(false)).expect_err("nobody");
    assert_eq!(why, "HTTP to near port 8080: it is no more");
}

#[test]
fn mutual_tls_is_seen_by_the_certificate_and_plain_text_by_its_absence() {
    let tls = &steps("mutual-tls")[0];
    assert_eq!(tls.judged(&Ok(seen("near", Some("By=x")))), Ok(7));
    let why = tls.judged(&Ok(seen("near", None))).expect_err("plain text");
    assert!(why.contains("no certificate"), "{why}");
    let plain = &steps("strict-plain-text")[0];
    assert_eq!(plain.judged(&Ok(seen("near", None))), Ok(7));
    assert!(plain.judged(&Ok(seen("near", Some("By=x")))).is_err());
}

#[test]
fn plain_text_must_be_refused_and_must_not_hang() {
    let [_, refused] = &steps("strict-plain-text")[..] else {
        panic!("two steps");
    };
    assert_eq!(refused.from, OUTSIDE);
    assert_eq!(refused.judged(&failed(false)), Ok(0));
    let why = refused.judged(&failed(true)).expect_err("it hangs");
    assert!(why.contains("hangs"), "{why}");
    let answered = Ok(seen("near", None));
    let why = refused.judged(&answered).expect_err("it is answered");
    assert!(why.contains("is answered: it should be refused"), "{why}");
}

#[test]
fn what_is_excluded_meets_no_proxy() {
    let excluded = &steps("excluded-port")[0];
    let seen_from = |peer: &str| {
        Ok(Seen {
            local: Some("10.0.0.9:4000".parse().expect("an address")),
            peer: Some(peer.parse().expect("an address")),
            ..Seen::default()
        })
    };
    assert_eq!(excluded.judged(&seen_from("10.0.0.9:4000")), Ok(0));
    for proxied in ["10.0.0.9:4001", "127.0.0.6:4000"] {
        let why = excluded.judged(&seen_from(proxied)).expect_err("a proxy");
        assert!(why.contains("a proxy is between them"), "{why}");
    }
}

#[test]
fn a_name_must_stand_for_its_services_address() {
    let by_udp = &steps("dns")[0];
    let found = |last: u8| {
        Ok(Seen {
            addresses: vec![[10, 0, 0, last].into()],
            ..Seen::default()
        })
    };
    let near = place().services["near"];
    let IpAddr::V4(near) = near else {
        panic!("of IPv4")
    };
    let [.., last] = near.octets();
    assert_eq!(by_udp.judged(&found(last)), Ok(0));
    let why = by_udp.judged(&found(250)).expect_err("another");
    assert!(why.starts_with("the name near by UDP: "), "{why}");
}

#[test]
fn a_hint_names_where_the_call_goes() {
    let place = place();
    let hint = steps("http")[0].hint(&place);
    let to = place.services["near"];
    let wanted = format!("sidestep explain pod/client -n test --to {to}:8080");
    assert!(hint.contains(&wanted), "{hint}");
    let hint = steps("closed-port")[0].hint(&place);
    assert!(hint.contains("--to 10.0.0.1:9009"), "{hint}");
}
