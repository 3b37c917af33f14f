//! Two pods with real Envoy sidecars and mutual TLS: what users have. Each test runs with Istio's rules and with Sidestep.

mod flows;

use std::time::Duration;

use sidestep_kit::{
    actor::{Errno, Family, Kind},
    app::Seen,
    mesh::Mesh,
    needs,
    redirect::{Node, Redirect},
    traffic::{Load, Traffic},
};

/// The server's application, through its sidecar.
const SERVER_PORT: u16 = 8080;

macro_rules! in_both_meshes {
    ($(fn $name:ident($mesh:ident) $body:block)*) => {
        $(mod $name {
            use super::*;

            fn case(mut $mesh: Mesh) $body

            #[needs(root, "iptables-nft-restore", "wrk")]
            fn iptables() {
                case(Mesh::new(Node::new(Redirect::Iptables)));
            }

            #[needs(root, "iptables-nft-restore", "wrk")]
            fn sidestep() {
                case(Mesh::new(Node::alone()));
            }
        })*
    };
}

in_both_meshes! {
    fn every_request_passes_both_sidecars_with_mutual_tls(mesh) {
        mesh.start_sidecars(); // nothing is left of their own readiness checks
        for close in [false, true] {
            let before = mesh.requests();
            let answers = mesh.get(50, close).expect("every request is answered");
            assert_all_from_the_client(&answers, 50);
            let seen = mesh.wait_for_requests(before, 50);
            assert_eq!((seen.outbound, seen.inbound), (50, 50));
        }
    }

    fn the_first_request_after_the_sidecars_start_is_answered(mesh) {
        for _ in 0..5 {
            mesh.start_sidecars();
            assert_all_from_the_client(&mesh.get(1, true).expect("an answer"), 1);
        }
    }

    fn no_request_fails_under_load(mesh) {
        mesh.start_sidecars();
        let load = Load {
            connections: 32,
            traffic: Traffic::HttpOnce,
            duration: Duration::from_secs(2),
            path: "/bytes/1000".to_owned(),
        };
        let before = mesh.requests();
        let measured = mesh.load(&load, || false).expect("a load that ends");
        assert_eq!(measured.errors, 0);
        let seen = mesh.wait_for_requests(before, measured.requests);
        assert!(seen.outbound >= measured.requests && seen.inbound >= measured.requests, "{seen:?}");
    }

    fn half_closed_streams_come_back_whole(mesh) {
        mesh.start_sidecars();
        let count = std::env::var("SIDESTEP_EXCHANGES").map_or(20, |n| n.parse().expect("a number"));
        mesh.exchange(count).expect("every byte comes back");
    }

    fn plain_text_from_outside_is_reset(mesh) {
        mesh.start_sidecars();
        let outside = mesh.node().outside();
        let socket = outside.socket(Family::V4, Kind::Tcp).expect("a socket");
        let server = format!("{}:{SERVER_PORT}", mesh.server().address());
        socket.connect(&server).expect("the sidecar listens");
        socket.send(b"GET / HTTP/1.1\r\nhost: server\r\n\r\n").expect("a connection");
        match socket.receive() {
            Ok(bytes) => assert_eq!(String::from_utf8_lossy(&bytes), "", "the application answered"),
            Err(errno) => assert_eq!(errno, Errno(libc::ECONNRESET)),
        }
    }
}

#[track_caller]
fn assert_all_from_the_client(answers: &[Seen], count: usize) {
    assert_eq!(answers.len(), count);
    for answer in answers {
        let caller = answer.headers.get("x-forwarded-client-cert");
        assert!(
            caller.is_some_and(|cert| cert.contains("/sa/client")),
            "{answer:?}"
        );
        assert_eq!(answer.peer.ip().to_string(), "127.0.0.6", "{answer:?}");
    }
}
