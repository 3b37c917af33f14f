//! Keys and certificates of the control plane.

use std::{fs, path::PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::place::{API_SERVICE, NODE, NODE_ADDRESS, Place};

/// A certificate's names: its owner's and those it serves under.
struct Subject<'a> {
    file: &'a str,
    name: &'a str,
    group: Option<&'a str>,
    hosts: &'a [&'a str],
}

/// Writes the authority, what the API server serves with, the service accounts' key, and a kubeconfig for the administrator and the node.
pub fn write(place: &Place) -> anyhow::Result<()> {
    fs::create_dir_all(place.file("pki"))?;
    let node = format!("system:node:{NODE}");
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, place.name());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    fs::write(file(place, "ca.crt"), params.self_signed(&key)?.pem())?;
    let authority = Issuer::new(params, key);

    let accounts = KeyPair::generate()?;
    fs::write(file(place, "accounts.key"), accounts.serialize_pem())?;
    fs::write(file(place, "accounts.pub"), accounts.public_key_pem())?;
    let subjects = [
        Subject {
            file: "apiserver",
            name: "kube-apiserver",
            group: None,
            hosts: &[
                "127.0.0.1",
                API_SERVICE,
                NODE_ADDRESS,
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
            ],
        },
        Subject {
            file: "admin",
            name: "admin",
            group: Some("system:masters"),
            hosts: &[],
        },
        Subject {
            file: "node",
            name: &node,
            group: Some("system:nodes"),
            hosts: &[NODE, NODE_ADDRESS],
        },
    ];
    for subject in &subjects {
        certify(place, &authority, subject)
            .with_context(|| format!("the certificate {}", subject.file))?;
    }
    for user in ["admin", "node"] {
        kubeconfig(place, user)?;
    }
    Ok(())
}

/// A file among the keys and certificates.
pub fn file(place: &Place, name: &str) -> PathBuf {
    place.file("pki").join(name)
}

fn certify(
    place: &Place,
    authority: &Issuer<'_, KeyPair>,
    subject: &Subject<'_>,
) -> anyhow::Result<()> {
    let hosts = subject.hosts.iter().map(ToString::to_string);
    let mut params = CertificateParams::new(hosts.collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, subject.name);
    if let Some(group) = subject.group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    fs::write(
        file(place, &format!("{}.crt", subject.file)),
        certificate.pem(),
    )?;
    fs::write(
        file(place, &format!("{}.key", subject.file)),
        key.serialize_pem(),
    )?;
    Ok(())
}

fn kubeconfig(place: &Place, user: &str) -> anyhow::Result<()> {
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": place.name(),
        "contexts": [{"name": place.name(), "context": {"cluster": place.name(), "user": user}}],
        "clusters": [{"name": place.name(), "cluster": {
            "server": "https://127.0.0.1:6443",
            "certificate-authority": file(place, "ca.crt"),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": file(place, &format!("{user}.crt")),
            "client-key": file(place, &format!("{user}.key")),
        }}],
    });
    let path = place.file(&format!("{user}.kubeconfig"));
    fs::write(path, serde_json::to_string_pretty(&config)?)?;
    Ok(())
}
