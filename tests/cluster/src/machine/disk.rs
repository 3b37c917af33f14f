//! The disk that belongs to one run: the machine sees it as `/data`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use super::Kind;
use crate::{
    config, pki,
    place::{NODE_ADDRESS, PODS, Place},
};

/// Programs of the parts that a node runs beside Debian's own.
const PROGRAMS: [&str; 2] = ["kubelet", "kube-proxy"];

/// Large enough for what the pods of tests write; only what is written takes room.
const SIZE: &str = "6G";

/// Writes the disk of a machine, with the images of `store`.
pub fn make(place: &Place, kind: Kind, store: &Path) -> anyhow::Result<PathBuf> {
    let folder = place.file("machines").join(kind.name);
    let [bin, node] = ["bin", "node"].map(|name| folder.join(name));
    for new in [&bin, &node.join("cni")] {
        fs::create_dir_all(new)?;
    }
    for program in PROGRAMS {
        fs::copy(place.program(program)?, bin.join(program))?;
    }
    pki::write_machine(
        place,
        kind.name,
        &node.join("pki"),
        Path::new("/data/node/pki"),
    )?;
    let mut kubelet = config::kubelet_of_any_node();
    kubelet["cgroupDriver"] = "systemd".into();
    fs::write(node.join("kubelet.yaml"), kubelet.to_string())?;
    fs::write(
        node.join("cni/10-node.conflist"),
        config::network(&kind.pods()),
    )?;
    // For the units of tests/cluster/field.
    let (name, address) = (kind.name, kind.address());
    let env = format!("NAME={name}\nADDRESS={address}\nGATEWAY={NODE_ADDRESS}\nPODS={PODS}\n");
    fs::write(node.join("env"), env)?;
    // By links, for all machines have the same images.
    run(Command::new("cp")
        .arg("-al")
        .args([store, &folder.join("containerd")]))?;
    let disk = folder.with_extension("img");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d"]);
    run(mke2fs.args([&folder, &disk]).arg(SIZE))?;
    fs::remove_dir_all(&folder)?;
    Ok(disk)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
