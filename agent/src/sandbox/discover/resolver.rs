//! A pod's name servers: those of the `resolv.conf` that its processes see.
//!
//! The way to that file is the pod's: a file system in a container's root (FUSE, a network's) may take as long as it likes to
//! answer. So it is read on a thread of its own, and whoever asks waits only for a moment.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    },
    thread,
    time::Duration,
};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

use crate::{pods::wanted::PodUid, sandbox::facts::parse_resolv_conf};

/// The resolver reads no more of it that would matter.
const MOST: u64 = 64 << 10;
/// How long one pod may hold up the others. From memory or a disk it takes microseconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many pods are remembered; a node has fewer.
const REMEMBERED: usize = 1024;

/// Reads them.
#[derive(Debug, Default)]
pub(super) struct Resolvers(Mutex<HashMap<PodUid, Known>>);

/// What is known of a pod.
#[derive(Debug, Default)]
struct Known {
    /// Where an answer that takes long will come; while it does, nobody else is sent.
    late: Option<Receiver<Vec<IpAddr>>>,
    last: Vec<IpAddr>,
}

impl Resolvers {
    /// Those of the first process that has any; where that takes too long, those seen last; where there are none, those of the
    /// pod's `dnsConfig`.
    pub(super) fn name_servers(
        &self,
        pod: &PodUid,
        pids: &[i32],
        from_spec: &[IpAddr],
    ) -> Vec<IpAddr> {
        let pids = pids.to_vec();
        self.read(pod, from_spec, PATIENCE, move || {
            let seen = pids.iter().filter_map(|pid| resolv_conf(*pid).ok());
            let mut servers = seen.map(|text| parse_resolv_conf(&text));
            servers
                .find(|servers| !servers.is_empty())
                .unwrap_or_default()
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
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        assert_eq!(resolvers.name_servers(&pod(1), &[], &spec), spec);
        assert_eq!(resolvers.name_servers(&pod(1), &[i32::MAX], &spec), spec);
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
    fn those_of_a_process_are_read() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        let text = resolv_conf(own).unwrap_or_default();
        let resolvers = Resolvers::default();
        let read = resolvers.name_servers(&pod(1), &[own], &[]);
        assert_eq!(read, parse_resolv_conf(&text));
    }
}
