//! The rows of the decision lists, with the one spelling that logs, counters, JSON and docs share.

macro_rules! rows {
    ($($(#[$doc:meta])* $row:ident = $name:literal => $verdict:ident,)+) => {
        /// The row of the specification that decided. Its number is its index among a pod's counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Row { $($(#[$doc])* $row,)+ }

        impl Row {
            /// Every row, in the order of the lists.
            pub const ALL: &'static [Self] = &[$(Self::$row,)+];

            /// The stable spelling: `out-12`, `in-tunnel` and so on.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$row => $name,)+ }
            }

            /// Where the row sends a connection.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$row => Verdict::$verdict,)+ }
            }
        }
    };
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Where it wanted to go.
    Pass,
    /// The proxy's inbound port.
    Inbound,
    /// The proxy's outbound port.
    Outbound,
    /// The DNS proxy.
    Dns,
    /// Nowhere: the caller sees an error.
    Refuse,
}

rows! {
    /// IPv6 where the pod's IPv6 is not captured.
    OutFamily = "out-family" => Pass,
    /// Destination port excluded (`-o`).
    OutPortExcluded = "out-1" => Pass,
    /// The proxy to its application: local, bound to 127.0.0.6 or `::6`.
    OutPassthrough = "out-2" => Pass,
    /// The proxy (by uid) to its own pod.
    OutSelfUid = "out-3" => Inbound,
    /// The application to its own pod.
    OutLocalUid = "out-4" => Pass,
    /// Anything else of the proxy's (by uid).
    OutProxyUid = "out-5" => Pass,
    /// The proxy (by gid) to its own pod.
    OutSelfGid = "out-6a" => Inbound,
    /// Anything else of the proxy's (by gid).
    OutProxyGid = "out-6c" => Pass,
    /// The creator's group is not captured.
    OutGroup = "out-7" => Pass,
    /// Captured DNS.
    OutDns = "out-8" => Dns,
    /// The loopback CIDR.
    OutLoopback = "out-9" => Pass,
    /// Destination address excluded (`-x`).
    OutAddrExcluded = "out-10" => Pass,
    /// Destination port included (`-q`).
    OutPortIncluded = "out-11" => Outbound,
    /// Destination address included (`-i`).
    OutAddrIncluded = "out-12" => Outbound,
    /// Nothing asked for it.
    OutRest = "out-13" => Pass,
    /// IPv6 where the pod's IPv6 is not captured.
    InFamily = "in-family" => Pass,
    /// `-b ""`: no inbound port is captured.
    InNone = "in-none" => Pass,
    /// The tunnel port (`-e`).
    InTunnel = "in-tunnel" => Pass,
    /// Inbound port excluded (`-d`).
    InExcluded = "in-excluded" => Pass,
    /// `-b *`.
    InAll = "in-all" => Inbound,
    /// Inbound port in the list of `-b`.
    InIncluded = "in-included" => Inbound,
    /// Inbound port not in the list of `-b`.
    InRest = "in-rest" => Pass,
    /// Inbound, captured, and the proxy does not listen.
    InRefused = "in-refused" => Refuse,
    /// A raw TCP socket, which connect hooks never see, asked for by another than the proxy.
    RawRefused = "raw-refused" => Refuse,
    /// Outbound, captured, and the pod has as many connections open as one may ([`crate::flow::FLOW_SHARE`]), or the node as
    /// many as can be remembered.
    OutFull = "out-full" => Refuse,
}

/// One pod's counters, by [`Row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct RowCounts(pub [u64; Row::ALL.len()]);
