//! Certificates and keys as a Secret holds them: PEM, parsed into the fields that decisions need.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::KeyPair;
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const CERTIFICATE: &str = "CERTIFICATE";

/// What is wrong with a piece of PEM.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPem {
    /// There is no value.
    #[error("it is missing")]
    Missing,
    /// The value is not PEM, or PEM of another kind.
    #[error("it holds no PEM certificate")]
    NoCertificate,
    /// The PEM block holds something other than a certificate.
    #[error("its certificate cannot be read")]
    BadCertificate,
    /// There is more than one certificate.
    #[error("it holds {0} certificates, expected one")]
    Several(usize),
    /// There is no private key, or one of an unknown kind.
    #[error("it holds no private key that can be used")]
    NoKey,
    /// The key belongs to another certificate.
    #[error("it is not the key of the certificate in {0}")]
    OtherKey(&'static str),
    /// The certificate may not sign others.
    #[error("its certificate is not a CA's")]
    NotAuthority,
}

/// A certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Cert {
    der: Vec<u8>,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// DNS names of its server.
    pub names: Vec<String>,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Its subject's common name.
    pub common_name: String,
}

impl fmt::Debug for Cert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cert")
            .field("common_name", &self.common_name)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Cert {
    /// Reads one certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, BadPem> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| BadPem::BadCertificate)?;
        let validity = parsed.validity();
        let time = |seconds: i64| {
            let seconds = u64::try_from(seconds).ok().map(Duration::from_secs);
            seconds.and_then(|since| UNIX_EPOCH.checked_add(since))
        };
        let bounds = (
            time(validity.not_before.timestamp()),
            time(validity.not_after.timestamp()),
        );
        let (Some(not_before), Some(not_after)) = bounds else {
            return Err(BadPem::BadCertificate);
        };
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|all| &all.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let common_name = parsed.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok());
        Ok(Self {
            names: names.collect(),
            is_authority: parsed.is_ca(),
            common_name: common_name.unwrap_or_default().to_owned(),
            not_before,
            not_after,
            der: der.to_vec(),
        })
    }

    /// Reads every certificate in a piece of PEM; there may be none.
    pub fn all_in(pem: &[u8]) -> Result<Vec<Self>, BadPem> {
        let all = pem::parse_many(pem).map_err(|_| BadPem::NoCertificate)?;
        let certificates = all.iter().filter(|block| block.tag() == CERTIFICATE);
        certificates
            .map(|block| Self::from_der(block.contents()))
            .collect()
    }

    /// Reads the one certificate in a piece of PEM.
    pub fn one_in(pem: &[u8]) -> Result<Self, BadPem> {
        let mut all = Self::all_in(pem)?;
        match (all.len(), all.pop()) {
            (1, Some(cert)) => Ok(cert),
            (0, _) if pem.is_empty() => Err(BadPem::Missing),
            (0, _) => Err(BadPem::NoCertificate),
            (several, _) => Err(BadPem::Several(several)),
        }
    }

    /// As bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// As text.
    pub fn pem(&self) -> String {
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        pem::encode_config(&Pem::new(CERTIFICATE, self.der.clone()), config)
    }

    /// Whether a clock that says `now` accepts it.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// When two thirds of its life are over.
    pub fn due(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before + life.unwrap_or_default() * 2 / 3
    }

    /// Whether `authority` signed it.
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let (Ok((_, own)), Ok((_, signer))) = (
            X509Certificate::from_der(&self.der),
            X509Certificate::from_der(&authority.der),
        ) else {
            return false;
        };
        own.issuer() == signer.subject() && own.verify_signature(Some(signer.public_key())).is_ok()
    }
}

/// A private key as PEM. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Reads the key of `cert`, which is stored as `beside`.
    pub fn of(pem: &[u8], cert: &Cert, beside: &'static str) -> Result<Self, BadPem> {
        if pem.is_empty() {
            return Err(BadPem::Missing);
        }
        let text = std::str::from_utf8(pem).map_err(|_| BadPem::NoKey)?;
        let pair = KeyPair::from_pem(text).map_err(|_| BadPem::NoKey)?;
        let (_, parsed) =
            X509Certificate::from_der(&cert.der).map_err(|_| BadPem::BadCertificate)?;
        let public = &parsed.public_key().subject_public_key.data;
        if public.as_ref() == pair.public_key_raw() {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadPem::OtherKey(beside))
        }
    }

    pub(crate) fn new(pair: &KeyPair) -> Self {
        Self(pair.serialize_pem())
    }

    pub(crate) fn pair(&self) -> Result<KeyPair, rcgen::Error> {
        KeyPair::from_pem(&self.0)
    }

    /// As text.
    pub fn pem(&self) -> &str {
        &self.0
    }
}
