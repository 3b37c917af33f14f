//! Objects without what nobody else may see. What is kept is named here; everything else is dropped.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use sidestep_certs::cert::Cert;

/// Fields of an object's metadata that are kept. Annotations may hold the whole object as somebody applied it.
const METADATA: [&str; 6] = [
    "name",
    "namespace",
    "labels",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
];

/// A Deployment or DaemonSet: its pod template without annotations, and of environment variables only the names.
pub(super) fn workload(object: &Value) -> Value {
    let mut spec = object["spec"].clone();
    let template = &mut spec["template"];
    template["metadata"] = kept(&template["metadata"], &["labels"]);
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in template["spec"][containers]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            without_values(container);
        }
    }
    json!({"metadata": kept(&object["metadata"], &METADATA), "spec": spec, "status": object["status"]})
}

fn without_values(container: &mut Value) {
    for variable in container["env"].as_array_mut().into_iter().flatten() {
        *variable = kept(variable, &["name"]);
    }
}

/// A pod: where it is and how it is.
pub(super) fn pod(object: &Value) -> Value {
    json!({
        "metadata": kept(&object["metadata"], &METADATA),
        "spec": kept(&object["spec"], &["nodeName", "priorityClassName", "tolerations"]),
        "status": object["status"],
    })
}

/// A node: what it reports of itself.
pub(super) fn node(object: &Value) -> Value {
    json!({
        "metadata": kept(&object["metadata"], &METADATA),
        "spec": kept(&object["spec"], &["taints", "unschedulable"]),
        "status": kept(&object["status"], &["nodeInfo", "conditions"]),
    })
}

/// A MutatingWebhookConfiguration: of each caBundle only the fingerprints.
pub(super) fn registration(object: &Value) -> Value {
    let mut webhooks = object["webhooks"].clone();
    for webhook in webhooks.as_array_mut().into_iter().flatten() {
        let client = &mut webhook["clientConfig"];
        // In a URL there may be a password.
        let bundle = client["caBundle"].as_str().map(fingerprints);
        *client = kept(client, &["service"]);
        client["caBundle"] = json!(bundle);
    }
    json!({"metadata": kept(&object["metadata"], &METADATA), "webhooks": webhooks})
}

/// SHA-256 of each certificate, as `openssl x509 -fingerprint -sha256` has it, in lower case and without colons; or what is wrong.
fn fingerprints(bundle: &str) -> Value {
    use base64::Engine as _;

    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(bundle) else {
        return json!("it is not base64");
    };
    match Cert::all_in(&pem) {
        Err(error) => json!(error.to_string()),
        Ok(certs) => {
            let prints = certs.iter().map(|cert| {
                let digest = Sha256::digest(cert.der());
                digest
                    .iter()
                    .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
            });
            json!(prints.collect::<Vec<_>>())
        }
    }
}

/// An object with these of its fields.
fn kept(object: &Value, fields: &[&str]) -> Value {
    let Some(object) = object.as_object() else {
        return Value::Null;
    };
    let kept = object
        .iter()
        .filter(|(field, _)| fields.contains(&field.as_str()));
    let kept = kept.map(|(field, value)| (field.clone(), value.clone()));
    Value::Object(kept.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use base64::Engine as _;
    use sidestep_certs::Lifetimes;
    use sidestep_certs::authority::Authority;

    use super::*;

    const SECRET: &str = "hunter2";

    /// Metadata with a secret wherever people put things.
    fn metadata() -> Value {
        let applied = format!("{{\"env\": \"{SECRET}\"}}");
        json!({
            "name": "one", "labels": {"app": "x"}, "managedFields": [{"manager": SECRET}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied},
        })
    }

    #[track_caller]
    fn assert_clean(cleaned: &Value) {
        assert!(!cleaned.to_string().contains(SECRET), "{cleaned:#}");
        assert_eq!(cleaned["metadata"]["name"], "one");
    }

    #[test]
    fn of_a_workload_the_names_of_variables_stay_and_no_value() {
        let container = json!({"name": "agent", "image": "i", "args": ["--node=x"], "env": [{"name": "TOKEN", "value": SECRET}]});
        let object = json!({
            "metadata": metadata(),
            "spec": {"template": {
                "metadata": metadata(), "spec": {"containers": [container], "initContainers": [container]},
            }},
        });
        let cleaned = workload(&object);
        assert_clean(&cleaned);
        let container = &cleaned["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"], json!([{"name": "TOKEN"}]));
        assert_eq!(container["args"], json!(["--node=x"]));
    }

    #[test]
    fn of_nodes_and_pods_no_annotation_stays() {
        let object = json!({
            "metadata": metadata(),
            "spec": {"nodeName": "n", "containers": [{"env": [{"name": "A", "value": SECRET}]}]},
            "status": {"nodeInfo": {"kernelVersion": "6.1"}},
        });
        assert_clean(&node(&object));
        assert_clean(&pod(&object));
        assert_eq!(node(&object)["status"]["nodeInfo"]["kernelVersion"], "6.1");
        assert_eq!(pod(&object)["spec"], json!({"nodeName": "n"}));
    }

    #[test]
    fn of_a_registration_fingerprints_stay_and_no_certificate() {
        let lifetimes = Lifetimes::new(Duration::from_hours(1));
        let authority = Authority::make(SystemTime::now(), lifetimes).expect("a CA");
        let bundle = base64::engine::general_purpose::STANDARD.encode(authority.cert.pem());
        let url = format!("https://user:{SECRET}@example.org/");
        let object = json!({
            "metadata": metadata(),
            "webhooks": [
                {"name": "a", "clientConfig": {"caBundle": bundle, "service": {"name": "s"}}},
                {"name": "b", "clientConfig": {"url": url, "caBundle": "!"}},
            ],
        });
        let cleaned = registration(&object);
        assert_clean(&cleaned);
        assert!(!cleaned.to_string().contains(&bundle), "{cleaned:#}");
        let prints = &cleaned["webhooks"][0]["clientConfig"]["caBundle"];
        let print = prints[0].as_str().expect("one");
        assert!(
            print.len() == 64 && print.chars().all(|c| c.is_ascii_hexdigit()),
            "{print}"
        );
        assert_eq!(
            cleaned["webhooks"][1]["clientConfig"]["caBundle"],
            "it is not base64"
        );
    }
}
