//! A pod's name servers: those of the `resolv.conf` that its processes see.

use std::{
    fs::File,
    io::{self, Read},
    net::IpAddr,
};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

use crate::facts::parse_resolv_conf;

/// The resolver reads no more of it that would matter.
const MOST: u64 = 64 << 10;

/// Those of the first process that has any; else those of the pod's `dnsConfig`.
pub(super) fn name_servers(pids: &[i32], from_spec: &[IpAddr]) -> Vec<IpAddr> {
    let seen = pids.iter().filter_map(|pid| resolv_conf(*pid).ok());
    let mut servers = seen.map(|text| parse_resolv_conf(&text));
    servers
        .find(|servers| !servers.is_empty())
        .unwrap_or_else(|| from_spec.to_vec())
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
    use super::*;

    #[test]
    fn without_a_file_the_pods_spec_must_do() {
        let servers: Vec<IpAddr> = vec!["10.0.0.53".parse().expect("an address")];
        assert_eq!(name_servers(&[], &servers), servers);
        assert_eq!(name_servers(&[i32::MAX], &servers), servers);
    }
}
