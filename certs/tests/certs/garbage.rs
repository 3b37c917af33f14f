//! Secrets that hold what they should not: what is wrong is named, what is good is kept.

use crate::common::{begun, lifetimes, start, stepped};
use k8s_openapi::ByteString;
use sidestep_certs::authority::Authority;
use sidestep_certs::holding::{Data, Holding, keys, leaf};
use sidestep_certs::plan::Step;

fn faults(data: &Data) -> Vec<String> {
    let faults = Holding::read(data).faults;
    faults.iter().map(ToString::to_string).collect()
}

fn with(key: &str, value: impl Into<Vec<u8>>) -> Data {
    let mut data = begun(start()).write();
    data.insert(key.to_owned(), ByteString(value.into()));
    data
}

#[test]
fn each_key_is_named_with_what_is_wrong() {
    let other = stepped(Step::AddNext, &begun(start()), start());
    let another = |key: &str| other.write()[key].0.clone();
    let two = [another(keys::CA_CERT), another(keys::NEXT_CERT)].concat();
    let not_der = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let own_leaf = begun(start()).write()[keys::LEAF_CERT].0.clone();
    let cases: [(&str, Vec<u8>, &str); 11] = [
        (
            keys::CA_CERT,
            b"x".to_vec(),
            "key ca.crt: it holds no PEM certificate",
        ),
        (keys::CA_CERT, vec![], "key ca.crt: it is missing"),
        (
            keys::CA_CERT,
            not_der.to_vec(),
            "key ca.crt: its certificate cannot be read",
        ),
        (
            keys::CA_CERT,
            two,
            "key ca.crt: it holds 2 certificates, expected one",
        ),
        (
            keys::CA_CERT,
            own_leaf,
            "key ca.crt: its certificate is not a CA's",
        ),
        (keys::CA_KEY, vec![], "key ca.key: it is missing"),
        (
            keys::CA_KEY,
            vec![0xff, 0xfe],
            "key ca.key: it holds no private key that can be used",
        ),
        (
            keys::CA_KEY,
            another(keys::NEXT_KEY),
            "key ca.key: it is not the key of the certificate in ca.crt",
        ),
        (
            keys::LEAF_CERT,
            b"-----BEGIN".to_vec(),
            "key tls.crt: it holds no PEM certificate",
        ),
        (
            keys::LEAF_KEY,
            another(keys::LEAF_KEY),
            "key tls.key: it is not the key of the certificate in tls.crt",
        ),
        (
            keys::PREVIOUS,
            not_der.to_vec(),
            "key previous-ca.crt: its certificate cannot be read",
        ),
    ];
    for (key, value, said) in cases {
        assert_eq!(faults(&with(key, value)), [said]);
    }
}

#[test]
fn what_is_wrong_in_one_place_spoils_no_other() {
    let data = with(keys::CA_KEY, "x");
    let read = Holding::read(&data);
    assert_eq!(read.leaf, held_leaf(&data));
    assert!(read.leaf.is_some());
    assert!(read.current.is_none(), "it signs no more");
    let retired = &read.previous[0];
    assert!(read.leaf.expect("a leaf").cert.is_signed_by(retired));
}

fn held_leaf(data: &Data) -> Option<sidestep_certs::authority::Leaf> {
    leaf(data).expect("a good leaf")
}

#[test]
fn a_leaf_alone_is_read_by_replicas() {
    assert_eq!(leaf(&Data::new()).expect("nothing is no fault"), None);
    assert!(held_leaf(&begun(start()).write()).is_some());
    let half = with(keys::LEAF_KEY, "");
    let fault = leaf(&half).expect_err("half a pair");
    assert_eq!(fault.to_string(), "key tls.key: it is missing");
}

#[test]
fn text_around_pem_is_no_garbage() {
    let held = begun(start());
    let mut data = held.write();
    let ca = data.get_mut(keys::CA_CERT).expect("a CA");
    ca.0 = [b"# our CA\n", ca.0.as_slice(), b"\n\n"].concat();
    assert_eq!(faults(&data), [""; 0]);
}

#[test]
fn keys_are_not_shown() {
    let ca = Authority::make(start(), lifetimes()).expect("a CA");
    assert!(!format!("{ca:?}").contains("PRIVATE"));
}
