//! The webhook's certificate.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use sidestep_certs::cert::Cert;
use sidestep_certs::holding::keys;

use super::known;
use crate::check::facts::Known;

/// The Secret that the webhook keeps itself.
pub(super) const MANAGED: &str = "sidestep-webhook-tls";

/// The certificates with which the webhook serves: of the Secret that its Deployment names, else of the one that it keeps itself.
/// Of the Secret nothing but the certificates leaves this function.
pub(super) async fn serving(
    client: &Client,
    home: &str,
    webhook: Option<&Deployment>,
) -> Known<Vec<Cert>> {
    let name = webhook.and_then(provided).unwrap_or(MANAGED);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), home);
    let Some(secret) = known(secrets.get_opt(name).await)? else {
        return Ok(Vec::new());
    };
    let data = secret.data.unwrap_or_default();
    let Some(pem) = data.get(keys::LEAF_CERT) else {
        return Ok(Vec::new());
    };
    Cert::all_in(&pem.0).map_err(|error| format!("Secret {name}: {error}"))
}

/// The Secret that the Deployment mounts.
fn provided(deployment: &Deployment) -> Option<&str> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let mut volumes = pod.volumes.iter().flatten();
    let mounted = volumes.find(|volume| volume.name == "tls")?;
    mounted.secret.as_ref()?.secret_name.as_deref()
}
