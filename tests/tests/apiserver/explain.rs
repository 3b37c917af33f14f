//! `sidestep explain` of a pod of the cluster.

use sidestep_kit::{desk::sidestep, needs};

use crate::{installed, pods::gated};

#[needs(apiserver, part("helm"))]
fn a_gated_pod_of_the_cluster_is_explained_with_its_own_addresses() {
    let server = installed();
    server.feed("create", &gated("explained")).expect("a gate");
    let status = r#"{"status":{"podIPs":[{"ip":"10.77.0.10"}]}}"#;
    server.must(&format!(
        "patch pod explained --subresource=status --type=merge -p {status}"
    ));
    let explain = |words: &str| sidestep(&server, &format!("explain {words} -o json"));
    let told = explain("pod/explained --to 10.77.0.10:8080 --uid 1337").json();
    assert_eq!(told["pod"], "Pod default/explained");
    assert_eq!(
        (&told["row"], &told["to"]),
        (&"out-3".into(), &"127.0.0.1:15006".into())
    );

    for (words, why) in [
        ("pod/nobody --to 10.0.0.7:80", "not found"),
        ("explained --to 10.0.0.7:80", "want POD as pod/NAME"),
    ] {
        let said = explain(words);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{said:?}");
        assert!(said.error.contains(why), "{said:?}");
    }
}
