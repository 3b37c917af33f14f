//! Alerts, runbooks and the dashboard: Prometheus takes them, and they name what is there.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;
use sidestep_kit::{
    chart::{documents, object, objects},
    monitoring::{RULES, alert_queries, alerts, dashboard, panel_queries, rules, series},
    needs, parts,
};

use crate::EVERYTHING;

/// What a run of promtool prints; it must succeed.
fn promtool(words: &[&str], file: &str) {
    let mut promtool = Command::new(parts::program("promtool"));
    promtool.args(words).arg(file);
    let done = parts::finish(&mut promtool);
    done.unwrap_or_else(|error| panic!("promtool {words:?} {file}: {error}"));
}

#[needs(part("promtool"), part("helm"))]
fn promtool_takes_the_rules_as_they_are_and_as_the_chart_has_them() {
    let plain = parts::workspace().join(RULES);
    promtool(&["check", "rules"], plain.to_str().expect("text"));
    let made = object(&objects(EVERYTHING), "PrometheusRule", "sidestep")["spec"].clone();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rules.json");
    fs::write(&path, made.to_string()).expect("a file");
    promtool(&["check", "rules"], path.to_str().expect("text"));

    let mut plain = rules().to_string();
    plain = plain.replace("RUNBOOKS.md#", "https://wiki.example/sidestep#");
    assert_eq!(made.to_string(), plain);
}

#[needs(part("promtool"))]
fn each_alert_fires_where_it_should_and_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bare = rules();
    for group in bare["groups"].as_array_mut().expect("groups") {
        for rule in group["rules"].as_array_mut().expect("rules") {
            rule.as_object_mut().expect("a rule").remove("annotations");
        }
    }
    fs::write(folder.path().join("rules.json"), bare.to_string()).expect("a file");
    let tests = folder.path().join("alerts.yaml");
    fs::copy(own("alerts.yaml"), &tests).expect("a file");
    promtool(&["test", "rules"], tests.to_str().expect("text"));
}

fn own(name: &str) -> std::path::PathBuf {
    parts::workspace().join("tests/tests/manifests").join(name)
}

#[test]
fn each_alert_is_tested_firing_and_not_firing() {
    let text = fs::read_to_string(own("alerts.yaml")).expect("a file");
    let [tests] = documents(&text).try_into().expect("one document");
    let cases = |group: &Value| group["alert_rule_test"].as_array().cloned();
    let groups = tests["tests"].as_array().expect("tests");
    let cases: Vec<Value> = groups.iter().filter_map(cases).flatten().collect();
    for alert in alert_queries() {
        let of_it = cases.iter().filter(|case| case["alertname"] == *alert.name);
        let fires = |case: &Value| {
            let expected = case["exp_alerts"].as_array().expect("alerts");
            !expected.is_empty()
        };
        let seen: BTreeSet<bool> = of_it.map(fires).collect();
        assert_eq!(seen.len(), 2, "{}", alert.name);
    }
}

#[test]
fn each_alert_leads_to_its_runbook_and_each_runbook_has_an_alert() {
    let runbooks = fs::read_to_string(parts::workspace().join("manifests/RUNBOOKS.md"));
    let runbooks = runbooks.expect("a file");
    let headings: BTreeSet<&str> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let mut names = BTreeSet::new();
    let alerts = alerts(&rules());
    for alert in &alerts {
        let name = alert["alert"].as_str().expect("a name");
        names.insert(name);
        let anchor = format!("RUNBOOKS.md#{}", name.to_lowercase());
        let annotations = &alert["annotations"];
        assert_eq!(annotations["runbook_url"], anchor);
        for field in ["summary", "description"] {
            assert!(annotations[field].is_string(), "{name}: {field}");
        }
        let severity = alert["labels"]["severity"].as_str().expect("a word");
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}"
        );
    }
    assert_eq!(names, headings);
}

#[test]
fn alerts_and_dashboard_use_only_metrics_that_are_declared() {
    let agent = sidestep_agent::metrics::Metrics::default();
    let webhook = sidestep_webhook::metrics::Metrics::default();
    let rows = agent.table().rows().iter().chain(webhook.table().rows());
    let mut declared = BTreeSet::new();
    for row in rows {
        if row.kind == "histogram" {
            declared.insert(format!("{}_bucket", row.name));
        } else {
            declared.insert(row.name.clone());
        }
    }
    for query in alert_queries().iter().chain(&panel_queries()) {
        let names = series(query);
        assert!(!names.is_empty(), "{query:?}");
        for name in names {
            assert!(declared.contains(name), "{name} in {query:?}");
        }
    }
}

#[test]
fn the_dashboards_panels_have_places_of_their_own() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id");
        let at = |side: &str| panel["gridPos"][side].as_u64().expect("a number");
        assert!(at("x") + at("w") <= 24, "{title}: its width");
        for y in at("y")..at("y") + at("h") {
            for x in at("x")..at("x") + at("w") {
                assert!(taken.insert((x, y)), "{title}: its place");
            }
        }
        if panel["type"] != "row" {
            assert!(panel["description"].is_string(), "{title}: its description");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[needs(part("helm"))]
fn the_dashboard_in_the_chart_is_the_file() {
    let objects = objects(EVERYTHING);
    let map = object(&objects, "ConfigMap", "sidestep-dashboard");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = map["data"]["sidestep.json"].as_str().expect("a text");
    let made: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(made, dashboard());
}

#[needs(part("helm"))]
fn scrape_annotations_name_the_port_that_serves_metrics() {
    let objects = objects(EVERYTHING);
    for (kind, name) in [
        ("Deployment", "sidestep-webhook"),
        ("DaemonSet", "sidestep-agent"),
    ] {
        let template = &object(&objects, kind, name)["spec"]["template"];
        let annotations = &template["metadata"]["annotations"];
        assert_eq!(annotations["prometheus.io/scrape"], "true");
        let port = annotations["prometheus.io/port"].as_str().expect("a port");
        let ports = template["spec"]["containers"][0]["ports"].as_array();
        let admin = ports.into_iter().flatten().find(|it| it["name"] == "admin");
        let admin = admin.expect("the port admin");
        assert_eq!(admin["containerPort"].to_string(), port, "{name}");
    }
}
