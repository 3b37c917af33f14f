//! What is left of the shortcut when agents are replaced, removed, or lose what they attached: nothing that acts, and no byte
//! that somebody has not read yet.

use std::{
    fs,
    io::Read,
    net::Shutdown,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use sidestep_kit::{
    binary, bpftool, needs,
    net::run,
    process::{PATIENCE, eventually},
    redirect::{Node, Pod},
};

use crate::agent::{Captured, Proxy, counted, pod, shortcut};

/// Where a shortcut of this version is pinned.
fn folder(node: &Node, version: &str) -> PathBuf {
    let mut name = node.folders().pins().into_os_string();
    name.push(format!("-shortcut-v{version}"));
    name.into()
}

/// Of the version that the agent is.
fn current(node: &Node) -> PathBuf {
    folder(
        node,
        &sidestep_ebpf_common::shortcut::SHORTCUT_ABI_VERSION.to_string(),
    )
}

/// Everything that agents pinned. Many kernels put files of their own into every bpffs.
fn left(node: &Node) -> Vec<PathBuf> {
    const OF_THE_KERNEL: [&str; 2] = ["maps.debug", "progs.debug"];
    let pins = node.folders().pins();
    let all = fs::read_dir(pins.parent().expect("a bpffs")).expect("a bpffs");
    all.map(|entry| entry.expect("an entry").path())
        .filter(|path| !OF_THE_KERNEL.iter().any(|own| path.ends_with(own)))
        .collect()
}

fn uninstall(node: &Node) -> Output {
    let pins = node.folders().pins();
    let mut command = Command::new(binary("sidestep-agent"));
    command.arg("uninstall").arg("--pin").arg(&pins);
    command.arg("--socket").arg(pins.with_file_name("none"));
    command.output().expect("it runs")
}

#[needs(root, "bpftool")]
fn another_versions_shortcut_is_off_and_gone_once_its_bytes_are_read() {
    let mut node = Node::alone();
    let (pod, proxy) = pod(&node);
    let app = pod.app();
    let connection = shortcut(&node, &proxy, &app);
    connection.send("unread;");
    node.take_agent().kill();
    let old = folder(&node, "1");
    fs::rename(current(&node), &old).expect("a bpffs");

    node.start_agent();
    node.wait_active(&pod);
    assert!(old.exists(), "what was not read is lost");
    assert!(!old.join("sock_ops").exists());
    let switches = bpftool::show(&["map", "dump", "pinned"], &old.join("SWITCHES"));
    let switches = switches.as_array().expect("an array");
    let on = |element: &&Value| {
        let bytes = element["value"].as_array().expect("bytes");
        bytes.iter().any(|byte| byte != "0x00")
    };
    assert!(switches.len() > 1000 && switches.iter().find(on).is_none());
    let programs = bpftool::attached(node.pods().path());
    let of_kind = |kind: &str| {
        let same = |program: &&Value| {
            program["attach_type"]
                .as_str()
                .is_some_and(|t| t.contains(kind))
        };
        programs.iter().filter(same).count()
    };
    assert_eq!(
        of_kind("sock_ops"),
        2,
        "of the shortcut, and of interception: {programs:?}"
    );
    assert_eq!(
        of_kind("setsockopt"),
        2,
        "a socket is still in a sockhash: {programs:?}"
    );

    connection.send("by TCP;");
    connection.expect("unread;by TCP;");
    shortcut(&node, &proxy, &app);
    node.agent()
        .wait("the other version to go", || !old.exists());
    connection.send("still;");
    connection.expect("still;");
}

/// A sender that was told to redirect may still wait for a processor, or for the receiver's lock.
#[needs(root)]
fn maps_stay_for_as_long_as_a_message_may_be_on_its_way() {
    let mut node = Node::alone();
    let (pod, proxy) = pod(&node);
    let connection = shortcut(&node, &proxy, &pod.app());
    node.take_agent().kill();
    let old = folder(&node, "1");
    fs::rename(current(&node), &old).expect("a bpffs");
    node.start_agent();
    assert!(old.exists(), "everything that arrived is read");
    node.agent().wait("the maps to go", || !old.exists());
    connection.send("still;");
    connection.expect("still;");
}

#[needs(root)]
fn maps_of_another_layout_are_not_taken_over() {
    let mut node = Node::alone();
    let (pod, proxy) = pod(&node);
    node.take_agent().kill();
    let at = |name: &str| current(&node).join(name);
    for (from, to) in [("ENDS", "new"), ("STATES", "ENDS"), ("new", "STATES")] {
        fs::rename(at(from), at(to)).expect("a bpffs");
    }
    node.start_agent();
    node.wait_active(&pod);
    shortcut(&node, &proxy, &pod.app());
    let rest: Vec<_> = left(&node);
    assert_eq!(rest.len(), 2, "{rest:?}");
}

/// A connection that has ended on both sides, while its reader has yet to read.
fn ended_and_unread(node: &Node, pod: &Pod, proxy: &Proxy) -> std::net::TcpStream {
    let Captured { app, proxy } = shortcut(node, proxy, &pod.app());
    let reader = proxy.take();
    reader
        .shutdown(Shutdown::Write)
        .expect("an open connection");
    let before = counted(node, "redirected");
    app.send(b"x").expect("there is room");
    assert!(counted(node, "redirected") > before, "it goes by TCP");
    app.close();
    // Its record goes when both ends have said that they are done.
    node.agent().wait("the connection to end", || {
        node.agent().status().is_some_and(|s| s.shortcut.ends == 0)
    });
    reader
}

#[needs(root, "bpftool")]
fn what_a_closed_connection_has_not_read_outlives_the_agent_and_an_uninstall() {
    let mut node = Node::alone();
    let (pod, proxy) = pod(&node);
    let mut reader = ended_and_unread(&node, &pod, &proxy);
    assert!(node.take_agent().stop().success());
    assert_eq!(left(&node), [current(&node)]);
    let refused = uninstall(&node);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && why.contains("have not read"),
        "{why}"
    );

    let mut got = Vec::new();
    reader.set_nonblocking(false).expect("an open socket");
    reader.read_to_end(&mut got).expect("it ends in order");
    assert_eq!(got, b"x");
    drop(reader);
    let done = uninstall(&node);
    assert!(done.status.success(), "{done:?}");
    assert!(left(&node).is_empty(), "{:?}", left(&node));
}

#[needs(root, "bpftool")]
fn uninstalling_leaves_no_program_on_the_pods_cgroup() {
    let mut node = Node::alone();
    let (pod, proxy) = pod(&node);
    shortcut(&node, &proxy, &pod.app());
    node.take_agent().kill();
    // Of another version, too.
    let old = folder(&node, "1");
    fs::rename(current(&node), &old).expect("a bpffs");
    node.start_agent();
    node.take_agent().kill();
    assert!(bpftool::attached(node.pods().path()).len() > 10);
    drop((proxy, pod));

    // The kernel takes its time to end a namespace.
    let done = eventually(PATIENCE, || uninstall(&node).status.success());
    assert!(done, "{:?}", uninstall(&node));
    assert!(
        bpftool::attached(node.pods().path()).is_empty(),
        "{:?}",
        bpftool::attached(node.pods().path())
    );
    assert!(left(&node).is_empty(), "{:?}", left(&node));
}

/// The shortcut's links, as the kernel knows them, with their programs: first that of setsockopt.
fn links(node: &Node) -> [(u64, u64); 2] {
    ["setsockopt", "sock_ops"].map(|name| {
        let link = bpftool::show(&["link", "show", "pinned"], &current(node).join(name));
        let number = |field: &str| link[field].as_u64().expect("a number");
        (number("id"), number("prog_id"))
    })
}

fn detach(links: &[(u64, u64)]) {
    for (id, _) in links {
        run(Command::new("bpftool").args(["link", "detach", "id", &id.to_string()]));
    }
}

#[needs(root, "bpftool")]
fn links_that_were_lost_are_restored_and_connections_from_before_stay_with_tcp() {
    // Time to do what nobody sees.
    let node = Node::alone_with(&["--check-interval", "2000"]);
    let (pod, proxy) = pod(&node);
    let app = pod.app();
    let connection = shortcut(&node, &proxy, &app);
    let unseen = shortcut(&node, &proxy, &app);
    detach(&links(&node));
    drop(unseen);
    node.agent().wait("the links to be back", || {
        let repairs = node.agent().status().expect("an answer").repairs;
        repairs
            .iter()
            .any(|what| what == "the shortcut's link of sock_ops")
    });
    let off = counted(&node, "off");
    connection.send("by TCP;");
    connection.expect("by TCP;");
    assert!(
        counted(&node, "off") > off,
        "nobody saw what was done to it"
    );
    let status = node.agent().status().expect("an answer");
    assert_eq!(status.shortcut.ends, 2, "records of sockets that are gone");
    shortcut(&node, &proxy, &app);
}

#[needs(root)]
fn pins_that_were_removed_are_restored() {
    let node = Node::alone();
    let names = || -> Vec<_> {
        let entries = fs::read_dir(current(&node)).into_iter().flatten();
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    };
    let pins = names();
    assert_eq!(pins.len(), 13);
    for pin in &pins {
        fs::remove_file(pin).expect("a pin");
    }
    node.agent()
        .wait("the pins to be back", || names().len() == pins.len());
}

#[needs(root, "bpftool")]
fn where_a_lost_link_cannot_be_restored_everything_is_off_and_said_to_be() {
    let node = Node::alone_with(&["--check-interval", "2000"]);
    let (pod, proxy) = pod(&node);
    let connection = shortcut(&node, &proxy, &pod.app());
    connection.send("unread;");
    // Somebody else takes the hook for himself.
    let links = links(&node);
    let [(_, program), _] = links;
    let foreign = node.folders().pins().with_file_name("foreign");
    let id = program.to_string();
    run(Command::new("bpftool")
        .args(["prog", "pin", "id", &id])
        .arg(&foreign));
    detach(&links);
    run(Command::new("bpftool")
        .args(["cgroup", "attach"])
        .arg(node.pods().path())
        .args(["cgroup_setsockopt", "pinned"])
        .arg(&foreign));

    node.agent().wait("it to be off", || {
        node.agent().status().is_some_and(|s| !s.shortcut.on)
    });
    let why = node.agent().status().expect("an answer").shortcut.reason;
    assert!(
        why.as_ref().is_some_and(|why| why.contains("setsockopt")),
        "{why:?}"
    );
    connection.send("by TCP;");
    connection.expect("unread;by TCP;");
    node.agent()
        .wait("its maps to go", || !current(&node).exists());
    assert!(node.agent().status().is_some_and(|status| status.ready));
}
