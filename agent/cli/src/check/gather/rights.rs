//! What one may do.

use futures_util::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};

use super::certificates::MANAGED;
use super::{Scope, known};
use crate::check::facts::Right;
use crate::check::finding::Stage;

/// A right.
struct Need<'a> {
    verb: &'static str,
    group: &'static str,
    /// A resource, with its subresource.
    resource: &'static str,
    /// Where; everywhere if absent.
    namespace: Option<&'a str>,
    /// Of which object; of all if absent.
    name: Option<&'a str>,
}

impl<'a> Need<'a> {
    const fn everywhere(
        (verb, group, resource): (&'static str, &'static str, &'static str),
    ) -> Self {
        Self {
            verb,
            group,
            resource,
            namespace: None,
            name: None,
        }
    }

    const fn within(self, namespace: &'a str) -> Self {
        Self {
            namespace: Some(namespace),
            ..self
        }
    }

    const fn named(self, name: &'a str) -> Self {
        Self {
            name: Some(name),
            ..self
        }
    }
}

/// Asks the API server for every right that the stage takes.
pub(super) async fn rights(client: &Client, scope: &Scope) -> Vec<Right> {
    let needs = match scope.stage {
        Stage::Before => to_install(&scope.home),
        Stage::After => to_check(scope),
    };
    join_all(needs.into_iter().map(|need| right(client, need))).await
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

fn to_install(home: &str) -> Vec<Need<'_>> {
    let everywhere = [
        ("create", "", "namespaces"),
        ("create", RBAC, "clusterroles"),
        ("create", RBAC, "clusterrolebindings"),
        ("create", ADMISSION, "mutatingwebhookconfigurations"),
        ("create", ADMISSION, "validatingadmissionpolicies"),
        ("create", ADMISSION, "validatingadmissionpolicybindings"),
        // What a role gives, whoever makes it has.
        ("patch", "", "nodes"),
    ];
    let here = [
        ("create", RBAC, "roles"),
        ("create", RBAC, "rolebindings"),
        ("create", "", "serviceaccounts"),
        ("create", "", "services"),
        ("create", "apps", "deployments"),
        ("create", "apps", "daemonsets"),
        ("create", "policy", "poddisruptionbudgets"),
    ];
    let here = here.map(|what| Need::everywhere(what).within(home));
    let everywhere = everywhere.map(Need::everywhere);
    everywhere.into_iter().chain(here).collect()
}

fn to_check(scope: &Scope) -> Vec<Need<'_>> {
    let everywhere = [
        ("list", "", "nodes"),
        ("list", "", "namespaces"),
        ("list", "", "pods"),
        ("list", "", "events"),
        ("list", "apps", "deployments"),
        ("list", "apps", "daemonsets"),
        ("list", ADMISSION, "mutatingwebhookconfigurations"),
        ("list", ADMISSION, "validatingadmissionpolicies"),
        ("list", ADMISSION, "validatingadmissionpolicybindings"),
    ];
    let here = [
        ("get", "coordination.k8s.io", "leases"),
        ("get", "", "pods/exec"),
        ("create", "", "pods/exec"),
        ("get", "", "services/proxy"),
    ];
    let certificate = Need::everywhere(("get", "", "secrets"));
    let trial = Need::everywhere(("create", "", "pods"));
    let here = here.map(|what| Need::everywhere(what).within(&scope.home));
    let everywhere = everywhere.map(Need::everywhere);
    let all = everywhere.into_iter().chain(here);
    let one = [
        certificate.within(&scope.home).named(MANAGED),
        trial.within(&scope.probe),
    ];
    all.chain(one).collect()
}

async fn right(client: &Client, need: Need<'_>) -> Right {
    let (kind, sub) = match need.resource.split_once('/') {
        Some((kind, sub)) => (kind, Some(sub)),
        None => (need.resource, None),
    };
    let own = |text: &str| Some(text.to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: own(need.verb),
                group: own(need.group),
                resource: own(kind),
                subresource: sub.and_then(own),
                namespace: need.namespace.and_then(own),
                name: need.name.and_then(own),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = known(api.create(&PostParams::default(), &review).await);
    let name = need.name.map_or(String::new(), |name| format!("/{name}"));
    let place = need
        .namespace
        .map_or(String::new(), |place| format!(" in {place}"));
    Right {
        what: format!("{} {}{name}{place}", need.verb, need.resource),
        allowed: answer.map(|review| review.status.is_some_and(|status| status.allowed)),
    }
}
