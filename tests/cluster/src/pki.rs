//! Keys and certificates of the control plane.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::place::{API_SERVICE, NODE, NODE_ADDRESS, Place};

/// The server of the machine's own programs.
const LOOPBACK: &str = "127.0.0.1";

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
    let key = KeyPair::generate()?;
    fs::write(file(place, "ca.key"), key.serialize_pem())?;
    let certificate = authority_params(place).self_signed(&key)?;
    fs::write(file(place, "ca.crt"), certificate.pem())?;
    let authority = authority(place)?;

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
        certify(&place.file("pki"), &authority, subject)
            .with_context(|| format!("the certificate {}", subject.file))?;
    }
    for user in ["admin", "node"] {
        let config = kubeconfig(place, LOOPBACK, &place.file("pki"), user)?;
        fs::write(place.file(&format!("{user}.kubeconfig")), config)?;
    }
    Ok(())
}

/// Certifies the kubelet and kube-proxy of another machine, in the folder `there`, which the machine sees as `seen`, and writes their
/// kubeconfigs beside it.
pub fn write_machine(place: &Place, node: &str, there: &Path, seen: &Path) -> anyhow::Result<()> {
    let authority = authority(place)?;
    let node = format!("system:node:{node}");
    let users = [
        ("kubelet", node.as_str(), Some("system:nodes")),
        ("kube-proxy", "system:kube-proxy", None),
    ];
    fs::create_dir_all(there)?;
    fs::copy(file(place, "ca.crt"), there.join("ca.crt"))?;
    for (file, name, group) in users {
        let subject = Subject {
            file,
            name,
            group,
            hosts: &[],
        };
        certify(there, &authority, &subject).with_context(|| format!("the certificate {file}"))?;
        let config = kubeconfig(place, NODE_ADDRESS, seen, file)?;
        fs::write(there.with_file_name(format!("{file}.kubeconfig")), config)?;
    }
    Ok(())
}

fn authority_params(place: &Place) -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, place.name());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn authority(place: &Place) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let key = fs::read_to_string(file(place, "ca.key"))?;
    let key = KeyPair::from_pem(&key)?;
    Ok(Issuer::new(authority_params(place), key))
}

/// A file among the keys and certificates.
pub fn file(place: &Place, name: &str) -> PathBuf {
    place.file("pki").join(name)
}

fn certify(
    folder: &Path,
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
        folder.join(format!("{}.crt", subject.file)),
        certificate.pem(),
    )?;
    fs::write(
        folder.join(format!("{}.key", subject.file)),
        key.serialize_pem(),
    )?;
    Ok(())
}

/// The way to the API server at this address for a user whose certificate is in the folder `pki`.
fn kubeconfig(place: &Place, server: &str, pki: &Path, user: &str) -> anyhow::Result<String> {
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": place.name(),
        "contexts": [{"name": place.name(), "context": {"cluster": place.name(), "user": user}}],
        "clusters": [{"name": place.name(), "cluster": {
            "server": format!("https://{server}:6443"),
            "certificate-authority": pki.join("ca.crt"),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": pki.join(format!("{user}.crt")),
            "client-key": pki.join(format!("{user}.key")),
        }}],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}
