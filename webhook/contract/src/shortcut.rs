//! What pods, namespaces and command lines say about the shortcut.

use serde::{Deserialize, Serialize};

words! {
    /// How far the shortcut reaches: whose sockets may be joined inside the kernel. The least is the default.
    #[derive(Default, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    Reach, "off, pod, namespace or node" {
        /// Nobody's.
        #[default]
        Off = "off",
        /// Those of the application and its own sidecar.
        Pod = "pod",
        /// Also those of two sidecars on the same node whose pods are of one Kubernetes namespace.
        Namespace = "namespace",
        /// Also those of any two sidecars on the same node.
        Node = "node",
    }
}

words! {
    /// Into whose sockets the shortcut delivers.
    Delivery, "proxy or application" {
        /// The proxy's only.
        Proxy = "proxy",
        /// The application's as well, which must read in ways that the shortcut can carry.
        Application = "application",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_is_spelled_the_same_in_annotations_and_in_json() {
        let mut last = None;
        for word in Reach::WORDS {
            let reach: Reach = word.parse().expect("a word");
            assert_eq!(reach.word(), *word);
            assert_eq!(serde_json::json!(reach), *word);
            assert!(last < Some(reach), "{word} reaches no further");
            last = Some(reach);
        }
        let unknown = "NODE".parse::<Reach>().expect_err("another word");
        assert_eq!(unknown.to_string(), "expected off, pod, namespace or node");
    }
}
