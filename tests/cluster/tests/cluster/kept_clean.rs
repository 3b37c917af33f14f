//! A cluster leaves nothing on the machine, even if whoever brings it up is killed half way.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
};

use sidestep_cluster::{Place, hierarchy, room::until};
use sidestep_kit::{needs, net::unique_name};

#[needs(root, "unshare", "mount")]
fn what_a_killed_start_left_is_removed_by_down() {
    let place = Place::new(&unique_name("killed")).expect("a good name");
    let _removed = Removed(&place);
    let mut up = command(&place, "up").spawn().expect("our own program");
    until("some parts run", || place.log("kube-apiserver").exists());
    up.kill().expect("it is our child");
    up.wait().expect("it is our child");
    assert!(hierarchy::population(place.name()) > 2);

    let mut down = command(&place, "down");
    let down = down
        .stderr(Stdio::piped())
        .output()
        .expect("our own program");
    let said = String::from_utf8_lossy(&down.stderr);
    assert!(down.status.success(), "{said}");
    assert!(!hierarchy::exists(place.name()));
    assert!(!place.folder().exists());
    assert!(!place.netns().exists());
    // The lock is all that stays of a name, for others may wait for it; nobody waits for this one.
    std::fs::remove_file(place.folder().with_extension("lock")).expect("it is there");
    let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    assert!(!mounts.contains(place.name()), "{mounts}");
}

/// Takes it down also where the test fails half way.
struct Removed<'a>(&'a Place);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // The test has said what is wrong.
            let _ = command(self.0, "down").status();
        }
    }
}

fn command(place: &Place, action: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_sidestep-cluster")));
    command.args(["--name", place.name(), action]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}
