//! Certificates are replaced under way.

use std::fs;
use std::os::unix::fs::symlink;

use hyper::Version;

use crate::client::Client;
use crate::common::fixture;
use crate::under_test::{UnderTest, files, write_certificate};

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_and_old_ones_go_on() {
    let server = UnderTest::start().await;
    let mut old = Client::connect(&server, Version::HTTP_2).await;
    let trusted = write_certificate(server.folder.path());
    assert!(server.refresh().expect("good files"));
    assert!(!server.refresh().expect("good files"));
    let new = Client::try_connect(server.address, &trusted, Version::HTTP_2).await;
    assert_eq!(
        new.expect("trusted")
            .mutate("u", &fixture("client"))
            .await
            .status,
        200
    );
    assert_eq!(old.mutate("u", &fixture("client")).await.status, 200);
    let outdated = Client::try_connect(server.address, &server.trusted, Version::HTTP_2).await;
    assert!(outdated.is_err(), "the old certificate is gone");
}

#[tokio::test]
async fn a_secrets_volume_swaps_a_link() {
    let server = UnderTest::start().await;
    let folder = server.folder.path();
    let next = folder.join("next");
    fs::create_dir(&next).expect("a folder");
    let trusted = write_certificate(&next);
    let (now, then) = (files(folder), files(&next));
    for (link, target) in [(now.certificate, then.certificate), (now.key, then.key)] {
        let swapped = link.with_extension("swap");
        symlink(target, &swapped).expect("a link");
        fs::rename(swapped, link).expect("a swap");
    }
    assert!(server.refresh().expect("good files"));
    let new = Client::try_connect(server.address, &trusted, Version::HTTP_11).await;
    assert!(new.is_ok());
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing() {
    let server = UnderTest::start().await;
    let own = files(server.folder.path());
    let good = fs::read(&own.certificate).expect("a certificate");
    let other = server.folder.path().join("other");
    fs::create_dir(&other).expect("a folder");
    write_certificate(&other);
    let anothers = fs::read(files(&other).certificate).expect("a certificate");
    for bad in [b"".as_slice(), b"x", &anothers] {
        fs::write(&own.certificate, bad).expect("a file");
        let refused = server.refresh();
        assert!(refused.is_err(), "{refused:?}");
    }
    fs::remove_file(&own.certificate).expect("a file");
    assert!(server.refresh().is_err());
    Client::connect(&server, Version::HTTP_2).await;
    fs::write(&own.certificate, good).expect("a file");
    assert!(!server.refresh().expect("good files"));
}
