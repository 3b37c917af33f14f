//! A receiver who keeps its socket's lock for as long as it likes: it reads into memory that is not there yet.

use std::{
    io::{Error, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr, slice,
    sync::mpsc,
    thread,
};

use sidestep_agent::shortcut::{Allowed, Options, Switches};
use sidestep_ebpf_common::shortcut::Count;
use sidestep_kit::{actor::Kind, needs, process::PATIENCE};

use crate::stage::{Ends, NODE, Stage, gets, warm};

/// A page that is there once somebody says so, by userfaultfd(2).
struct Page {
    memory: *mut u8,
    faults: OwnedFd,
}

// SAFETY: one thread reads into it, and it is looked at when that is done.
unsafe impl Sync for Page {}

impl Page {
    const SIZE: usize = 4096;

    fn new() -> Self {
        const API: libc::Ioctl = 0xc018_aa3f;
        const REGISTER: libc::Ioctl = 0xc020_aa00;
        const MISSING: u64 = 1;
        // SAFETY: takes flags only.
        let faults = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        assert!(faults >= 0, "userfaultfd: {}", Error::last_os_error());
        let faults = i32::try_from(faults).expect("a descriptor");
        // SAFETY: the descriptor is new, so nobody else owns it.
        let faults = unsafe { OwnedFd::from_raw_fd(faults) };
        // SAFETY: a new mapping.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(memory, libc::MAP_FAILED);
        let page = Self {
            memory: memory.cast(),
            faults,
        };
        page.control(API, &mut [0xaa, 0, 0]);
        page.control(REGISTER, &mut [page.start(), Self::SIZE as u64, MISSING, 0]);
        page
    }

    fn start(&self) -> u64 {
        self.memory.addr() as u64
    }

    fn control<const N: usize>(&self, request: libc::Ioctl, argument: &mut [u64; N]) {
        // SAFETY: the argument is the structure that the request is for, in words.
        let done = unsafe { libc::ioctl(self.faults.as_raw_fd(), request, argument.as_mut_ptr()) };
        assert_eq!(done, 0, "{request:x}: {}", Error::last_os_error());
    }

    /// Waits until somebody waits for it.
    fn wait_for_reader(&self) {
        let mut event = [0_u64; 4];
        // SAFETY: an event takes that much.
        let got = unsafe { libc::read(self.faults.as_raw_fd(), event.as_mut_ptr().cast(), 32) };
        assert_eq!(got, 32, "{}", Error::last_os_error());
    }

    /// Lets everybody go on who waits.
    fn provide(&self) {
        const ZERO: libc::Ioctl = 0xc020_aa04;
        self.control(ZERO, &mut [self.start(), Self::SIZE as u64, 0, 0]);
    }

    /// recv into it; what it has then.
    fn receive(&self, from: &impl AsRawFd) -> &[u8] {
        // SAFETY: the mapping is that large.
        let got = unsafe { libc::recv(from.as_raw_fd(), self.memory.cast(), Self::SIZE, 0) };
        let got = usize::try_from(got).unwrap_or_else(|_| panic!("{}", Error::last_os_error()));
        // SAFETY: the kernel wrote so much, and nobody writes any more.
        unsafe { slice::from_raw_parts(self.memory, got) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into it any more.
        unsafe { libc::munmap(self.memory.cast(), Self::SIZE) };
    }
}

/// The sender's process has other connections to serve.
fn a_send_returns_while_the_receiver_waits_for_memory(stage: &Stage, ends: &Ends) {
    warm(stage, ends);
    let Ends { near, far } = ends;
    let redirected = stage.counted(Count::Redirected);
    let busy = stage.counted(Count::Busy);
    (&*near).write_all(b"first;").expect("there is room");
    assert!(stage.counted(Count::Redirected) > redirected);

    let page = Page::new();
    thread::scope(|scope| {
        let reader = scope.spawn(|| assert_eq!(page.receive(&**far), b"first;"));
        page.wait_for_reader();
        let (done, returned) = mpsc::channel();
        scope.spawn(move || {
            (&*near).write_all(b"second;").expect("there is room");
            done.send(()).expect("somebody waits");
        });
        let returned = returned.recv_timeout(PATIENCE);
        page.provide();
        returned.expect("the sender waits for the receiver's memory");
        reader.join().expect("a reader");
    });
    gets(far, "second;");
    assert!(stage.counted(Count::Busy) > busy);
}

#[needs(root)]
fn another_pods_receiver_holds_up_no_sender() {
    let stage = Stage::new();
    let ends = stage.proxy_to_proxy();
    a_send_returns_while_the_receiver_waits_for_memory(&stage, &ends);
}

#[needs(root)]
fn an_application_holds_up_no_sidecar() {
    let options = Options {
        switches: Switches::TRUSTING,
        ..Options::default()
    };
    let allowed = Allowed {
        into_application: true,
        ..NODE
    };
    let stage = Stage::with(Some(options), allowed, Kind::Tcp);
    let ends = stage.proxy_to_app();
    a_send_returns_while_the_receiver_waits_for_memory(&stage, &ends);
}
