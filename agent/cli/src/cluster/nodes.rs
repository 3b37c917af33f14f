//! Nodes, as they report themselves.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use sidestep_contract::{keys, node::unfit};

use super::each;

/// A node.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenNode {
    pub(crate) name: String,
    pub(crate) kernel: String,
    /// Why it cannot run Sidestep, by its label or by what it reports.
    pub(crate) unfit: Option<String>,
    /// Why gated pods keep off it: the value of its label.
    pub(crate) without_agent: Option<String>,
    /// Whether it takes no new pods.
    pub(crate) cordoned: bool,
}

impl SeenNode {
    fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let info = status.and_then(|status| status.node_info.as_ref());
        let label = |key| node.labels().get(key).cloned();
        Self {
            name: node.name_any(),
            kernel: info
                .map(|info| info.kernel_version.clone())
                .unwrap_or_default(),
            unfit: label(keys::UNSUPPORTED).or_else(|| Some(unfit(node)?.word().to_owned())),
            without_agent: label(keys::WITHOUT_AGENT),
            cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true),
        }
    }

    /// One of which nothing but its name is known.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }
}

/// All nodes of the cluster.
pub(crate) async fn nodes(client: &Client) -> kube::Result<Vec<SeenNode>> {
    let api: Api<Node> = Api::all(client.clone());
    let mut nodes = Vec::new();
    each(&api, ListParams::default(), |node| {
        nodes.push(SeenNode::of(&node));
    })
    .await?;
    Ok(nodes)
}
