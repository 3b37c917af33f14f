//! The NAT table of Istio's native nftables mode as `nft -j list ruleset` prints it. The table is of the family `inet`: it is
//! walked for both address families, and a rule that looks into an address is of that address's family alone.

mod json;

use crate::{
    Unknown,
    model::{Match, Rule, Table, Target},
};

use self::json::{Chain, Listing, Object, Statement};

/// The table that redirects. Istio's other two set connection tracking zones and marks.
const NAT: &str = "istio-proxy-nat";
/// Those others.
const OTHERS: [&str; 2] = ["istio-proxy-raw", "istio-proxy-mangle"];

/// The table, once for each family.
pub(crate) fn parse(text: &str) -> Result<(Table, Table), Unknown> {
    let listing: Listing = serde_json::from_str(text)
        .map_err(|error| Unknown::new("a listing in which", &error.to_string(), ""))?;
    let mut table = Table::default();
    for object in listing.nftables {
        match object {
            Object::Metainfo(_) => {}
            Object::Table(it) => known(&it.family, &it.name)?,
            Object::Chain(chain) if chain.table == NAT => declare(&mut table, chain)?,
            Object::Rule(rule) if rule.table == NAT => append(&mut table, &rule)?,
            Object::Chain(Chain { family, table, .. })
            | Object::Rule(json::Rule { family, table, .. }) => known(&family, &table)?,
        }
    }
    Ok((table.clone(), table))
}

fn known(family: &str, table: &str) -> Result<(), Unknown> {
    if family != "inet" {
        return Err(Unknown::new("the family", family, table));
    }
    if table != NAT && !OTHERS.contains(&table) {
        return Err(Unknown::new("the table", table, table));
    }
    Ok(())
}

fn declare(table: &mut Table, chain: Chain) -> Result<(), Unknown> {
    known(&chain.family, &chain.table)?;
    match chain.hook.as_deref() {
        None => {}
        Some("output") => table.output = Some(chain.name.clone()),
        Some("prerouting") => table.prerouting = Some(chain.name.clone()),
        Some(other) => return Err(Unknown::new("the hook", other, &chain.name)),
    }
    if let Some(policy) = chain.policy.filter(|policy| policy != "accept") {
        return Err(Unknown::new("the policy", &policy, &chain.name));
    }
    table.chains.insert(chain.name, Vec::new());
    Ok(())
}

fn append(table: &mut Table, rule: &json::Rule) -> Result<(), Unknown> {
    known(&rule.family, &rule.table)?;
    let text = rule.text();
    let mut matches = Vec::new();
    let mut target = None;
    for statement in &rule.expr {
        let word = statement.to_string();
        if target.is_some() {
            return Err(Unknown::new(
                "the statement after the verdict",
                &word,
                &text,
            ));
        }
        match json::statement(statement, &text)? {
            Statement::Counter => {}
            Statement::Match { negated, tests } => {
                // Only the value itself is negated, never what it implies of the packet.
                let last = tests.len() - 1;
                let of = |(i, test)| Match::new(negated && i == last, test);
                matches.extend(tests.into_iter().enumerate().map(of));
            }
            Statement::Return => target = Some(Target::Return),
            Statement::Accept => target = Some(Target::Accept),
            Statement::Jump(chain) => target = Some(Target::Jump(chain)),
            Statement::Redirect(port) => target = Some(Target::Redirect(port)),
        }
    }
    let target = target.ok_or_else(|| Unknown::new("a rule without", "a verdict", &text))?;
    let rules = table.chains.get_mut(&rule.chain);
    let rules = rules.ok_or_else(|| Unknown::new("a rule of the chain", &rule.chain, &text))?;
    rules.push(Rule {
        text,
        matches,
        target,
    });
    Ok(())
}
