//! Images, packed here and imported: nothing is pulled.

use std::{
    fs, io,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{config::CONTAINERD, host::Host, parts::Parts, place::Place};
use sidestep_kit::{binary, load, parts};

/// The applications of tests: busybox, wrk, etcd, `sidestep-app` and `sidestep-actor`.
pub const APP: &str = "sidestep.test/app:1";

/// Its archive, in the cluster's folder.
const APP_ARCHIVE: &str = "app.tar";

/// Of the parts; what they hold: `tests/cluster/images.sh`.
const PARTS: [&str; 3] = ["pause", "pilot", "proxy"];

/// Imports what the node and Istio run, and the tests' own image, which is packed first.
pub fn import_all(place: &Place, host: &Host) -> anyhow::Result<()> {
    let failures = Mutex::new(Vec::new());
    let attempt = |work: &dyn Fn() -> anyhow::Result<()>| {
        if let Err(error) = work() {
            failures.lock().expect("no panic").push(error);
        }
    };
    thread::scope(|scope| {
        for part in PARTS {
            let attempt = &attempt;
            scope.spawn(move || attempt(&|| import(place, host, &archive(place, part)?)));
        }
        attempt(&|| import(place, host, &app(place)?));
    });
    let failures = failures.into_inner().expect("no panic");
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Makes a store of containerd's in the cluster's folder, for the disks of other machines: of these archives, and what pods need besides.
pub fn store(place: &Place, host: &Host, archives: &[PathBuf]) -> anyhow::Result<PathBuf> {
    const ADDRESS: &str = "/run/store/containerd.sock";
    let root = place.file("store");
    let config = format!(
        r#"version = 2
root = "{}"
state = "/run/store"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{ADDRESS}"
"#,
        root.display()
    );
    fs::write(place.file("store.toml"), config)?;
    let mut parts = Parts::new(place, host);
    parts.start_as(
        "store",
        &place.program("containerd")?,
        &["--config", "store.toml"],
    )?;
    let socket = format!("/proc/{}/root{ADDRESS}", host.pid());
    parts.wait(
        "store",
        "containerd answers",
        Duration::from_mins(2),
        || UnixStream::connect(&socket).is_ok(),
    )?;
    let all = ["pause", "proxy"].map(|part| archive(place, part));
    let all: Vec<_> = all.into_iter().collect::<anyhow::Result<_>>()?;
    let app = place.file(APP_ARCHIVE);
    let imported = all
        .iter()
        .chain(archives)
        .chain([&app])
        .try_for_each(|archive| import_at(ADDRESS, place, host, archive));
    for mut child in parts.into_children() {
        // It writes its database at each step; nothing is lost.
        child.kill()?;
        child.wait()?;
    }
    imported.map(|()| root)
}

/// An archive of the parts.
pub fn archive(place: &Place, part: &str) -> anyhow::Result<PathBuf> {
    place.part(&format!("images/{part}.tar"))
}

/// Imports an image archive.
pub fn import(place: &Place, host: &Host, archive: &Path) -> anyhow::Result<()> {
    import_at(CONTAINERD, place, host, archive)
}

fn import_at(address: &str, place: &Place, host: &Host, archive: &Path) -> anyhow::Result<()> {
    let output = host
        .command(&place.program("ctr")?)?
        .args([
            "--address",
            address,
            "--namespace",
            "k8s.io",
            "images",
            "import",
        ])
        .arg(archive)
        .output()?;
    ensure!(
        output.status.success(),
        "importing {}: {}",
        archive.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn app(place: &Place) -> anyhow::Result<PathBuf> {
    let root = place.file("app");
    for folder in ["bin", "etc", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n",
    )?;
    let busybox = Path::new("/bin/busybox");
    fs::copy(busybox, root.join("bin/busybox")).context("busybox: run `tests/setup.sh cluster`")?;
    for applet in [
        "sh", "sleep", "cat", "ls", "wget", "nc", "nslookup", "id", "ip", "env", "head", "true",
        "false",
    ] {
        symlink("busybox", root.join("bin").join(applet)).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
    }
    for program in [
        binary("sidestep-app"),
        binary("sidestep-actor"),
        load::tool("wrk")?,
        place.program("etcd")?,
    ] {
        add_program(&root, &program)?;
    }
    pack(APP, &root, &place.file(APP_ARCHIVE))
}

/// Copies a program and the libraries it names.
fn add_program(root: &Path, program: &Path) -> anyhow::Result<()> {
    let name = program.file_name().context("a program has a name")?;
    let copy = root.join("bin").join(name);
    fs::copy(program, &copy)?;
    // Most of a debug build is symbols.
    let _ = Command::new("strip").arg(&copy).status();
    let listed = Command::new("ldd").arg(program).output().context("ldd")?;
    for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        if let Some(inside) = word.strip_prefix('/') {
            let copy = root.join(inside);
            fs::create_dir_all(copy.parent().context("a library has a folder")?)?;
            fs::copy(word, copy).context(word.to_owned())?;
        }
    }
    Ok(())
}

fn pack(name: &str, root: &Path, archive: &Path) -> anyhow::Result<PathBuf> {
    let script = parts::workspace().join("manifests/images/oci.py");
    let output = Command::new("python3")
        .arg(script)
        .args(["--name", name, "--root"])
        .arg(format!("amd64={}", root.display()))
        .args([Path::new("--output"), archive])
        .args([
            "--config",
            r#"{"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"}"#,
        ])
        .output()
        .context("python3")?;
    ensure!(
        output.status.success(),
        "packing {name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(archive.to_owned())
}
