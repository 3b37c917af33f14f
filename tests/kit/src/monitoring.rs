//! The alerts and the dashboard that the chart has, as values.

use std::fs;

use serde_json::Value;

use crate::{chart::documents, parts};

/// Where the alerts are, in the workspace.
pub const RULES: &str = "manifests/chart/monitoring/rules.yaml";
/// Where the dashboard is.
pub const DASHBOARD: &str = "manifests/chart/monitoring/dashboard.json";

/// A query of Prometheus, and who asks it.
#[derive(Clone, Debug)]
pub struct Query {
    /// The alert's name, or the panel's title.
    pub name: String,
    /// The expression.
    pub expression: String,
}

fn read(path: &str) -> String {
    let path = parts::workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The rules file.
pub fn rules() -> Value {
    let [rules] = documents(&read(RULES)).try_into().expect("one document");
    rules
}

/// Every alert of a rules file.
pub fn alerts(rules: &Value) -> Vec<Value> {
    let groups = rules["groups"].as_array().expect("groups");
    let rules = groups.iter().filter_map(|group| group["rules"].as_array());
    rules.flatten().cloned().collect()
}

/// The dashboard.
pub fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).expect("JSON")
}

/// The queries of all alerts.
pub fn alert_queries() -> Vec<Query> {
    let query = |alert: &Value| Query {
        name: text(&alert["alert"]),
        expression: text(&alert["expr"]),
    };
    alerts(&rules()).iter().map(query).collect()
}

/// The queries of all panels, with what Grafana puts in the place of its variables.
pub fn panel_queries() -> Vec<Query> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| Query {
            name: text(&panel["title"]),
            expression: text(&target["expr"])
                .replace("$__rate_interval", "1m")
                .replace("$instance", ".*"),
        })
    });
    queries.collect()
}

/// The names of Sidestep's series in a query.
pub fn series(query: &Query) -> Vec<&str> {
    let words = query
        .expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("sidestep_")).collect()
}
