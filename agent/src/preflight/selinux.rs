//! SELinux refuses with the errors of a missing permission, and says that it was SELinux only in the node's audit log.

use std::fs;

/// Where the kernel says as what this process is confined.
const CONTEXT: &str = "/proc/self/attr/current";

/// Domains to which SELinux refuses nothing that the agent does.
const UNCONFINED: [&str; 3] = ["spc_t", "unconfined_t", "unconfined_service_t"];

/// The text of an error; where it may be SELinux's, with the domain that the agent is in.
pub fn named(error: &anyhow::Error) -> String {
    let why = format!("{error:#}");
    match fs::read_to_string(CONTEXT) {
        Ok(context) => explain(why, &context),
        Err(_) => why,
    }
}

fn explain(why: String, context: &str) -> String {
    let refused = [libc::EPERM, libc::EACCES]
        .iter()
        .any(|errno| why.contains(&format!("(os error {errno})")));
    match confining(context).filter(|_| refused) {
        Some(domain) => format!(
            "{why}; SELinux confines the agent as {domain}, which may be why (`ausearch -m avc` on the node tells): set \
             agent.seLinuxOptions.type=spc_t in the chart"
        ),
        None => why,
    }
}

/// The type in an SELinux context, `user:role:type:level`. A profile of AppArmor is one word and its mode.
fn confining(context: &str) -> Option<&str> {
    let domain = context.split(':').nth(2)?.trim_end_matches(['\n', '\0']);
    (!UNCONFINED.contains(&domain)).then_some(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "map PODS: Permission denied (os error 13)";

    #[test]
    fn a_confined_agent_that_was_refused_something_names_its_domain() {
        let context = "system_u:system_r:container_t:s0:c12,c34\0";
        for why in [REFUSED, "loading: Operation not permitted (os error 1)"] {
            let said = explain(why.to_owned(), context);
            assert_eq!(
                said,
                format!(
                    "{why}; SELinux confines the agent as container_t, which may be why (`ausearch -m avc` on the node tells): \
                     set agent.seLinuxOptions.type=spc_t in the chart"
                )
            );
        }
    }

    #[test]
    fn selinux_is_not_blamed_for_anything_else() {
        let confined = "system_u:system_r:container_t:s0\n";
        let missing = "map PODS: No such file or directory (os error 2)";
        assert_eq!(explain(missing.to_owned(), confined), missing);
        let twelve = "map PODS: Cannot allocate memory (os error 12)";
        assert_eq!(explain(twelve.to_owned(), confined), twelve);
        for other in [
            "system_u:system_r:spc_t:s0\n",
            "system_u:system_r:unconfined_t\0",
            "cri-containerd.apparmor.d (enforce)\n",
            "unconfined\n",
            "",
        ] {
            assert_eq!(explain(REFUSED.to_owned(), other), REFUSED, "{other:?}");
        }
    }
}
