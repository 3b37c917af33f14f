//! The content of the Secret.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;

use crate::authority::{Authority, Leaf};
use crate::cert::{BadPem, Cert, Key};

/// The Secret's keys.
pub mod keys {
    /// The CA that signs.
    pub const CA_CERT: &str = "ca.crt";
    /// Its key.
    pub const CA_KEY: &str = "ca.key";
    /// The leaf that replicas serve.
    pub const LEAF_CERT: &str = "tls.crt";
    /// Its key.
    pub const LEAF_KEY: &str = "tls.key";
    /// During a rotation: the CA that will sign once every API server trusts it.
    pub const NEXT_CERT: &str = "next-ca.crt";
    /// Its key.
    pub const NEXT_KEY: &str = "next-ca.key";
    /// CAs that no longer sign, and that stay trusted until they expire.
    pub const PREVIOUS: &str = "previous-ca.crt";
}

/// The Secret's content, as stored.
pub type Data = BTreeMap<String, ByteString>;

/// A key of the Secret whose value is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: BadPem,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: {}", self.key, self.why)
    }
}

/// The content of the Secret, parsed. An invalid value counts as missing and is listed in `faults`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The CA that signs.
    pub current: Option<Authority>,
    /// The CA that will sign.
    pub next: Option<Authority>,
    /// CAs that signed.
    pub previous: Vec<Cert>,
    /// What replicas serve.
    pub leaf: Option<Leaf>,
    /// The invalid values.
    pub faults: Vec<Fault>,
}

impl Holding {
    /// Reads a Secret's content.
    pub fn read(data: &Data) -> Self {
        let mut faults = Vec::new();
        let mut previous = Cert::all_in(bytes(data, keys::PREVIOUS)).unwrap_or_else(|why| {
            let key = keys::PREVIOUS;
            faults.push(Fault { key, why });
            Vec::new()
        });
        // A CA without its key cannot sign, so it is retired.
        let mut authority = |cert, key| {
            let (cert, key) = pair(data, cert, key, &mut faults);
            match (cert, key) {
                (Some(cert), Some(key)) => Some(Authority { cert, key }),
                (cert, _) => {
                    previous.extend(cert);
                    None
                }
            }
        };
        let current = authority(keys::CA_CERT, keys::CA_KEY);
        let next = authority(keys::NEXT_CERT, keys::NEXT_KEY);
        let leaf = match leaf(data) {
            Ok(leaf) => leaf,
            Err(fault) => {
                faults.push(fault);
                None
            }
        };
        Self {
            current,
            next,
            previous,
            leaf,
            faults,
        }
    }

    /// The content as the Secret stores it.
    pub fn write(&self) -> Data {
        let Self {
            current,
            next,
            previous,
            leaf,
            faults: _,
        } = self;
        let mut data = Data::new();
        let mut put = |key: &str, text: String| {
            data.insert(key.to_owned(), ByteString(text.into_bytes()));
        };
        let places = [
            (current, keys::CA_CERT, keys::CA_KEY),
            (next, keys::NEXT_CERT, keys::NEXT_KEY),
        ];
        for (authority, cert, key) in places {
            let Some(authority) = authority else { continue };
            put(cert, authority.cert.pem());
            put(key, authority.key.pem().to_owned());
        }
        if let Some(Leaf { cert, key }) = leaf {
            put(keys::LEAF_CERT, cert.pem());
            put(keys::LEAF_KEY, key.pem().to_owned());
        }
        if !previous.is_empty() {
            let all: String = previous.iter().map(Cert::pem).collect();
            put(keys::PREVIOUS, all);
        }
        data
    }

    /// Every CA whose leaf a replica may serve, now or next.
    pub fn authorities(&self) -> impl Iterator<Item = &Cert> {
        let now = [&self.current, &self.next].into_iter().flatten();
        now.map(|authority| &authority.cert).chain(&self.previous)
    }
}

/// The leaf alone, which is all that a replica needs; `None` if the Secret holds no leaf yet.
pub fn leaf(data: &Data) -> Result<Option<Leaf>, Fault> {
    let (cert, key) = (bytes(data, keys::LEAF_CERT), bytes(data, keys::LEAF_KEY));
    if cert.is_empty() && key.is_empty() {
        return Ok(None);
    }
    let fault = |key| move |why| Fault { key, why };
    let cert = Cert::one_in(cert).map_err(fault(keys::LEAF_CERT))?;
    let key = Key::of(key, &cert, keys::LEAF_CERT).map_err(fault(keys::LEAF_KEY))?;
    Ok(Some(Leaf { cert, key }))
}

/// A CA's certificate and key, each if it is valid.
fn pair(
    data: &Data,
    cert_key: &'static str,
    key_key: &'static str,
    faults: &mut Vec<Fault>,
) -> (Option<Cert>, Option<Key>) {
    let (cert, key) = (bytes(data, cert_key), bytes(data, key_key));
    if cert.is_empty() && key.is_empty() {
        return (None, None);
    }
    let mut fault = |key, why| faults.push(Fault { key, why });
    let cert = Cert::one_in(cert).and_then(|cert| {
        let authority = cert.is_authority.then_some(cert);
        authority.ok_or(BadPem::NotAuthority)
    });
    let Ok(cert) = cert.map_err(|why| fault(cert_key, why)) else {
        return (None, None);
    };
    let key = Key::of(key, &cert, cert_key);
    let key = key.map_err(|why| fault(key_key, why)).ok();
    (Some(cert), key)
}

fn bytes<'a>(data: &'a Data, key: &str) -> &'a [u8] {
    data.get(key).map_or(&[], |value| &value.0)
}
