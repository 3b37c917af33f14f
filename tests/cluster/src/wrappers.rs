//! Programs for people: the cluster's kubectl, istioctl and helm, as scripts that enter its network.

use std::{fs, os::unix::fs::PermissionsExt};

use super::place::Place;

/// The programs that get a script.
pub const PROGRAMS: [&str; 3] = ["kubectl", "istioctl", "helm"];

/// Writes the scripts into the cluster's folder.
pub fn write(place: &Place) -> anyhow::Result<()> {
    for name in PROGRAMS {
        let script = format!(
            "#!/bin/sh\n# {name} of the cluster {cluster}, inside its network.\nexport KUBECONFIG='{config}' KUBECACHEDIR='{cache}'\n\
             exec nsenter --net='{netns}' -- '{program}' \"$@\"\n",
            cluster = place.name(),
            config = place.kubeconfig().display(),
            cache = place.file("cache").display(),
            netns = place.netns().display(),
            program = place.program(name)?.display(),
        );
        let path = place.file(name);
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
