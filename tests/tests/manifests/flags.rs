//! The programs understand what the chart tells them.

use std::process::Command;

use serde_json::Value;
use sidestep_kit::{
    binary,
    chart::{object, objects},
    needs,
};

use crate::SETTINGS;

#[needs(part("helm"))]
fn every_argument_is_one_that_the_program_knows() {
    for settings in SETTINGS {
        let objects = objects(settings);
        for (kind, name) in [
            ("Deployment", "sidestep-webhook"),
            ("DaemonSet", "sidestep-agent"),
        ] {
            let workload = object(&objects, kind, name);
            let spec = &workload["spec"]["template"]["spec"];
            let all = ["initContainers", "containers"].map(|field| spec[field].as_array());
            for container in all.into_iter().flatten().flatten() {
                let arguments = container["args"].as_array().expect("arguments");
                // `--help` comes last: what is before it is read first, and an argument that is unknown or wrong ends it.
                let output = Command::new(binary(name))
                    .args(arguments.iter().filter_map(|argument| argument.as_str()))
                    .arg("--help")
                    .output()
                    .expect("it runs");
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{name} {settings:?}: {error}");
            }
        }
    }
}

#[needs(part("helm"))]
fn what_helm_test_runs_is_something_that_the_program_in_the_image_knows() {
    let objects = objects(&[]);
    let pod = object(&objects, "Pod", "sidestep-test");
    let container = &pod["spec"]["containers"][0];
    let words = |field: &str| container[field].as_array().into_iter().flatten();
    let words = words("command").chain(words("args"));
    let mut words = words.filter_map(Value::as_str);
    assert_eq!(words.next(), Some("/usr/bin/sidestep"));
    let output = Command::new(binary("sidestep"))
        .args(words)
        .arg("--help")
        .output();
    let output = output.expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

#[needs(part("helm"))]
fn every_probe_is_one_that_the_program_in_the_image_knows() {
    let objects = objects(&[]);
    let agent = object(&objects, "DaemonSet", "sidestep-agent");
    let container = &agent["spec"]["template"]["spec"]["containers"][0];
    for probe in ["livenessProbe", "readinessProbe"] {
        let words = container[probe]["exec"]["command"].as_array();
        let mut words = words.expect("a command").iter().filter_map(Value::as_str);
        let mut command = Command::new(binary(words.next().expect("a program")));
        let output = command.args(words).arg("--help").output();
        let output = output.expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{probe}: {error}");
    }
}
