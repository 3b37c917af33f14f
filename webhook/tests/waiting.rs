//! Pods that wait at their gates: who counts, from when on, and what is due.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sidestep_webhook::cluster::{Agent, Cluster, Node};
use sidestep_webhook::leader::Patience;
use sidestep_webhook::leader::waiting::{Book, Place, Waiting};
use tokio::time::Instant;

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

const PATIENCE: Patience = Patience {
    report: Some(Duration::from_mins(1)),
    delete: Some(Duration::from_mins(5)),
};

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A cluster with a ready agent on these nodes.
fn agents(nodes: &[&str]) -> Cluster {
    let nodes = nodes.iter().map(|name| {
        let node = Node {
            agent: Agent::Ready,
            ..Node::default()
        };
        ((*name).to_owned(), node)
    });
    Cluster {
        nodes: Some(nodes.collect()),
        ..Cluster::default()
    }
}

/// A gated pod of a controller, whose gate runs on `node`.
fn waiting(uid: &str, node: &str) -> Value {
    let mut pod = common::mutated(&common::fixture("client"));
    pod["metadata"]["name"] = uid.into();
    pod["metadata"]["namespace"] = "default".into();
    pod["metadata"]["uid"] = uid.into();
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
    pod["spec"]["nodeName"] = node.into();
    pod["status"] = json!({"phase": "Pending", "initContainerStatuses": [{
        "name": "istio-init", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
    pod
}

fn typed(pod: &Value) -> Pod {
    common::typed(pod)
}

fn uids(pods: &[Waiting]) -> Vec<&str> {
    pods.iter().map(|pod| pod.uid.as_str()).collect()
}

#[test]
fn a_pod_waits_while_its_gate_is_shut_and_nothing_else_does() {
    let pod = waiting("u", "one");
    let seen = Waiting::of(&typed(&pod)).expect("it waits");
    assert_eq!(
        (seen.uid.as_str(), &seen.place),
        ("u", &Place::Gate("one".to_owned()))
    );
    assert!(seen.is_replaced);
    let mut changes: Vec<(&str, Value)> = Vec::new();
    let mut change = |what, change: &dyn Fn(&mut Value)| {
        let mut pod = waiting("u", "one");
        change(&mut pod);
        changes.push((what, pod));
    };
    change("not scheduled", &|pod| {
        pod["spec"]["nodeName"] = Value::Null;
    });
    change("on its way out", &|pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    change("its gate has ended", &|pod| {
        pod["status"]["initContainerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 0}});
    });
    change("its gate has not begun", &|pod| {
        pod["status"] = json!({"phase": "Pending"});
    });
    change("the label alone, beside a privileged istio-init", &|pod| {
        let status = pod["status"].take();
        let mut forged = common::fixture("client");
        forged["metadata"]["labels"]["sidestep.dev/accelerated"] = "true".into();
        for field in ["name", "namespace", "uid"] {
            forged["metadata"][field] = "u".into();
        }
        forged["spec"]["nodeName"] = "one".into();
        forged["status"] = status;
        *pod = forged;
    });
    for (what, pod) in changes {
        assert_eq!(Waiting::of(&typed(&pod)), None, "{what}");
    }
    let mut bare = waiting("u", "one");
    bare["metadata"]["ownerReferences"][0]["controller"] = false.into();
    assert!(!Waiting::of(&typed(&bare)).expect("it waits").is_replaced);
}

#[test]
fn a_gate_that_gives_up_and_begins_anew_is_one_long_wait() {
    let now = Instant::now();
    let mut book = Book::default();
    let gave_up = json!({"terminated": {"exitCode": 126}});
    let course = [
        (
            0,
            json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
            json!({}),
        ),
        (0, gave_up.clone(), json!({})),
        (
            0,
            json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            gave_up.clone(),
        ),
        (
            1,
            json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
            gave_up,
        ),
        (
            1,
            json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            json!({}),
        ),
    ];
    for (n, (restarts, state, last)) in (0..).zip(course) {
        let mut pod = waiting("u", "one");
        let status = &mut pod["status"]["initContainerStatuses"][0];
        status["restartCount"] = restarts.into();
        status["state"] = state;
        status["lastState"] = last;
        book.see(&typed(&pod));
        let due = book.due(&agents(&[]), PATIENCE, now + second(60 * n));
        assert_eq!(due.overdue, usize::from(n > 0), "{pod:#}");
    }
    let due = book.due(&agents(&[]), PATIENCE, now + second(300));
    assert_eq!(uids(&due.delete), ["u"]);
    let mut pod = waiting("u", "one");
    pod["status"]["initContainerStatuses"][0]["state"] =
        json!({"waiting": {"reason": "PodInitializing"}});
    assert_eq!(Waiting::of(&typed(&pod)), None, "it has not begun");
}

#[test]
fn a_jobs_pod_is_reported_and_not_deleted_for_the_job_would_count_it_as_a_failure() {
    let now = Instant::now();
    let mut book = Book::default();
    let mut pod = waiting("u", "one");
    pod["metadata"]["ownerReferences"][0]["apiVersion"] = "batch/v1".into();
    pod["metadata"]["ownerReferences"][0]["kind"] = "Job".into();
    book.see(&typed(&pod));
    book.due(&agents(&[]), PATIENCE, now);
    let due = book.due(&agents(&[]), PATIENCE, now + second(100_000));
    assert_eq!((due.report.len(), due.delete.len()), (1, 0));
}

#[test]
fn it_is_reported_once_and_deleted_once_in_their_time() {
    let mut book = Book::default();
    let now = Instant::now();
    book.see(&typed(&waiting("u", "one")));
    let due = book.due(&agents(&["two"]), PATIENCE, now);
    assert_eq!((due.report.len(), due.delete.len(), due.overdue), (0, 0, 0));
    let due = book.due(&agents(&["two"]), PATIENCE, now + second(60));
    assert_eq!(uids(&due.report), ["u"]);
    assert_eq!(uids(&due.delete), [""; 0]);
    let again = book.due(&agents(&["two"]), PATIENCE, now + second(61));
    assert_eq!(uids(&again.report), ["u"], "until it is said that it was");
    book.reported("u");
    let due = book.due(&agents(&["two"]), PATIENCE, now + second(299));
    assert_eq!((due.report.len(), due.delete.len(), due.overdue), (0, 0, 1));
    let due = book.due(&agents(&["two"]), PATIENCE, now + second(300));
    assert_eq!(uids(&due.delete), ["u"]);
    book.deleted("u");
    let due = book.due(&agents(&["two"]), PATIENCE, now + second(301));
    assert_eq!((due.delete.len(), due.overdue), (0, 1));
}

#[test]
fn an_agent_on_its_node_ends_the_wait_and_a_restarted_one_begins_it_anew() {
    let mut book = Book::default();
    let now = Instant::now();
    book.see(&typed(&waiting("u", "one")));
    book.due(&agents(&[]), PATIENCE, now);
    book.due(&agents(&["one"]), PATIENCE, now + second(50));
    let due = book.due(&agents(&["one"]), PATIENCE, now + second(500));
    assert_eq!((due.report.len(), due.overdue), (0, 0));
    book.due(&agents(&[]), PATIENCE, now + second(501));
    let due = book.due(&agents(&[]), PATIENCE, now + second(560));
    assert_eq!(due.report, []);
    let due = book.due(&agents(&[]), PATIENCE, now + second(561));
    assert_eq!(uids(&due.report), ["u"]);
}

#[test]
fn a_pod_that_fits_no_node_is_reported_where_sidestep_keeps_it_off_some_and_never_deleted() {
    let now = Instant::now();
    let mut pod = waiting("u", "one");
    let scheduled = std::mem::take(&mut pod["spec"]["nodeName"]);
    let status = std::mem::take(&mut pod["status"]);
    pod["status"] = json!({"conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/2 nodes are available"}]});
    let nowhere = Place::Nowhere("0/2 nodes are available".to_owned());
    let seen = Waiting::of(&typed(&pod)).expect("it waits");
    assert_eq!(seen.place, nowhere);
    let mut book = Book::default();
    book.see(&typed(&pod));
    let nothing_labelled = Cluster {
        nodes: Some([].into()),
        ..Cluster::default()
    };
    book.due(&nothing_labelled, PATIENCE, now);
    let due = book.due(&nothing_labelled, PATIENCE, now + second(1000));
    assert_eq!(due.overdue, 0, "it is not for Sidestep's sake");
    // A node without its labels is none that gated pods may come to.
    let kept_off = agents(&["one"]);
    book.due(&kept_off, PATIENCE, now + second(1000));
    let due = book.due(&kept_off, PATIENCE, now + second(10_000));
    assert_eq!((uids(&due.report), due.delete.len()), (vec!["u"], 0));
    book.reported("u");
    pod["spec"]["nodeName"] = scheduled;
    pod["status"] = status;
    book.see(&typed(&pod));
    book.due(&agents(&[]), PATIENCE, now + second(10_000));
    let due = book.due(&agents(&[]), PATIENCE, now + second(10_060));
    assert_eq!(uids(&due.report), ["u"], "at its gate it begins anew");
    pod["status"] = json!({"conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "SchedulingGated"}]});
    pod["spec"]["nodeName"] = Value::Null;
    assert_eq!(Waiting::of(&typed(&pod)), None);
}

#[test]
fn a_bare_pod_is_never_deleted_and_nobody_is_without_the_setting() {
    let now = Instant::now();
    let mut book = Book::default();
    let mut bare = waiting("bare", "one");
    bare["metadata"]["ownerReferences"] = json!([]);
    book.see(&typed(&bare));
    book.due(&agents(&[]), PATIENCE, now);
    let due = book.due(&agents(&[]), PATIENCE, now + second(100_000));
    assert_eq!((uids(&due.report), due.delete.len()), (vec!["bare"], 0));
    let mut book = Book::default();
    book.see(&typed(&waiting("u", "one")));
    let never = Patience {
        delete: None,
        ..PATIENCE
    };
    book.due(&agents(&[]), never, now);
    let due = book.due(&agents(&[]), never, now + second(100_000));
    assert_eq!((due.report.len(), due.delete.len()), (1, 0));
}

#[test]
fn who_passes_the_gate_or_goes_is_forgotten() {
    let now = Instant::now();
    let mut book = Book::default();
    let mut passed = waiting("passed", "one");
    for uid in ["passed", "gone", "unlisted", "left"] {
        book.see(&typed(&waiting(uid, "one")));
    }
    book.due(&agents(&[]), PATIENCE, now);
    passed["status"]["initContainerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 0}});
    book.see(&typed(&passed));
    book.forget(&typed(&waiting("gone", "one")));
    book.keep_only(|uid| uid != "unlisted");
    let due = book.due(&agents(&[]), PATIENCE, now + second(60));
    assert_eq!(uids(&due.report), ["left"]);
}

#[test]
fn a_few_are_done_at_a_time_the_longest_wait_first() {
    let now = Instant::now();
    let mut book = Book::default();
    for n in 0..50_u64 {
        book.see(&typed(&waiting(&format!("{n:02}"), "one")));
        book.due(&agents(&[]), PATIENCE, now + second(n));
    }
    let due = book.due(&agents(&[]), PATIENCE, now + second(1000));
    assert_eq!(
        (due.report.len(), due.delete.len(), due.overdue),
        (10, 5, 50)
    );
    assert_eq!(uids(&due.delete), ["00", "01", "02", "03", "04"]);
}

#[test]
fn pods_about_which_nothing_can_be_done_do_not_keep_it_from_the_others() {
    let now = Instant::now();
    let mut book = Book::default();
    for n in 0..30_u64 {
        book.see(&typed(&waiting(&format!("{n:02}"), "one")));
    }
    book.due(&agents(&[]), PATIENCE, now);
    let [mut reported, mut deleted] = [BTreeSet::new(), BTreeSet::new()];
    // Nobody says that anything was done.
    for n in 0..6 {
        let due = book.due(&agents(&[]), PATIENCE, now + second(300 + n));
        reported.extend(due.report.into_iter().map(|pod| pod.uid));
        deleted.extend(due.delete.into_iter().map(|pod| pod.uid));
    }
    assert_eq!((reported.len(), deleted.len()), (30, 30));
}
