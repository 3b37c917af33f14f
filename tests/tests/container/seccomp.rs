//! A runtime's default seccomp profile, which depends on the capabilities that a container has.
//!
//! It is the one that Debian packages as data, CRI-O's and Podman's. containerd has its own in its program. With SYS_ADMIN
//! and SYS_PTRACE both allow what the agent does, and neither allows `kexec_load`, `userfaultfd` or `ioperm`, for instance.

use std::fs;

use serde_json::{Map, Value, json};
use sidestep_kit::parts;

/// The profile of a container with these capabilities.
pub(super) fn profile(capabilities: &[String]) -> Value {
    let file = parts::workspace().join(".parts/runc/seccomp.json");
    let text = fs::read_to_string(file).expect("the profile: run `make setup`");
    let all: Value = serde_json::from_str(&text).expect("a profile");
    let holds = |list: &Value, mine: &dyn Fn(&str) -> bool| {
        let words = list.as_array().into_iter().flatten();
        words
            .filter_map(Value::as_str)
            .map(mine)
            .collect::<Vec<_>>()
    };
    let capable = |name: &str| capabilities.iter().any(|own| own == name);
    let here = |name: &str| name == "amd64";
    let applies = |rule: &&Value| {
        let (with, without) = (&rule["includes"], &rule["excludes"]);
        holds(&with["caps"], &capable).into_iter().all(|has| has)
            && !holds(&without["caps"], &capable).contains(&true)
            && (with["arches"].is_null() || holds(&with["arches"], &here).contains(&true))
            && !holds(&without["arches"], &here).contains(&true)
    };
    let rules = all["syscalls"].as_array().expect("a list").iter();
    let rules: Vec<Value> = rules.filter(applies).map(rule).collect();
    json!({
        "defaultAction": all["defaultAction"],
        "defaultErrnoRet": all["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// A rule without what only says when it applies.
fn rule(rule: &Value) -> Value {
    let kept = ["names", "action", "errnoRet", "args"];
    let fields = kept.map(|name| (name.to_owned(), rule[name].clone()));
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(fields.collect::<Map<_, _>>())
}
