//! Bad input: a message that names it, an exit code, and nothing changed.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use sidestep_kit::{
    binary, bpftool,
    foreign::{LoadBalancer, Sharing},
    needs,
    net::{Namespace, OUTSIDE_V4},
    process::copy_program,
    redirect::{Fixture, Node},
};

const NAMESERVERS: [&str; 1] = ["10.77.0.53"];

#[needs(root, "bpftool")]
fn not_root() {
    let node = Node::without_agent();
    // A copy: the user may not be able to reach the folder of the real one.
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
        .expect("a folder of ours");
    let copy = folder.path().join("sidestep-agent");
    copy_program(&binary("sidestep-agent"), &copy);
    let mut command = Command::new(copy);
    command
        .args(node.folders().command().get_args())
        .uid(65_534)
        .gid(65_534);
    assert_refused(&node, &mut command, &["root"]);
}

#[needs(root, "bpftool")]
fn a_folder_that_is_no_cgroup() {
    let node = Node::without_agent();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_string_lossy().into_owned();
    let mut command = with(&node, "--cgroup", &path);
    assert_refused(&node, &mut command, &[&path, "cgroup v2"]);
}

#[needs(root, "bpftool")]
fn a_cgroup_that_does_not_exist() {
    let node = Node::without_agent();
    let path = node
        .pods()
        .path()
        .join("absent")
        .to_string_lossy()
        .into_owned();
    let mut command = with(&node, "--cgroup", &path);
    assert_refused(&node, &mut command, &[&path]);
}

#[needs(root, "bpftool")]
fn a_pin_folder_that_is_no_bpffs() {
    let node = Node::without_agent();
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("a file of somebody"), "").expect("a folder of ours");
    let path = folder.path().join("pins").to_string_lossy().into_owned();
    let mut command = with(&node, "--pin", &path);
    assert_refused(
        &node,
        &mut command,
        &[&folder.path().to_string_lossy(), "bpffs"],
    );
}

#[needs(root, "bpftool", "unshare")]
fn a_kernel_without_btf() {
    let node = Node::without_agent();
    let known = node.folders().command();
    let mut command = Command::new("unshare");
    // Hidden from this one process: the mount namespace is its own.
    command
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"",
            "sh",
        ])
        .arg(known.get_program())
        .args(known.get_args());
    assert_refused(&node, &mut command, &["BTF", "/sys/kernel/btf/vmlinux"]);
}

#[needs(root, "bpftool")]
fn an_exclusive_program_above() {
    let node = Node::without_agent();
    let host = OUTSIDE_V4.parse().expect("an address");
    let _balancer = LoadBalancer::attach(node.cgroup(), host, host, Sharing::Exclusive);
    let mut command = node.folders().command();
    assert_refused(&node, &mut command, &["exclusively", LoadBalancer::NAME]);
}

#[needs(root, "bpftool")]
fn an_unknown_flag() {
    let node = Node::without_agent();
    let mut command = node.folders().command();
    command.arg("--frobnicate");
    assert_refused(&node, &mut command, &["--frobnicate"]);
}

#[needs(root, "bpftool")]
fn a_namespace_that_does_not_exist() {
    let node = Node::without_agent();
    write(&node, "lost", &manifest("lost", "ss-nowhere"));
    assert_refused(
        &node,
        &mut node.folders().command(),
        &["lost", "ss-nowhere"],
    );
}

#[needs(root, "bpftool")]
fn the_hosts_own_namespace() {
    let node = Node::without_agent();
    write(&node, "host", &manifest("host", "/proc/1/ns/net"));
    assert_refused(
        &node,
        &mut node.folders().command(),
        &["host", "/proc/1/ns/net"],
    );
}

#[needs(root, "bpftool")]
fn two_pods_on_one_namespace() {
    let node = Node::without_agent();
    let namespace = Namespace::new("shared");
    write(&node, "one", &manifest("one", namespace.name()));
    write(&node, "two", &manifest("two", namespace.name()));
    assert_refused(
        &node,
        &mut node.folders().command(),
        &["one", "two", namespace.name()],
    );
}

#[needs(root, "bpftool")]
fn port_0() {
    let node = Node::without_agent();
    let namespace = Namespace::new("zero");
    let manifest = manifest("zero", namespace.name()).replacen("\"15006\"", "\"0\"", 1);
    write(&node, "zero", &manifest);
    assert_refused(&node, &mut node.folders().command(), &["zero", "-z", "0"]);
}

#[needs(root, "bpftool")]
fn a_pod_file_that_is_no_yaml() {
    let node = Node::without_agent();
    write(
        &node,
        "broken",
        "apiVersion: v1\nkind: Pod\nmetadata: [unfinished\n",
    );
    assert_refused(&node, &mut node.folders().command(), &["broken.yaml"]);
}

#[needs(root, "bpftool")]
fn a_pod_file_with_a_field_of_the_wrong_type() {
    let node = Node::without_agent();
    let namespace = Namespace::new("typed");
    let manifest = manifest("typed", namespace.name()).replacen("\"15006\"", "[15006]", 1);
    write(&node, "typed", &manifest);
    assert_refused(
        &node,
        &mut node.folders().command(),
        &["typed.yaml", "initContainers[0].args"],
    );
}

#[needs(root, "bpftool")]
fn a_folder_of_pods_that_does_not_exist() {
    let node = Node::without_agent();
    let path = node
        .folders()
        .pods()
        .join("absent")
        .to_string_lossy()
        .into_owned();
    assert_refused(&node, &mut with(&node, "--pods", &path), &[&path]);
}

#[needs(root)]
fn a_second_agent_for_the_same_pods() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[crate::POD]);
    // Another socket does not make it another node.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder
        .path()
        .join("other.sock")
        .to_string_lossy()
        .into_owned();
    let output = output_in_time(&mut with(&node, "--socket", &socket));
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    let pods = node.pods().path().to_string_lossy().into_owned();
    assert!(
        message.contains("another agent (process ") && message.contains(&pods),
        "{message}"
    );
    crate::assert_captured(&pod.app(), "outbound", crate::SERVICE);
}

/// Whoever may open a folder may lock it, and many may open a cgroup.
#[needs(root)]
fn a_lock_on_the_pods_cgroup_keeps_no_agent_out() {
    let mut node = Node::without_agent();
    let cgroup = fs::File::open(node.pods().path()).expect("a cgroup");
    cgroup.lock().expect("nobody else locks it");
    node.start_agent();
    let inode = cgroup.metadata().expect("a cgroup").ino();
    let lock = PathBuf::from(format!("/run/sidestep/cgroup-{inode}.lock"));
    let mode = fs::metadata(&lock).expect("the agent's lock").mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(node.take_agent().stop().success());
    assert!(!lock.exists(), "{} is left", lock.display());
}

fn with(node: &Node, flag: &str, value: &str) -> Command {
    let known = node.folders().command();
    let mut command = Command::new(known.get_program());
    let mut arguments = known.get_args().map(ToOwned::to_owned).collect::<Vec<_>>();
    let at = arguments
        .iter()
        .position(|argument| *argument == *flag)
        .expect("a known flag");
    arguments[at + 1] = value.into();
    command.args(arguments);
    command
}

fn manifest(name: &str, namespace: &str) -> String {
    Fixture::load("client").manifest(name, namespace, &NAMESERVERS)
}

fn write(node: &Node, name: &str, manifest: &str) {
    node.folders().write_pod(name, manifest);
}

/// It ends by itself, in time, with a message that has all of these words, and has changed nothing.
#[track_caller]
fn assert_refused(node: &Node, command: &mut Command, words: &[&str]) {
    let output = output_in_time(command);
    let message = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{}: {message}", output.status);
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
    assert!(!node.folders().pins().exists(), "pins are left");
    let attached = bpftool::attached(node.pods().path());
    assert!(attached.is_empty(), "{attached:?}");
}

fn output_in_time(command: &mut Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().expect("it is our child").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("it is our child");
            let output = child.wait_with_output().expect("it is our child");
            panic!("it runs on: {}", String::from_utf8_lossy(&output.stderr));
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it is our child")
}
