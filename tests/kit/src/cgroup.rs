//! Cgroups of the v2 hierarchy, one per test with a child per pod; removed when dropped.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use crate::net::{is_stale, unique_name};

static SWEEP: Once = Once::new();

/// Where the v2 hierarchy is mounted, which differs from system to system.
pub fn mount_point() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let mount = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .expect("a cgroup v2 hierarchy is mounted");
    PathBuf::from(mount[1])
}

/// A cgroup that this process made.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup at the top of the hierarchy; its name ends in `role`.
    pub fn new(role: &str) -> Self {
        SWEEP.call_once(sweep);
        Self::make(mount_point().join(unique_name(role)))
    }

    /// Makes a cgroup inside this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self::make(self.path.join(name))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process into it. Sockets that the process already has stay with the cgroup it had then.
    pub fn join(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap_or_else(|error| {
            panic!("cannot move {pid} to {}: {error}", self.path.display())
        });
    }

    /// Lets the process of `command` join before it starts the program, so that all of its sockets belong here.
    pub fn command_joins(&self, command: &mut Command) {
        let procs = self.path.join("cgroup.procs");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(&procs)
            .unwrap_or_else(|error| panic!("{}: {error}", procs.display()));
        // SAFETY: the closure only writes to a descriptor that it owns; it neither allocates nor locks.
        unsafe { command.pre_exec(move || file.write_all(b"0")) };
    }

    /// Removes it with all that is inside, and makes an empty one in its place.
    pub fn remake(&self) {
        remove(&self.path);
        fs::create_dir(&self.path)
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
    }

    fn make(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Kills what is still inside, waits until it is gone, and removes the folder and those below.
pub fn remove(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            remove(&entry.path());
        }
    }
    loop {
        for pid in fs::read_to_string(path.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .filter(|pid| *pid > 0)
        {
            // SAFETY: kill touches no memory; the process is in a cgroup that only our tests fill.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        match fs::remove_dir(path) {
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return eprintln!("cgroup {} was not removed: {error}", path.display());
            }
            _ => return,
        }
    }
}

fn sweep() {
    let Ok(entries) = fs::read_dir(mount_point()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_stale) {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::needs;

    #[needs(root)]
    fn a_process_starts_inside_and_is_killed_when_the_cgroup_goes() {
        let cgroup = Cgroup::new("kit");
        let pod = cgroup.child("pod");
        let mut command = Command::new("sleep");
        command.arg("600");
        pod.command_joins(&mut command);
        let mut sleeper = command.spawn().expect("sleep is installed");
        let member = fs::read_to_string(pod.path().join("cgroup.procs")).expect("a cgroup of ours");
        assert_eq!(member.trim(), sleeper.id().to_string());
        let path = cgroup.path().to_owned();
        let killer = thread::spawn(move || drop((pod, cgroup)));
        assert!(!sleeper.wait().expect("our own child").success());
        killer.join().expect("no panic");
        assert!(!path.exists());
    }
}
