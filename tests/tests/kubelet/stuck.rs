//! A pod whose files never answer: an image that is still being fetched, or somebody who means it.

use std::{ffi::CStr, io, os::unix::process::CommandExt as _, path::Path, process::Command};

use sidestep_kit::{
    actor::assert_captured,
    kubelet::KubeNode,
    needs,
    process::Running,
    redirect::{PodState, SERVICE},
};

fn fuse() -> Result<(), String> {
    let there = Path::new("/dev/fuse").exists();
    there
        .then_some(())
        .ok_or_else(|| "there is no /dev/fuse".to_owned())
}

#[needs(apiserver, self::fuse)]
fn a_pod_whose_resolv_conf_is_never_read_holds_up_no_other_and_is_armed() {
    let mut node = KubeNode::with_agent();
    let stuck = node.create("stuck", "--redirect-dns");
    let namespace = node.base().network().host("pod", &["10.77.0.10"]);
    let cgroup = stuck.cgroup();
    let mut command = Command::new("sleep");
    command.arg("600");
    namespace.command_enters(&mut command);
    let container = cgroup.child("container");
    container.command_joins(&mut command);
    // SAFETY: the closure only makes system calls; it neither allocates nor locks.
    unsafe { command.pre_exec(hide_resolv_conf) };
    let process = Running::start(&mut command);

    node.wait_for("stuck", PodState::Armed);
    let other = node.create("other", "--redirect-dns");
    let (sandbox, _proxy) = other.active("10.77.0.11");
    assert_captured(&sandbox.app(), "outbound", SERVICE);
    assert_eq!(node.admin("/livez").0, 200);
    // Nor does it hold up the agent's end.
    assert!(node.take_agent().stop().success());
    drop((process, container, cgroup, namespace));
}

/// Gives this process alone a root of its own, as a container has, and in it a file system on `/etc/resolv.conf` whose server is the
/// process itself: it never answers.
fn hide_resolv_conf() -> io::Result<()> {
    const SERVER: libc::c_int = 9;
    let check = |result: libc::c_int| match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    };
    // SAFETY: constant strings that end with a zero; the mount namespace is a new one, of this process alone.
    unsafe {
        let device = check(libc::open(c"/dev/fuse".as_ptr(), libc::O_RDWR))?;
        check(libc::dup2(device, SERVER))?;
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let none = std::ptr::null();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
        let mount = |kind: &CStr, at: &CStr, options: &CStr| {
            let [name, kind, at] = [c"ss-stuck", kind, at].map(CStr::as_ptr);
            check(libc::mount(name, at, kind, 0, options.as_ptr().cast()))
        };
        mount(c"tmpfs", c"/mnt", c"")?;
        for folder in [c"/mnt/nothing", c"/mnt/root"] {
            check(libc::mkdir(folder.as_ptr(), 0o755))?;
        }
        mount(c"overlay", c"/mnt/root", c"lowerdir=/mnt/nothing:/")?;
        let options = c"fd=9,rootmode=100000,user_id=0,group_id=0,allow_other";
        mount(c"fuse", c"/mnt/root/etc/resolv.conf", options)?;
        check(libc::chroot(c"/mnt/root".as_ptr()))?;
        check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}
