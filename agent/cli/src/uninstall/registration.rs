//! The webhook's registration, and that it does not come back.

use anyhow::{Context, bail};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Client,
    api::{Api, DeleteParams},
};

pub(super) struct Registration {
    api: Api<MutatingWebhookConfiguration>,
    name: String,
}

impl Registration {
    pub(super) fn new(client: &Client, name: &str) -> Self {
        Self {
            api: Api::all(client.clone()),
            name: name.to_owned(),
        }
    }

    /// Takes the webhook out of admission.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        let name = &self.name;
        match self.api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {
                println!("new pods are plain Istio's: removed webhook configuration {name}");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("removing webhook configuration {name}"))
            }
        }
    }

    /// An error if somebody has made it again. A look that fails shows nothing.
    pub(super) async fn stays_removed(&self) -> anyhow::Result<()> {
        let Ok(Some(back)) = self.api.get_opt(&self.name).await else {
            return Ok(());
        };
        let name = &self.name;
        bail!(
            "webhook configuration {name} is back, made by {}: new pods are accelerated again. Set the chart's enrolment: none there, or stop \
             it from making {name}, then roll back",
            maker(&back).unwrap_or("somebody")
        )
    }
}

/// Who made an object, by the name that each client gives of itself: the first of its field managers.
fn maker(object: &MutatingWebhookConfiguration) -> Option<&str> {
    let managers = object.metadata.managed_fields.iter().flatten();
    let first = managers.min_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
    first.manager.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_made_it_is_the_first_of_its_field_managers() {
        let mut object: MutatingWebhookConfiguration = serde_json::from_value(json!({"metadata": {
            "name": "sidestep-webhook",
            "managedFields": [
                {"manager": "sidestep-webhook", "operation": "Update", "time": "2026-11-30T10:00:05Z"},
                {"manager": "argocd-controller", "operation": "Apply", "time": "2026-11-30T10:00:01Z"},
            ],
        }}))
        .expect("a registration");
        assert_eq!(maker(&object), Some("argocd-controller"));
        object.metadata.managed_fields = None;
        assert_eq!(maker(&object), None);
    }
}
