//! The `nat` table as `iptables-save` prints it.

use std::ops::RangeInclusive;

use crate::{
    Protocol, Unknown,
    model::{Match, Rule, Table, Target, Test, network},
};

/// Reads the `nat` table; of other tables, which redirect nothing, only that they are others.
pub(crate) fn parse(save: &str) -> Result<Table, Unknown> {
    let mut table = Table::default();
    let mut in_nat = false;
    for line in save.lines() {
        if let Some(name) = line.strip_prefix('*') {
            in_nat = name == "nat";
        } else if !in_nat || line.is_empty() || line.starts_with('#') || line == "COMMIT" {
            // Nothing that is walked.
        } else if let Some(chain) = line.strip_prefix(':') {
            declare(&mut table, chain)?;
        } else if let Some(rule) = line.strip_prefix("-A ") {
            append(&mut table, rule)?;
        } else {
            return Err(Unknown::new("a line that begins as", line, line));
        }
    }
    Ok(table)
}

/// `OUTPUT ACCEPT [0:0]` or `ISTIO_OUTPUT - [0:0]`.
fn declare(table: &mut Table, line: &str) -> Result<(), Unknown> {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    match words.next() {
        Some("ACCEPT" | "-") => {}
        other => {
            let policy = other.unwrap_or_default();
            return Err(Unknown::new("the policy", policy, line));
        }
    }
    match name {
        "OUTPUT" => table.output = Some(name.to_owned()),
        "PREROUTING" => table.prerouting = Some(name.to_owned()),
        _ => {}
    }
    table.chains.insert(name.to_owned(), Vec::new());
    Ok(())
}

fn append(table: &mut Table, line: &str) -> Result<(), Unknown> {
    let (chain, text) = line.split_once(' ').unwrap_or((line, ""));
    let rules = table.chains.get_mut(chain);
    let rules = rules.ok_or_else(|| Unknown::new("a rule of the chain", chain, line))?;
    rules.push(Reader::new(text).rule()?);
    Ok(())
}

/// Reads one rule word for word.
struct Reader<'a> {
    text: &'a str,
    words: std::str::SplitWhitespace<'a>,
    matches: Vec<Match>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            words: text.split_whitespace(),
            matches: Vec::new(),
        }
    }

    fn rule(mut self) -> Result<Rule, Unknown> {
        let target = loop {
            let mut word = self.word("the end")?;
            let negated = word == "!";
            if negated {
                word = self.word("a match after")?;
            }
            match word {
                "-j" if !negated => break self.target()?,
                // Names what the next words are of; each of those is known by itself.
                "-m" if !negated => match self.word("a module")? {
                    "tcp" | "udp" | "multiport" | "owner" => {}
                    module => return Err(self.unknown("the module", module)),
                },
                option => {
                    let test = self.test(option)?;
                    self.matches.push(Match::new(negated, test));
                }
            }
        };
        if let Some(more) = self.words.next() {
            return Err(self.unknown("the option after the target", more));
        }
        Ok(Rule {
            text: self.text.to_owned(),
            matches: self.matches,
            target,
        })
    }

    fn test(&mut self, option: &'a str) -> Result<Test, Unknown> {
        let value = self.word(option)?;
        let bad = |what| Unknown::new(what, value, self.text);
        let net = || network(value).ok_or_else(|| bad("the network"));
        let id = || value.parse().map_err(|_| bad("the id"));
        match option {
            "-p" => match value {
                "tcp" => Ok(Test::Protocol(Protocol::Tcp)),
                "udp" => Ok(Test::Protocol(Protocol::Udp)),
                _ => Err(bad("the protocol")),
            },
            "-s" => net().map(Test::Source),
            "-d" => net().map(Test::Destination),
            "-o" if value == "lo" => Ok(Test::Loopback),
            "-o" => Err(bad("the interface")),
            "--dport" | "--dports" => {
                let ranges: Option<_> = value.split(',').map(range).collect();
                ranges.map(Test::Ports).ok_or_else(|| bad("the ports"))
            }
            "--uid-owner" => id().map(Test::Uid),
            "--gid-owner" => id().map(Test::Gid),
            _ => Err(self.unknown("the match", option)),
        }
    }

    fn target(&mut self) -> Result<Target, Unknown> {
        match self.word("a target")? {
            "RETURN" => Ok(Target::Return),
            "ACCEPT" => Ok(Target::Accept),
            "REDIRECT" => {
                let option = self.word("--to-ports")?;
                if option != "--to-ports" {
                    return Err(self.unknown("the option of REDIRECT", option));
                }
                let port = self.word("a port")?;
                let port = port.parse().map_err(|_| self.unknown("the port", port))?;
                Ok(Target::Redirect(port))
            }
            // Targets of the kernel's are in capitals, as are Istio's chains: whether this is a chain shows at the walk.
            chain if chain.starts_with("ISTIO_") => Ok(Target::Jump(chain.to_owned())),
            other => Err(self.unknown("the target", other)),
        }
    }

    fn word(&mut self, wanted: &'a str) -> Result<&'a str, Unknown> {
        let word = self.words.next();
        word.ok_or_else(|| self.unknown("nothing where there should be", wanted))
    }

    fn unknown(&self, what: &'static str, word: &str) -> Unknown {
        Unknown::new(what, word, self.text)
    }
}

/// A port, or two with a colon.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}
