//! A line to the API server that can go dead: nothing comes through any more, and nobody says so. Connections stay, new ones
//! are accepted, and what is sent is acknowledged, as by a load balancer that has lost its server.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tempfile::TempDir;

use crate::apiserver::{self, ApiServer};

/// A line, and a kubeconfig of who uses it.
#[derive(Debug)]
pub struct Line {
    dead: Arc<AtomicBool>,
    folder: TempDir,
}

impl Line {
    /// Begins in the API server's network namespace.
    pub fn to(server: &ApiServer) -> Self {
        let dead = Arc::new(AtomicBool::new(false));
        let listener = server.namespace().enter(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let (dead, near) = (Arc::clone(&dead), listener.try_clone().expect("a socket"));
            // Threads stay in the network namespace of who starts them; this one ends with the test's process.
            thread::spawn(move || accept(&near, &dead));
            listener
        });
        let port = listener.local_addr().expect("an address").port();
        let folder = tempfile::tempdir().expect("a folder");
        let kubeconfig = fs::read_to_string(server.kubeconfig()).expect("a kubeconfig");
        let url = format!("https://127.0.0.1:{port}");
        let kubeconfig = kubeconfig.replace(apiserver::URL, &url);
        fs::write(folder.path().join("kubeconfig"), kubeconfig).expect("a folder of ours");
        Self { dead, folder }
    }

    /// For who is to use the line.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// From now on nothing comes through.
    pub fn cut(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// New connections come through again. The old ones never do.
    pub fn mend(&self) {
        self.dead.store(false, Ordering::SeqCst);
    }
}

fn accept(listener: &TcpListener, dead: &Arc<AtomicBool>) {
    for near in listener.incoming() {
        let near = near.expect("a connection");
        let far = TcpStream::connect(apiserver::LISTENS).expect("the API server listens");
        let lost = Arc::new(AtomicBool::new(false));
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (from, to) = (from.try_clone(), to.try_clone());
            let (from, to) = (from.expect("a socket"), to.expect("a socket"));
            let (dead, lost) = (Arc::clone(dead), Arc::clone(&lost));
            thread::spawn(move || pass(from, to, &dead, &lost));
        }
    }
}

/// Passes bytes on until the line is dead; from then on it swallows them.
fn pass(mut from: TcpStream, mut to: TcpStream, dead: &AtomicBool, lost: &AtomicBool) {
    let mut bytes = [0; 16_384];
    while let Ok(read) = from.read(&mut bytes) {
        if dead.load(Ordering::SeqCst) {
            lost.store(true, Ordering::SeqCst);
        }
        let lost = lost.load(Ordering::SeqCst);
        if read == 0 {
            if !lost {
                let _gone_already = to.shutdown(Shutdown::Write);
            }
            return;
        }
        if !lost && to.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}
