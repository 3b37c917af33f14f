//! A client as the API server is one.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use json_patch::Patch;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use sidestep_webhook::admission::review_of;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::under_test::{NAME, UnderTest};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) closes: bool,
    body: Bytes,
}

impl Answered {
    /// The response in the review.
    pub(crate) fn response(&self) -> Value {
        let mut review: Value = serde_json::from_slice(&self.body).expect("a review is JSON");
        assert_eq!(review["kind"], "AdmissionReview");
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        review["response"].take()
    }

    /// The patch in the review.
    pub(crate) fn patch(&self) -> Patch {
        let response = self.response();
        assert_eq!(response["patchType"], "JSONPatch");
        let text = response["patch"].as_str().expect("a patch");
        let text = STANDARD.decode(text).expect("base64");
        serde_json::from_slice(&text).expect("a patch")
    }
}

/// Whether a request was not sent at all, or the server said that it did not take it: with GOAWAY it names the last one that
/// it took (RFC 9113, 6.8). The API server's client sends it elsewhere.
pub(crate) fn was_not_taken(error: &hyper::Error) -> bool {
    let http2 = error.source().and_then(|source| source.downcast_ref());
    let went = |error: &h2::Error| {
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
    };
    error.is_canceled() || http2.is_some_and(went)
}

/// A connection, HTTP/1.1 or HTTP/2.
pub(crate) enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

pub(crate) fn trusting(pem: &str) -> ClientConfig {
    sidestep_webhook::tls::install_provider();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.expect("a certificate");
        roots.add(certificate).expect("a certificate to trust");
    }
    ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub(crate) async fn tls(
    address: SocketAddr,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

impl Client {
    pub(crate) async fn connect(server: &UnderTest, version: Version) -> Self {
        let connected = Self::try_connect(server.address, &server.trusted, version).await;
        connected.expect("a connection")
    }

    pub(crate) async fn try_connect(
        address: SocketAddr,
        trusted: &str,
        version: Version,
    ) -> io::Result<Self> {
        let mut config = trusting(trusted);
        let is_2 = version == Version::HTTP_2;
        let protocol: &[u8] = if is_2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TokioIo::new(tls(address, config).await?);
        if is_2 {
            let shaken = http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = shaken.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok(Self::Http2(sender))
        } else {
            let shaken = http1::handshake(stream).await;
            let (sender, connection) = shaken.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok(Self::Http1(sender))
        }
    }

    /// Whether another request can be sent; a server that goes says so before.
    pub(crate) async fn is_open(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answered> {
        let response = match self {
            Self::Http1(sender) => sender.send_request(request).await?,
            Self::Http2(sender) => sender.send_request(request).await?,
        };
        let closes = response
            .headers()
            .get("connection")
            .is_some_and(|value| value == "close");
        Ok(Answered {
            status: response.status().as_u16(),
            closes,
            body: response.into_body().collect().await?.to_bytes(),
        })
    }

    pub(crate) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Answered {
        self.send(post(path, body)).await.expect("an answer")
    }

    pub(crate) async fn mutate(&mut self, uid: &str, pod: &Value) -> Answered {
        self.post("/mutate", review_of(uid, pod).to_string()).await
    }
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("https://{NAME}{path}"))
        .header("host", NAME)
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a request")
}
