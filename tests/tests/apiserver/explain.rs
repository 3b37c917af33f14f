//! `sidestep explain` of a pod of the cluster.

use serde_json::Value;
use sidestep_kit::{binary, needs};

use crate::{installed, pods::gated};

#[needs(apiserver, part("helm"))]
fn a_gated_pod_of_the_cluster_is_explained_with_its_own_addresses() {
    let server = installed();
    server.feed("create", &gated("explained")).expect("a gate");
    let status = r#"{"status":{"podIPs":[{"ip":"10.77.0.10"}]}}"#;
    server.must(&format!(
        "patch pod explained --subresource=status --type=merge -p {status}"
    ));
    let explain = |words: &str| {
        let mut command = server.namespace().command(binary("sidestep"));
        command.env("KUBECONFIG", server.kubeconfig());
        let words = format!("explain {words} -o json");
        let output = command.args(words.split_whitespace()).output();
        let output = output.expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = serde_json::from_slice::<Value>(&output.stdout).ok();
        (output.status.code(), told, error)
    };
    let (code, told, error) = explain("pod/explained --to 10.77.0.10:8080 --uid 1337");
    let told = told.unwrap_or_else(|| panic!("{code:?}: {error}"));
    assert_eq!(told["pod"], "Pod default/explained");
    assert_eq!(
        (&told["row"], &told["to"]),
        (&"out-3".into(), &"127.0.0.1:15006".into())
    );

    for (words, why) in [
        ("pod/nobody --to 10.0.0.7:80", "not found"),
        ("explained --to 10.0.0.7:80", "want POD as pod/NAME"),
    ] {
        let (code, told, error) = explain(words);
        assert_eq!((code, told), (Some(2), None), "{error}");
        assert!(error.contains(why), "{error}");
    }
}
