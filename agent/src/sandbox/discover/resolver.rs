//! A pod's name servers: those of the `resolv.conf` that its oldest process sees. That is the sandbox's, with the file as kubelet
//! had it written; where a runtime starts no process for the sandbox, it is the first container's, which has the same file.
//! What other containers have in its place decides nothing, also where the sandbox's names no server.
//!
//! While a runtime starts a container, a process of its own is in the pod's cgroup and still has the node's root (`runc init`
//! before `pivot_root`): the node's name servers are not the pod's. Who has the node's root for good has none to tell.
//!
//! The way to that file is the pod's: a file system in a container's root (FUSE, a network's) may take as long as it likes to
//! answer. So it is read on a thread of its own, and whoever asks waits only for a moment.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::MetadataExt,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

use crate::{pods::wanted::PodUid, sandbox::facts::parse_resolv_conf};

/// The resolver reads no more of it that would matter.
const MOST: u64 = 64 << 10;
/// How long one pod may hold up the others. From memory or a disk it takes microseconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a runtime may take from its own root to the container's, and between looks. It takes some milliseconds.
const STARTS: Duration = Duration::from_millis(400);
const PAUSE: Duration = Duration::from_millis(2);
/// So many pods are remembered; a node has fewer.
const REMEMBERED: usize = 1024;

/// A root folder: its device, and its inode.
type Root = (u64, u64);

/// Reads them.
#[derive(Debug, Default)]
pub(super) struct Resolvers {
    /// The node's, where it can be told.
    node: Option<Root>,
    known: Mutex<HashMap<PodUid, Known>>,
}

/// What is known of a pod.
#[derive(Debug, Default)]
struct Known {
    /// Where an answer that takes long will come; while it does, nobody else is sent.
    late: Option<Receiver<Vec<IpAddr>>>,
    last: Vec<IpAddr>,
}

impl Resolvers {
    /// For pods of this node.
    pub(super) fn of_node() -> Self {
        Self {
            node: root_of(1).ok(),
            known: Mutex::default(),
        }
    }

    /// Those of the oldest process that has the file; where reading it takes too long, those seen last; where there are none,
    /// those of the pod's `dnsConfig`.
    pub(super) fn name_servers(
        &self,
        pod: &PodUid,
        oldest_first: Vec<i32>,
        from_spec: &[IpAddr],
    ) -> Vec<IpAddr> {
        let node = self.node;
        self.read(pod, from_spec, PATIENCE, move || {
            let deadline = Instant::now() + STARTS;
            loop {
                let is_late = Instant::now() >= deadline;
                match oldest(&oldest_first, is_late, |pid| servers_of(pid, node)) {
                    Seen::Starting => thread::sleep(PAUSE),
                    Seen::Servers(servers) => return servers,
                    Seen::None => return Vec::new(),
                }
            }
        })
    }

    fn read(
        &self,
        pod: &PodUid,
        from_spec: &[IpAddr],
        patience: Duration,
        look: impl FnOnce() -> Vec<IpAddr> + Send + 'static,
    ) -> Vec<IpAddr> {
        // A panic elsewhere leaves every entry whole.
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, known| known.late.is_some());
        }
        let known = all.entry(pod.clone()).or_default();
        known.take(patience, look);
        if known.last.is_empty() {
            return from_spec.to_vec();
        }
        known.last.clone()
    }
}

impl Known {
    fn take(&mut self, patience: Duration, look: impl FnOnce() -> Vec<IpAddr> + Send + 'static) {
        if let Some(late) = &self.late {
            match late.try_recv() {
                Err(TryRecvError::Empty) => return,
                answer => {
                    self.last = answer.unwrap_or_default();
                    self.late = None;
                    return;
                }
            }
        }
        let (tell, answer) = channel();
        let told = thread::Builder::new().spawn(move || {
            let _nobody_waits = tell.send(look());
        });
        match told.map(|_| answer.recv_timeout(patience)) {
            Ok(Ok(servers)) => self.last = servers,
            Ok(Err(RecvTimeoutError::Timeout)) => self.late = Some(answer),
            // There is no thread, or it panicked: what was seen last must do.
            Ok(Err(RecvTimeoutError::Disconnected)) | Err(_) => {}
        }
    }
}

/// What a process tells.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Its file names these.
    Servers(Vec<IpAddr>),
    /// Nothing yet: it has the node's root.
    Starting,
    /// It has no such file, or is gone.
    None,
}

/// What the oldest process tells that tells anything. One that still starts is waited for, until it `is_late`: then it has the
/// node's root for good.
fn oldest(pids: &[i32], is_late: bool, of: impl Fn(i32) -> Seen) -> Seen {
    let mut told = pids.iter().map(|pid| of(*pid));
    let decides = |seen: &Seen| match seen {
        Seen::Servers(_) => true,
        Seen::Starting => !is_late,
        Seen::None => false,
    };
    told.find(decides).unwrap_or(Seen::None)
}

fn servers_of(pid: i32, node: Option<Root>) -> Seen {
    match root_of(pid) {
        Err(_) => return Seen::None,
        Ok(root) if Some(root) == node => return Seen::Starting,
        Ok(_) => {}
    }
    // What is in the container's root was there before any process had it.
    match resolv_conf(pid) {
        Ok(text) => Seen::Servers(parse_resolv_conf(&text)),
        Err(_) => Seen::None,
    }
}

fn root_of(pid: i32) -> io::Result<Root> {
    let root = fs::metadata(format!("/proc/{pid}/root"))?;
    Ok((root.dev(), root.ino()))
}

/// The pod made the folders on the way, so no link may lead out of its root, and no pipe may hold the agent up.
fn resolv_conf(pid: i32) -> io::Result<String> {
    let root = open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let file = openat2(
        root,
        "etc/resolv.conf",
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(20);

    fn pod(n: u32) -> PodUid {
        PodUid::new(&format!("0f3a6a0e-1c2b-4d5e-8f90-{n:012}")).expect("a uid")
    }

    fn servers(last: u8) -> Vec<IpAddr> {
        vec![IpAddr::from([10, 0, 0, last])]
    }

    /// A look that ends when it is told to.
    fn stuck() -> (Sender<u8>, impl FnOnce() -> Vec<IpAddr> + Send + 'static) {
        let (free, wait) = channel();
        (free, move || wait.recv().map(servers).unwrap_or_default())
    }

    #[test]
    fn without_a_file_the_pods_spec_must_do() {
        let resolvers = Resolvers::default();
        let spec = servers(53);
        assert_eq!(resolvers.name_servers(&pod(1), vec![], &spec), spec);
        assert_eq!(resolvers.name_servers(&pod(1), vec![i32::MAX], &spec), spec);
    }

    #[test]
    fn a_file_that_is_not_read_in_time_holds_up_nobody_and_what_was_seen_last_must_do() {
        let resolvers = Resolvers::default();
        let (spec, seen) = (servers(53), || servers(1));
        let (_free, look) = stuck();
        assert_eq!(resolvers.read(&pod(1), &spec, MOMENT, look), spec);
        assert_eq!(resolvers.read(&pod(2), &spec, LONG, seen), servers(1));
        let (_also_free, look) = stuck();
        assert_eq!(resolvers.read(&pod(2), &spec, MOMENT, look), servers(1));
    }

    #[test]
    fn while_an_answer_is_late_nobody_else_is_sent_for_it_and_then_it_is_taken() {
        let resolvers = Resolvers::default();
        let (free, look) = stuck();
        assert_eq!(
            resolvers.read(&pod(1), &[], MOMENT, look),
            Vec::<IpAddr>::new()
        );
        let never = || -> Vec<IpAddr> { unreachable!("somebody was sent") };
        assert_eq!(
            resolvers.read(&pod(1), &[], LONG, never),
            Vec::<IpAddr>::new()
        );
        free.send(7).expect("it waits");
        while resolvers.read(&pod(1), &[], LONG, || servers(7)) != servers(7) {
            thread::yield_now();
        }
    }

    #[test]
    fn the_oldest_process_that_has_the_file_decides_and_one_that_starts_is_waited_for() {
        let of = |pid| match pid {
            1 => Seen::Starting,
            2 => Seen::None,
            3 => Seen::Servers(Vec::new()),
            pid => Seen::Servers(servers(u8::try_from(pid).expect("small"))),
        };
        for is_late in [false, true] {
            assert_eq!(oldest(&[], is_late, of), Seen::None);
            assert_eq!(oldest(&[2, 2], is_late, of), Seen::None);
            assert_eq!(oldest(&[2, 5, 4], is_late, of), Seen::Servers(servers(5)));
            assert_eq!(oldest(&[3, 4], is_late, of), Seen::Servers(Vec::new()));
        }
        assert_eq!(oldest(&[2, 1, 4], false, of), Seen::Starting);
        assert_eq!(oldest(&[2, 1, 4], true, of), Seen::Servers(servers(4)));
        assert_eq!(oldest(&[1, 2], true, of), Seen::None);
    }

    #[test]
    fn a_process_with_the_nodes_root_is_not_read() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        let node = root_of(own).expect("its own");
        assert_eq!(servers_of(own, Some(node)), Seen::Starting);
        assert_eq!(servers_of(i32::MAX, Some(node)), Seen::None);
        let resolvers = Resolvers {
            node: Some(node),
            ..Resolvers::default()
        };
        let spec = servers(53);
        assert_eq!(resolvers.name_servers(&pod(1), vec![own], &spec), spec);
    }

    #[test]
    fn those_of_a_process_are_read() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        let text = resolv_conf(own).unwrap_or_default();
        let resolvers = Resolvers::default();
        let read = resolvers.name_servers(&pod(1), vec![own], &[]);
        assert_eq!(read, parse_resolv_conf(&text));
    }
}
