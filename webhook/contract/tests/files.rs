//! Pod files, good and bad.

use sidestep_contract::Policy;
use sidestep_contract::file::pods_from_str;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: httpbin
  annotations:
    sidestep.dev/netns: httpbin
spec:
  initContainers:
  - name: istio-init
    image: istio/proxyv2
    args: [istio-iptables, -p, "15001", -z, "15006", -u, "1337", -m, REDIRECT, -i, "*", -x, "", -b, "*", -d, "15090"]
    securityContext: {runAsUser: 0}
  containers:
  - name: httpbin
    image: httpbin
"#;

fn names(text: &str) -> Vec<String> {
    let pods = pods_from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let names = pods.into_iter().map(|pod| pod.metadata.name);
    names.map(Option::unwrap_or_default).collect()
}

fn error(text: &str) -> String {
    let error = pods_from_str(text).expect_err("this is no Pod file");
    error.to_string()
}

#[test]
fn a_yaml_file_holds_any_number_of_pods() {
    assert_eq!(names(POD), ["httpbin"]);
    let second = POD.replace("name: httpbin", "name: sleep");
    let several = format!("# only a comment\n---\n{POD}\n---\n---\n{second}\n...\n");
    assert_eq!(names(&several), ["httpbin", "sleep"]);
    assert_eq!(names(""), [""; 0]);
    assert_eq!(names(&format!("\u{feff}{POD}")), ["httpbin"]);
}

#[test]
fn a_pod_from_a_file_has_a_policy() {
    let pods = pods_from_str(POD).expect("a Pod file");
    Policy::from_pod(&pods[0]).expect("a policy");
}

#[test]
fn lists_and_json_are_read_too() {
    let pods = pods_from_str(POD).expect("a Pod file");
    let item = serde_json::to_value(&pods[0]).expect("a pod is JSON");
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [item, item]});
    assert_eq!(names(&item.to_string()), ["httpbin"]);
    assert_eq!(names(&format!("{item:#}")), ["httpbin"]);
    assert_eq!(names(&list.to_string()), ["httpbin", "httpbin"]);
    let indented = POD.trim_start().replace('\n', "\n  ");
    assert_eq!(
        names(&format!("kind: List\napiVersion: v1\nitems:\n- {indented}")),
        ["httpbin"]
    );
    let bare = "kind: PodList\napiVersion: v1\nitems:\n- metadata: {name: bare}";
    assert_eq!(names(bare), ["bare"]);
}

#[test]
fn errors_name_document_field_and_value() {
    let cases = [
        (
            POD.replace(r#""15001""#, "15001"),
            "document 1: spec.initContainers[0].args[2]: invalid type: integer `15001`, expected a string",
        ),
        (
            format!(
                "{POD}\n---\n{}",
                POD.replace("runAsUser: 0", "runAsUser: root")
            ),
            "document 2: spec.initContainers[0].securityContext.runAsUser: invalid type: string \"root\", expected i64",
        ),
        (
            POD.replace("kind: Pod", "kind: Deployment")
                .replace("v1", "apps/v1"),
            "document 1: kind: found \"Deployment\" (apps/v1), expected Pod or List",
        ),
        (
            POD.replace("apiVersion: v1", "apiVersion: v2"),
            "document 1: apiVersion: found \"v2\" (kind Pod), expected v1",
        ),
        (
            POD.replace("kind: Pod", ""),
            "document 1: kind: found nothing, expected a Pod (v1)",
        ),
        (
            "hello".to_owned(),
            "document 1: .: found \"hello\", expected a Pod",
        ),
        (
            "kind: List\napiVersion: v1\nitems: [{kind: Pod, apiVersion: v1, spec: 7}]".to_owned(),
            "document 1: items[0].spec: invalid type: integer `7`, expected PodSpec",
        ),
        (
            "kind: List\napiVersion: v1\nitems: 7".to_owned(),
            "document 1: items: found 7, expected a list",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn errors_of_syntax_name_document_and_line() {
    let message = error(&format!("{POD}\n---\nkind: [Pod\n"));
    assert!(
        message.starts_with("document 2: not valid YAML: "),
        "{message}"
    );
    assert!(message.contains("line"), "{message}");
    let message = error("{\"kind\": \"Pod\",\n}");
    assert!(
        message.starts_with("document 1: not valid JSON: "),
        "{message}"
    );
    assert!(message.contains("line 2"), "{message}");
    let message = error("kind: Pod\nkind: Pod\n");
    assert!(message.contains("duplicate"), "{message}");
    let message = error("{\"kind\": \"Pod\", \"kind\": \"Pod\"}");
    assert!(message.contains("duplicate"), "{message}");
}
