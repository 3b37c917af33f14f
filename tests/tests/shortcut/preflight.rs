//! Kernels on which the shortcut is not even tried, in disguise: it is off and says why, and pods are captured all the same.

use std::fs;

use sidestep_kit::{needs, redirect::Node};

use crate::agent::pod;

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why the shortcut is off where the kernel's files are as these commands leave them.
fn off_because(mounts: &str) -> String {
    let mut node = Node::without_agent();
    node.disguise_kernel(mounts);
    node.start_agent();
    let (pod, proxy) = pod(&node);
    let captured = proxy.capture(&pod.app());
    captured.send("sent;");
    captured.expect("sent;");
    let shortcut = node.agent().status().expect("the agent answers").shortcut;
    assert!(!shortcut.on);
    shortcut.reason.expect("a reason")
}

/// The same with other type information.
fn off_because_of_btf(btf: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(&file, btf).expect("a file of ours");
    off_because(&format!("mount --bind {} {BTF}", file.path().display()))
}

#[needs(root)]
fn a_kernel_whose_structures_changed_has_no_shortcut() {
    let mut btf = fs::read(BTF).expect("the kernel's type information");
    let name = b"\0copied_seq\0";
    let at = btf.windows(name.len()).position(|bytes| bytes == name);
    btf[at.expect("a member of every kernel's") + 1] = b'X';
    let why = off_because_of_btf(&btf);
    assert_eq!(
        why,
        "this kernel's BTF does not tell where copied_seq of a TCP socket is"
    );
}

#[needs(root)]
fn a_kernel_whose_type_information_cannot_be_read_has_no_shortcut() {
    let why = off_because_of_btf(b"nothing that is known");
    assert!(why.starts_with("this kernel has no usable BTF"), "{why}");
}

#[needs(root)]
fn a_kernel_that_keeps_its_memory_to_itself_has_no_shortcut() {
    let why = off_because(
        "mount -t tmpfs none /sys/kernel/security; echo 'none integrity [confidentiality]' >/sys/kernel/security/lockdown",
    );
    assert_eq!(
        why,
        "kernel lockdown: programs may not read the kernel's memory"
    );
}

#[needs(root)]
fn without_type_information_the_agent_does_not_start() {
    let mut node = Node::without_agent();
    node.disguise_kernel("mount -t tmpfs none /sys/kernel/btf");
    let output = node.folders().command().output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("this kernel has no BTF"), "{said}");
}
