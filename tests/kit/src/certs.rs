//! Certificates as a mesh has them: one authority, and workloads told apart by their SPIFFE id.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The authority of one mesh.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// What a workload proves its identity with, as PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The SPIFFE id in it.
    pub spiffe_id: String,
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// The authority's certificate.
    pub authority: String,
}

impl Authority {
    /// Makes an authority.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params
            .self_signed(&key)
            .expect("the parameters are complete")
            .pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// The certificate of a service account's workload.
    pub fn certify(&self, namespace: &str, service_account: &str) -> Certificate {
        let spiffe_id = format!("spiffe://cluster.local/ns/{namespace}/sa/{service_account}");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(
            spiffe_id.as_str().try_into().expect("an id is ASCII"),
        )];
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the parameters are complete");
        Certificate {
            spiffe_id,
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            authority: self.certificate.clone(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
