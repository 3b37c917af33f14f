//! The settings that decide where connections go, each with values as people write them: lists with host bits, blanks and
//! empty items, ranges with open ends, the same twice, service names.

use fastrand::Rng;

use crate::{
    lists,
    policy::{NATIVE, Written},
};

/// A setting and the values that are tried beside its usual one.
#[derive(Debug)]
pub(crate) struct Dimension {
    pub(crate) name: &'static str,
    values: &'static [&'static str],
    random: Option<fn(&mut Rng, usize) -> String>,
}

const BOOLEAN: &[&str] = &["true"];

const fn fixed(name: &'static str, values: &'static [&'static str]) -> Dimension {
    Dimension {
        name,
        values,
        random: None,
    }
}

const fn listed(
    name: &'static str,
    values: &'static [&'static str],
    random: fn(&mut Rng, usize) -> String,
) -> Dimension {
    Dimension {
        name,
        values,
        random: Some(random),
    }
}

pub(crate) static DIMENSIONS: &[Dimension] = &[
    fixed("-p", &["15101", "8080"]),
    fixed("-z", &["15106", "15008"]),
    fixed("-e", &["15018", "80", "53"]),
    fixed("-u", &["2102", "0", "1337,2000", "1000,1337,", "1337,0,77"]),
    fixed("-g", &["1337", "0", "1337,3000", "2001,,1337", "1337,0,77"]),
    listed(
        "-b",
        &["", "8080", "8080,9000:9100,", "80,,443,15006", "15008,53"],
        lists::ports,
    ),
    listed(
        "-d",
        &["", "80", "1:1023,8080", "15020,15020", " 8080, 9090 ", "53"],
        lists::ports,
    ),
    listed(
        "-i",
        &[
            "",
            "10.1.9.9/16",
            "10.1.2.3/32,192.0.2.9/28,fd00::5/8",
            "127.0.0.1/32",
            "10.0.0.0/8,127.0.0.1/8",
            "127.0.0.1/7",
            "0.0.0.0/0",
            "::/0",
            "0.0.0.0/0,::/0",
            "::1/128",
            "fd77::/64,10.77.0.0/16",
            "0.0.0.0/1,128.0.0.0/1",
        ],
        lists::networks,
    ),
    listed(
        "-x",
        &[
            "10.1.2.3/24",
            "10.0.0.0/8,fd77::9/64",
            "0.0.0.0/0",
            "127.0.0.0/8",
            "::/0",
            "10.77.0.10/32,fd77::10/128",
            "10.1.2.3/24,,10.1.2.3/24",
        ],
        lists::networks,
    ),
    listed(
        "-o",
        &[
            "53",
            "80,443",
            "8080,9000:9100",
            ":1024",
            "60000:",
            "15008",
            "443,,8443,",
        ],
        lists::ports,
    ),
    listed(
        "-q",
        &["80", "9443,15000:15010", "53", "1:65535", "https"],
        lists::ports,
    ),
    fixed("--redirect-dns", BOOLEAN),
    fixed("--capture-all-dns", BOOLEAN),
    fixed("--dual-stack", BOOLEAN),
    fixed("--drop-invalid", BOOLEAN),
    fixed(NATIVE, BOOLEAN),
    listed(
        "ISTIO_OUTBOUND_OWNER_GROUPS",
        &["", "1000", "2001,2002", "1337,1000,"],
        lists::groups,
    ),
    listed(
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        &["1000", "2001,2002,", "0"],
        lists::groups,
    ),
    fixed(
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
        &["127.0.0.0/8", "127.0.0.2/32", "127.0.0.1/16"],
    ),
    // The same settings by their variables, which count where no argument says otherwise.
    fixed("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", &["80,8000:8100"]),
    fixed("ISTIO_META_DNS_CAPTURE", BOOLEAN),
    fixed("DUAL_STACK", BOOLEAN),
];

impl Dimension {
    /// Every value that is not the usual one.
    pub(crate) fn values(&self) -> &'static [&'static str] {
        self.values
    }

    /// Gives the setting one of its values, or a random list of at most `most` items.
    pub(crate) fn vary(&self, policy: &mut Written, rng: &mut Rng, most: usize) {
        match self.random {
            Some(random) if rng.bool() => policy.set(self.name, &random(rng, most)),
            _ => policy.set(self.name, self.values[rng.usize(..self.values.len())]),
        }
    }
}
