//! Programs run inside a pod: in its namespace, its cgroup, as a given user; they end when dropped.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cgroup::Cgroup,
    net::{Namespace, run},
};

/// A program about to run inside a pod.
#[derive(Debug)]
pub struct Program {
    command: Command,
    // Keeps the descriptor that the command names open until the program has started.
    _file: File,
}

impl Program {
    /// The program at `path` (or found by its name), to run as this user and group.
    ///
    /// Where that user has no way to its folder, it is executed by a descriptor opened here.
    pub fn new(path: &Path, namespace: &Namespace, cgroup: &Cgroup, ids: (u32, u32)) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut command = if open_to_all(path) {
            Command::new(path)
        } else {
            let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
            if let Some(name) = path.file_name() {
                command.arg0(name);
            }
            command
        };
        namespace.command_enters(&mut command);
        cgroup.command_joins(&mut command);
        // Last, for the two before need root.
        // SAFETY: the closure only makes system calls; it neither allocates nor locks.
        unsafe { command.pre_exec(move || become_user(ids)) };
        // A Ctrl-C is for the program that started this one, which then ends it in order.
        command.process_group(0);
        Self {
            command,
            _file: file,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    /// The command, to set where its output goes.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.command));
        Running { child }
    }
}

/// Copies a program to where others can run it; of a draft, makes the program.
///
/// A file that this process has open for writing, however briefly, is also open in every child that another test's thread
/// starts meanwhile, until that child has executed its own program; who runs the file then is told ETXTBSY. So `cp` writes
/// it, which nobody else is forked from.
pub fn copy_program(from: &Path, to: &Path) {
    run(Command::new("cp").args([from, to]));
}

fn open_to_all(path: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| {
        path.ancestors()
            .all(|part| part.metadata().is_ok_and(|it| it.mode() & 0o001 != 0))
    })
}

fn become_user((uid, gid): (u32, u32)) -> io::Result<()> {
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: these only change the credentials and the death signal of the calling process.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))?;
        // After the change of user, which clears it.
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
    }
}

fn end_with_parent() -> io::Result<()> {
    // SAFETY: this only changes the death signal of the calling process.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts a command that ends with the thread that started it, at the latest.
    pub fn start(command: &mut Command) -> Self {
        // SAFETY: the closure only makes a system call; it neither allocates nor locks.
        unsafe { command.pre_exec(end_with_parent) };
        // A Ctrl-C is for the program that started this one.
        command.process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child }
    }

    /// The process, to take its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits until it ends; kills it when `stop` says so.
    pub fn wait(&mut self, stop: impl Fn() -> bool) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if stop() {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Long enough for a busy machine, short enough to see a hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition, at most `patience`; whether it came true.
pub fn eventually(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
}
