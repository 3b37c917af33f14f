//! Applications whose calls block stay with TCP: a socket in a sockhash ends them early. Who blocks is learnt from the
//! connections before.

use std::{
    fs,
    io::Read,
    net::Shutdown,
    sync::atomic::{AtomicI32, Ordering},
    thread,
};

use sidestep_ebpf_common::shortcut::Count;
use sidestep_kit::{
    actor::Socket,
    needs,
    process::{PATIENCE, eventually},
};

use crate::stage::{Ends, Stage, carries, connect};

const SERVER: &str = "127.0.0.1:9090";

/// A connection of the proxy's to a server of its pod's.
fn to(stage: &Stage, server: &Socket) -> Ends {
    connect(&stage.pods[0].proxy, SERVER, server)
}

/// Whether what the far end sends goes past TCP.
fn answers_past_tcp(stage: &Stage, Ends { near, far }: &Ends) -> bool {
    carries(near, far, "asked");
    let before = stage.counted(Count::Redirected);
    for _ in 0..3 {
        carries(far, near, "answered");
    }
    stage.counted(Count::Redirected) > before
}

#[needs(root)]
fn the_first_connection_of_a_port_shows_how_the_application_treats_those_after_it() {
    let stage = Stage::new();
    let server = stage.pods[0].app.listen(SERVER);
    let first = to(&stage, &server);
    assert!(!answers_past_tcp(&stage, &first), "nothing was known of it");
    // It is looked at when something that it sent is acknowledged, though it stays open.
    let known = eventually(PATIENCE, || {
        carries(&first.far, &first.near, "more");
        answers_past_tcp(&stage, &to(&stage, &server))
    });
    assert!(known, "those after it stay with TCP");

    let blocking = to(&stage, &server);
    blocking.far.set_nonblocking(false).expect("an open socket");
    assert!(answers_past_tcp(&stage, &blocking), "it was judged before");
    drop(blocking);
    assert!(!answers_past_tcp(&stage, &to(&stage, &server)));
    // One that does not block is no proof any more.
    assert!(!answers_past_tcp(&stage, &to(&stage, &server)));

    drop(server);
    let another = stage.pods[0].app.listen(SERVER);
    drop(to(&stage, &another));
    let unknown = to(&stage, &another);
    assert!(!answers_past_tcp(&stage, &unknown), "the port is another's");
    drop(unknown);
    assert!(answers_past_tcp(&stage, &to(&stage, &another)));
}

/// hiredis, for one, connects so.
#[needs(root)]
fn a_program_that_connects_without_blocking_and_then_blocks_stays_with_tcp() {
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    ends.near.set_nonblocking(false).expect("an open socket");
    carries(&ends.near, &ends.far, "asked");
    drop(ends);
    let Ends { near, far } = stage.app_to_proxy();
    let before = stage.counted(Count::Redirected);
    carries(&near, &far, "asked");
    carries(&near, &far, "again");
    assert_eq!(stage.counted(Count::Redirected), before);
}

#[needs(root)]
fn a_read_that_waits_ends_as_with_tcp_when_another_thread_shuts_it_down() {
    let stage = Stage::new();
    let server = stage.pods[0].app.listen(SERVER);
    for _ in 0..3 {
        let ends = to(&stage, &server);
        let far = &ends.far;
        far.set_nonblocking(false).expect("an open socket");
        carries(&ends.near, far, "asked");
        carries(far, &ends.near, "answered");
        let read = while_it_waits(
            || (&**far).read(&mut [0; 16]),
            || far.shutdown(Shutdown::Read).expect("an open socket"),
        );
        assert_eq!(read.expect("an end, as with TCP"), 0);
    }
}

/// Does something once another thread waits in a call, and says what came of the call.
pub fn while_it_waits<T: Send>(call: impl FnOnce() -> T + Send, action: impl FnOnce()) -> T {
    let task = AtomicI32::new(0);
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            // SAFETY: takes nothing.
            task.store(unsafe { libc::gettid() }, Ordering::Release);
            call()
        });
        let waits = eventually(PATIENCE, || sleeps(task.load(Ordering::Acquire)));
        assert!(waits, "it does not wait");
        action();
        caller.join().expect("no panic")
    })
}

/// Whether a thread of this process waits in the kernel.
fn sleeps(task: i32) -> bool {
    fs::read_to_string(format!("/proc/self/task/{task}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('S'))
    })
}
