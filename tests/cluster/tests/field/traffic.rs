//! Traffic between two nodes.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use sidestep_cluster::{
    agent::said,
    machine::PATIENCE,
    place::NODE,
    room::{Room, comes, objects},
};
use sidestep_kit::{app::Seen, needs};

use crate::lab::{ECHO, Pair, lab, on, say};

/// Bodies of a MiB, each way and by each protocol.
const BODIES: usize = 20;

#[needs(crate::lab::needs)]
fn between_nodes_every_byte_comes_both_ways_by_mutual_tls_and_plain_text_is_reset() {
    let lab = lab();
    for machine in &lab.machines {
        let name = machine.name();
        let pair = Pair::new(&lab, machine, "between");
        let outside = lab.cluster.room("outside", &[]);
        let clients =
            [("near", NODE), ("far", name)].map(|(pod, node)| on(node, objects::client(pod)));
        outside.apply(&clients);
        outside.kubectl(&format!(
            "wait --for=condition=Ready --timeout={}s pod/near pod/far",
            PATIENCE.as_secs()
        ));
        pair.room.apply(&[objects::strict()]);
        // Whatever is answered from here on came by mutual TLS.
        for (from, to) in [("near", "far"), ("far", "near")] {
            plain_text_is_reset(&outside, from, &pair.room, to);
        }
        let far = SocketAddr::new(pair.room.address("far"), objects::PORT);
        assert_eq!(
            lab.cluster
                .host()
                .ask_in_plain_text(far, PATIENCE)
                .map_err(|error| error.kind()),
            Err(ErrorKind::ConnectionReset)
        );
        say(format!(
            "{name}: plain text is reset, from its pods, to them, and from the node"
        ));
        for (from, to) in [("near", "far"), ("far", "near")] {
            let address = pair.service(to);
            let run = |words: &str| {
                let output = pair.room.try_exec(from, &format!("sidestep-app {words}"));
                assert!(
                    output.status.success(),
                    "{words} in {from}: {}",
                    said(&output)
                );
                String::from_utf8(output.stdout).expect("it prints text")
            };
            for answer in run(&format!("get --from {address}:80 --count {BODIES} --close")).lines()
            {
                let answer: Seen =
                    serde_json::from_str(answer).expect("the application answers JSON");
                assert!(
                    answer.headers.contains_key("x-forwarded-client-cert"),
                    "{answer:?}"
                );
            }
            let exchange = |words: &str| {
                let words = format!("exchange --with {address}:{words} --count {BODIES}");
                while_it_moves(|| run(&words), || sockets(&pair));
            };
            exchange("80 --http");
            exchange(&ECHO.to_string());
            say(format!(
                "{name}: {BODIES} MiB by HTTP and {BODIES} by TCP went from {from} to {to} and back"
            ));
        }
    }
}

/// Does it. Where that takes long enough to stand still, says what the sockets hold: once a program has given up, they are gone.
fn while_it_moves<T>(work: impl FnOnce() -> T, sockets: impl FnOnce() -> String + Send) -> T {
    /// Less than `sidestep-app exchange` waits for one body.
    const STILL: Duration = Duration::from_secs(100);
    let (working, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(STILL) == Err(RecvTimeoutError::Timeout) {
                say(sockets());
            }
        });
        let done = work();
        drop(working);
        done
    })
}

/// All TCP sockets of both pods, with what they have in memory: `r` of `skmem` counts redirected bytes, which no queue shows.
fn sockets(pair: &Pair<'_>) -> String {
    let near = said(&pair.room.in_network_of("near", &["ss", "-tanimo"]));
    let far =
        "for process in $(pidof envoy); do nsenter --net=/proc/$process/ns/net ss -tanimo; done";
    let far = pair.machine.run(pair.room.cluster(), far);
    let far = far.unwrap_or_else(|error| format!("{error:#}"));
    format!("the sockets of near:\n{near}\nthose of far:\n{far}")
}

/// Waits until a pod outside the mesh is reset when it asks a pod inside without TLS, on any port: to be strict comes to a sidecar in its time.
fn plain_text_is_reset(outside: &Room<'_>, from: &str, inside: &Room<'_>, to: &str) {
    let address = inside.address(to);
    for port in [objects::PORT, ECHO] {
        let mut last = String::new();
        let reset = comes(PATIENCE, || {
            let output = outside.try_exec(from, &format!("wget -qO- http://{address}:{port}/"));
            last = said(&output);
            !output.status.success() && last.contains("reset")
        });
        assert!(reset, "{from} asks {to}, port {port}: {last}");
    }
}
