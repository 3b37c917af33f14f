//! A proxy that does not listen: refused, never around it.

use sidestep_kit::{
    actor::{Errno, Kind},
    both_ways,
    net::OUTSIDE_V4,
};

use crate::{POD, SERVICE, assert_captured_from};

both_ways! {
    fn outbound_calls_are_refused_while_the_proxy_is_gone(node) {
        let service = node.outside();
        let _listener = service.serve("service", Kind::Tcp, "0.0.0.0:80");
        let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let app = pod.app();
        assert_captured_from(app.call(SERVICE), "outbound", POD, SERVICE);

        proxy.kill();
        let refused = app.call(&format!("{OUTSIDE_V4}:80"));
        assert_eq!(refused.err(), Some(Errno::REFUSED));

        let _proxy = pod.proxy();
        assert_captured_from(app.call(SERVICE), "outbound", POD, SERVICE);
    }

    fn inbound_calls_are_refused_while_the_proxy_is_gone(node) {
        let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
        let outside = node.outside();
        let target = format!("{POD}:8080");
        assert_captured_from(outside.call(&target), "inbound", OUTSIDE_V4, &target);

        proxy.kill();
        assert_eq!(outside.call(&target).err(), Some(Errno::REFUSED));

        let _proxy = pod.proxy();
        assert_captured_from(outside.call(&target), "inbound", OUTSIDE_V4, &target);
    }

    fn one_closed_listener_does_not_open_the_other_way(node) {
        let (pod, mut proxy) = node.pod_with_proxy("client", &[POD]);
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:8080");
        let target = format!("{POD}:8080");

        proxy.close_inbound();
        assert_eq!(node.outside().call(&target).err(), Some(Errno::REFUSED));
        assert_eq!(proxy.actor().call(&target).err(), Some(Errno::REFUSED));
        assert_captured_from(app.call(SERVICE), "outbound", POD, SERVICE);
    }

    fn a_closed_outbound_port_refuses(node) {
        let (pod, mut proxy) = node.pod_with_proxy("client", &[POD]);
        proxy.close_outbound();
        assert_eq!(pod.app().call(SERVICE).err(), Some(Errno::REFUSED));
    }
}
