//! The policy in short: one line for the status command and for annotations.

use std::fmt::{self, Display};

use crate::policy::{Dns, GroupSet, Inbound, Include, Policy};

/// Most items of one list that are spelled out, so that the line stays short with hundreds of ports.
const SHOWN: usize = 6;

const DEFAULT_TUNNEL_PORT: u16 = 15008;
const DEFAULT_PROBE_PORT: u16 = 15002;
const DEFAULT_LOOPBACK: &str = "127.0.0.1/32";

impl Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out {}: ", self.outbound_port)?;
        match &self.include_cidrs {
            Include::All => f.write_str("all")?,
            Include::Only(cidrs) => write!(f, "{}", List(cidrs))?,
        }
        if !self.include_outbound_ports.is_empty() {
            write!(f, " and ports {}", List(&self.include_outbound_ports))?;
        }
        if !self.exclude_cidrs.is_empty() {
            write!(f, ", not to {}", List(&self.exclude_cidrs))?;
        }
        if !self.exclude_outbound_ports.is_empty() {
            write!(f, ", not ports {}", List(&self.exclude_outbound_ports))?;
        }
        write!(f, "; in {}: ", self.inbound_port)?;
        match &self.inbound {
            Inbound::AllExcept(ports) if ports.is_empty() => f.write_str("all")?,
            Inbound::AllExcept(ports) => write!(f, "all but {}", List(ports))?,
            Inbound::Only(ports) => write!(f, "{}", List(ports))?,
        }
        write!(f, "; proxy uid {}", List(&self.proxy_uids))?;
        write!(f, " gid {}", List(&self.proxy_gids))?;
        self.fmt_uncommon(f)
    }
}

impl Policy {
    /// Writes the settings that differ from their defaults.
    fn fmt_uncommon(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let GroupSet::Only(groups) = &self.groups.include {
            write!(f, "; groups {}", List(groups))?;
        }
        if !self.groups.exclude.is_empty() {
            write!(f, "; not groups {}", List(&self.groups.exclude))?;
        }
        match self.dns {
            Dns::Off => {}
            Dns::ToServers => f.write_str("; dns to servers")?,
            Dns::All => f.write_str("; dns all")?,
        }
        if self.dual_stack {
            f.write_str("; dual-stack")?;
        }
        if self.native_nftables {
            f.write_str("; nftables")?;
        }
        if self.tunnel_port.get() != DEFAULT_TUNNEL_PORT {
            write!(f, "; tunnel {}", self.tunnel_port)?;
        }
        if self.loopback.to_string() != DEFAULT_LOOPBACK {
            write!(f, "; loopback {}", self.loopback)?;
        }
        if self.probe_port.get() != DEFAULT_PROBE_PORT {
            write!(f, "; probe {}", self.probe_port)?;
        }
        Ok(())
    }
}

/// `a,b,c`, `none`, or the first few and how many more.
struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, item) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{item}")?;
        }
        match self.0.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " +{more} more"),
        }
    }
}
