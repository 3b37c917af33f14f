//! Certificate authorities, and the leaves that they sign.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use thiserror::Error;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::Lifetimes;
use crate::cert::{BadPem, Cert, Key};

/// The start of the common name of every CA that this crate makes.
pub const COMMON_NAME: &str = "Sidestep webhook CA";

/// No certificate could be made.
#[derive(Debug, Error)]
pub enum CannotMake {
    /// The cryptography failed.
    #[error("a certificate cannot be made: {0}")]
    Crypto(#[from] rcgen::Error),
    /// A certificate that was just made cannot be read.
    #[error("a certificate that was just made is invalid: {0}")]
    Made(#[from] BadPem),
}

/// A CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The certificate, which clients must trust.
    pub cert: Cert,
    /// The key, which signs.
    pub key: Key,
}

/// A server's certificate and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate.
    pub cert: Cert,
    /// Its key.
    pub key: Key,
}

impl Authority {
    /// Makes a CA.
    pub fn make(now: SystemTime, lifetimes: Lifetimes) -> Result<Self, CannotMake> {
        // Names differ, so that people and programs can tell an old CA from a new one.
        let day = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
        let made = OffsetDateTime::from(now).format(day).unwrap_or_default();
        let life = lifetimes.authority();
        let mut params = params(vec![], &format!("{COMMON_NAME} {made}"), now, life)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pair = KeyPair::generate()?;
        let made = params.self_signed(&pair)?;
        Ok(Self {
            cert: Cert::from_der(made.der())?,
            key: Key::new(&pair),
        })
    }

    /// Makes a leaf for a server with these DNS names. It does not outlive its CA.
    pub fn sign(
        &self,
        names: &[String],
        now: SystemTime,
        lifetimes: Lifetimes,
    ) -> Result<Leaf, CannotMake> {
        let pair = self.key.pair()?;
        let issuer = Issuer::from_ca_cert_der(&self.cert.der().into(), pair)?;
        let name = names.first().map_or("", String::as_str);
        // A common name has at most 64 characters, and clients ignore it where there are DNS names.
        let name: String = name.chars().take(64).collect();
        let mut params = params(names.to_vec(), &name, now, lifetimes.leaf())?;
        params.not_after = params.not_after.min(self.cert.not_after.into());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let pair = KeyPair::generate()?;
        let made = params.signed_by(&pair, &issuer)?;
        Ok(Leaf {
            cert: Cert::from_der(made.der())?,
            key: Key::new(&pair),
        })
    }
}

/// Clocks differ: a new certificate is valid since an hour ago, or since a tenth of its life where that is short.
pub(crate) fn backdated(life: Duration) -> Duration {
    Duration::from_hours(1).min(life / 10)
}

fn params(
    names: Vec<String>,
    common_name: &str,
    now: SystemTime,
    life: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = (now - backdated(life)).into();
    params.not_after = (now + life).into();
    Ok(params)
}
