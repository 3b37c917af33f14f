//! Sidestep on a cluster, installed as users do: images built here, the chart by Helm.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, ensure};

use sidestep_kit::parts::workspace;

use super::{Cluster, images, kubectl};

/// The namespace that the chart goes into.
pub const NAMESPACE: &str = "sidestep-system";

/// The Helm release.
const RELEASE: &str = "sidestep";

/// Builds debug images of these programs (`webhook`, `agent`) and returns their archives.
pub fn build_images(names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    build("dev", "target/images", names)
}

/// The same for emulated machines, where an unoptimised agent takes three times as long to start: its image is of an optimised one.
pub fn build_images_for_machines() -> anyhow::Result<Vec<PathBuf>> {
    let optimised = build("optimised", "target/images/optimised", &["agent"])?;
    // Both, as other tests build them: alone, the webhook would be built once more, with fewer features of what it is made of.
    let mut images = build_images(&["webhook", "agent"])?;
    images.truncate(1);
    Ok([images, optimised].concat())
}

/// The image, with the tag `next`, of an agent whose maps have another layout.
pub fn build_next_image() -> anyhow::Result<PathBuf> {
    let built = build("next", "target/images/next", &["agent"])?;
    built.into_iter().next().context("an image of an agent")
}

fn build(profile: &str, folder: &str, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let root = workspace();
    let folder = root.join(folder);
    let mut command = Command::new(root.join("manifests/images/build.sh"));
    command
        .args(["--profile", profile, "--output"])
        .arg(&folder)
        .args(names);
    // What cargo tells a test of the test's own package makes build scripts of others run again.
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&key);
        }
    }
    let output = command.output().context("manifests/images/build.sh")?;
    ensure!(
        output.status.success(),
        "the images were not built: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let archives = names.iter().map(|name| folder.join(format!("{name}.tar")));
    Ok(archives.collect())
}

/// Imports the images, makes the namespace and installs the chart with these values (`key=value`); returns when webhook and agent serve.
pub fn install(cluster: &Cluster, archives: &[PathBuf], values: &[&str]) -> anyhow::Result<()> {
    for archive in archives {
        images::import(cluster.place(), cluster.host(), archive)?;
    }
    let namespace = std::fs::read_to_string(workspace().join("manifests/namespace.yaml"))?;
    cluster.admin().apply(&namespace)?;
    let programs = ["deployment/sidestep-webhook", "daemonset/sidestep-agent"];
    let restart = [&["-n", NAMESPACE, "rollout", "restart"], &programs[..]].concat();
    let there = cluster
        .admin()
        .succeeds(&["-n", NAMESPACE, "get", programs[1]]);
    upgrade(cluster, values)?;
    if there {
        // Nothing else tells it that images of the same name are others.
        cluster.admin().output(&restart)?;
        wait(cluster)?;
    }
    Ok(())
}

/// Installs the chart, or changes the release's values to these.
pub fn upgrade(cluster: &Cluster, values: &[&str]) -> anyhow::Result<()> {
    let chart = workspace().join("manifests/chart");
    let chart = chart.to_str().context("a path of text")?;
    let mut arguments = vec![
        "upgrade",
        "--install",
        RELEASE,
        chart,
        "--set",
        "image.pullPolicy=Never",
    ];
    for value in values {
        arguments.extend(["--set", value]);
    }
    helm(cluster, &arguments)?;
    wait(cluster)
}

/// Removes the release, with these further options; the error is what Helm complains of.
pub fn uninstall(cluster: &Cluster, options: &[&str]) -> anyhow::Result<String> {
    helm(
        cluster,
        &[&["uninstall", RELEASE, "--wait"], options].concat(),
    )
}

/// Takes the release out of the state in which Helm leaves it when it was not uninstalled.
pub fn roll_back(cluster: &Cluster) -> anyhow::Result<()> {
    let history = helm(cluster, &["history", RELEASE, "--output=json"])?;
    let history: serde_json::Value = serde_json::from_str(&history)?;
    let last = history.as_array().and_then(|all| all.last());
    let last = last.context("a release has a history")?["revision"].to_string();
    helm(cluster, &["rollback", RELEASE, &last])?;
    wait(cluster)
}

/// Waits until every replica of the webhook serves, and the agent of every node that should have one is ready.
pub fn wait(cluster: &Cluster) -> anyhow::Result<()> {
    for part in ["deployment/sidestep-webhook", "daemonset/sidestep-agent"] {
        let in_place = ["-n", NAMESPACE];
        let status = ["rollout", "status", part, "--timeout=120s"];
        let rollout = cluster.admin().output(&[&in_place, &status[..]].concat());
        rollout.map(drop).map_err(|error| {
            let about = ["logs", part, "--tail=12"];
            let logs = cluster.admin().output(&[&in_place, &about[..]].concat());
            error.context(logs.unwrap_or_default())
        })?;
    }
    Ok(())
}

fn helm(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let place = cluster.place();
    let mut command = kubectl::in_network(place, &place.program("helm")?)?;
    for kind in ["CACHE", "CONFIG", "DATA"] {
        command.env(format!("HELM_{kind}_HOME"), place.file("helm-files"));
    }
    command.args(["--namespace", NAMESPACE]).args(arguments);
    let output = kubectl::run(command, "")?;
    ensure!(
        output.status.success(),
        "helm {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
