//! The mutants: each names a row, and one piece of the sources that is there exactly once.

use std::fmt;

/// One change of the sources.
#[derive(Debug)]
pub struct Mutant {
    /// The row of the decision lists.
    pub row: &'static str,
    /// What is done to it.
    pub turn: Turn,
    /// The file, in the workspace.
    pub file: &'static str,
    /// The piece of it.
    pub from: &'static str,
    /// What takes its place.
    pub to: &'static str,
}

/// What is done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its condition, or a part of it, is turned round.
    Negated,
    /// It never decides.
    Dropped,
    /// It sends connections elsewhere.
    Verdict,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Negated => "turned round",
            Self::Dropped => "left out",
            Self::Verdict => "another verdict",
        })
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, from, to, .. } = self;
        write!(f, "row {row}: {from:?} became {to:?}")
    }
}

const DECIDE: &str = "ebpf/common/src/decide.rs";
const ROW: &str = "ebpf/common/src/row.rs";

const fn negated(row: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant {
        row,
        turn: Turn::Negated,
        file: DECIDE,
        from,
        to,
    }
}

const fn dropped(row: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant {
        row,
        turn: Turn::Dropped,
        file: DECIDE,
        from,
        to,
    }
}

const fn verdict(row: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant {
        row,
        turn: Turn::Verdict,
        file: ROW,
        from,
        to,
    }
}

/// Those of a row stand together, first those that most cases show. Row 6b is not among them: it never decides, because row 4 of the first uid has taken its connections.
#[rustfmt::skip]
pub static MUTANTS: &[Mutant] = &[
    negated("out-family", "if !pod.captures(&a.dst)", "if pod.captures(&a.dst)"),
    dropped("out-family", "if !pod.captures(&a.dst)", "if false"),
    negated("out-1", "&& sets.port(PortSet::OutExclude, a.port)", "&& !sets.port(PortSet::OutExclude, a.port)"),
    dropped("out-1", "&& sets.port(PortSet::OutExclude, a.port)", "&& false"),
    negated("out-2", "&& is_passthrough(a)", "&& !is_passthrough(a)"),
    dropped("out-2", "&& is_passthrough(a)", "&& false"),
    negated("out-3", "if to_self && (!dns || not_dns) {", "if !(to_self && (!dns || not_dns)) {"),
    dropped("out-3", "if to_self && (!dns || not_dns) {", "if false {"),
    negated("out-4", "straight && a.uid != pod.uids.first()", "straight && a.uid == pod.uids.first()"),
    dropped("out-4", "straight && a.uid != pod.uids.first()", "false"),
    negated("out-5", "if pod.uids.hold(a.uid)", "if !pod.uids.hold(a.uid)"),
    dropped("out-5", "if pod.uids.hold(a.uid)", "if false"),
    negated("out-6a", "Some(if to_self {", "Some(if !to_self {"),
    dropped("out-6a", "Some(if to_self {", "Some(if false {"),
    negated("out-6c", "if pod.gids.hold(a.gid)", "if !pod.gids.hold(a.gid)"),
    dropped("out-6c", "if pod.gids.hold(a.gid)", "if false"),
    negated("out-7", "!sets.group(GroupSet::Include, a.gid)", "sets.group(GroupSet::Include, a.gid)"),
    negated("out-7", "&& sets.group(GroupSet::Exclude, a.gid)", "&& !sets.group(GroupSet::Exclude, a.gid)"),
    dropped("out-7", "if pod.has(GROUPS_LISTED) &&", "if false && pod.has(GROUPS_LISTED) &&"),
    dropped("out-7", "|| pod.has(GROUPS_EXCLUDED) &&", "|| false && pod.has(GROUPS_EXCLUDED) &&"),
    negated("out-8", "&& a.port == DNS_PORT", "&& a.port != DNS_PORT"),
    negated("out-8", "sets.addr(AddrSet::DnsServers, &a.dst)", "!sets.addr(AddrSet::DnsServers, &a.dst)"),
    dropped("out-8", "&& a.port == DNS_PORT", "&& false"),
    negated("out-9", "if !unnamed && pod.in_loopback(&a.dst)", "if !unnamed && !pod.in_loopback(&a.dst)"),
    dropped("out-9", "if !unnamed && pod.in_loopback(&a.dst)", "if false"),
    negated("out-10", "&& sets.addr(AddrSet::OutExclude, &a.dst)", "&& !sets.addr(AddrSet::OutExclude, &a.dst)"),
    dropped("out-10", "&& sets.addr(AddrSet::OutExclude, &a.dst)", "&& false"),
    negated("out-11", "&& sets.port(PortSet::OutInclude, a.port)", "&& !sets.port(PortSet::OutInclude, a.port)"),
    dropped("out-11", "&& sets.port(PortSet::OutInclude, a.port)", "&& false"),
    negated("out-12", "if pod.has(INCLUDE_ALL)", "if !pod.has(INCLUDE_ALL)"),
    negated("out-12", "&& sets.addr(AddrSet::OutInclude, &a.dst)", "&& !sets.addr(AddrSet::OutInclude, &a.dst)"),
    dropped("out-12", "&& sets.addr(AddrSet::OutInclude, &a.dst)", "&& false"),
    verdict("out-13", "OutRest = \"out-13\" => Pass", "OutRest = \"out-13\" => Outbound"),
    negated("in-family", "if !pod.captures(dst)", "if pod.captures(dst)"),
    dropped("in-family", "if !pod.captures(dst)", "if false"),
    negated("in-none", "if !pod.has(INBOUND_ANY)", "if pod.has(INBOUND_ANY)"),
    verdict("in-none", "InNone = \"in-none\" => Pass", "InNone = \"in-none\" => Inbound"),
    negated("in-tunnel", "if port == pod.tunnel_port", "if port != pod.tunnel_port"),
    dropped("in-tunnel", "if port == pod.tunnel_port", "if false"),
    verdict("in-excluded", "InExcluded = \"in-excluded\" => Pass", "InExcluded = \"in-excluded\" => Inbound"),
    verdict("in-all", "InAll = \"in-all\" => Inbound", "InAll = \"in-all\" => Pass"),
    verdict("in-included", "InIncluded = \"in-included\" => Inbound", "InIncluded = \"in-included\" => Pass"),
    verdict("in-rest", "InRest = \"in-rest\" => Pass", "InRest = \"in-rest\" => Inbound"),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use sidestep_ebpf_common::Row;
    use sidestep_kit::parts;

    use super::*;
    use crate::report::NOT_OF_RULES;

    #[test]
    fn every_mutant_applies_to_the_sources_exactly_once() {
        for mutant in MUTANTS {
            let path = parts::workspace().join(mutant.file);
            let text = fs::read_to_string(path).expect(mutant.file);
            assert_eq!(text.matches(mutant.from).count(), 1, "{mutant}");
            assert_ne!(mutant.from, mutant.to, "{mutant}");
        }
    }

    #[test]
    fn every_row_that_a_rule_can_reach_has_a_mutant() {
        let rows: BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.row).collect();
        let wanted = Row::ALL.iter().filter(|row| !NOT_OF_RULES.contains(row));
        assert_eq!(rows, wanted.map(|row| row.name()).collect());
    }
}
