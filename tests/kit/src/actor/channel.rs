//! The pipes to an actor's process: one question, one answer, with a deadline.

use std::{
    io::{BufRead, BufReader, Write},
    os::fd::AsRawFd,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::protocol::{Answer, Errno, Request};

/// Longer than any one request takes; a bulk request takes the longest.
const ANSWER_MS: i32 = 120_000;

#[derive(Debug)]
pub(super) struct Channel {
    child: Mutex<Child>,
    pipes: Mutex<Pipes>,
}

#[derive(Debug)]
struct Pipes {
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Channel {
    /// Starts the process.
    pub(super) fn open(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pipes = Pipes {
            requests: child.stdin.take().expect("a pipe was asked for"),
            answers: BufReader::new(child.stdout.take().expect("a pipe was asked for")),
        };
        Self {
            child: Mutex::new(child),
            pipes: Mutex::new(pipes),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        locked(&self.child).id()
    }

    pub(super) fn kill(&self) {
        let mut child = locked(&self.child);
        // Both fail only where the process is gone already.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Asks; a process that does not answer in time is a broken test.
    pub(super) fn ask(&self, request: &Request) -> Result<Answer, Errno> {
        let mut pipes = locked(&self.pipes);
        let mut line = serde_json::to_string(request).expect("a request is JSON");
        line.push('\n');
        if pipes.requests.write_all(line.as_bytes()).is_err() {
            return Err(Errno(libc::EPIPE));
        }
        let mut poll = libc::pollfd {
            fd: pipes.answers.get_ref().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, ANSWER_MS) };
        assert!(ready > 0, "the actor does not answer to {request:?}");
        let mut line = String::new();
        match pipes.answers.read_line(&mut line) {
            Ok(1..) => match serde_json::from_str(&line).expect("an answer is JSON") {
                Answer::Failed(errno) => Err(errno),
                answer => Ok(answer),
            },
            _ => Err(Errno(libc::EPIPE)),
        }
    }

    /// Asks for something that gives no value.
    pub(super) fn done(&self, request: &Request) -> Result<(), Errno> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            other => unexpected(&other),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn unexpected<T>(answer: &Answer) -> T {
    panic!("an actor answered {answer:?} to another question")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
