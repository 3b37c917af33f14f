//! A server of its own for each test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use sidestep_runtime::Liveness;
use sidestep_webhook::metrics::Metrics;
use sidestep_webhook::server::listen::{Phase, Server, bind};
use sidestep_webhook::server::{App, Limits};
use sidestep_webhook::settings::Settings;
use sidestep_webhook::tls::{Certificate, Files};
use sidestep_webhook::world::World;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The name that the API server would use.
pub(crate) const NAME: &str = "sidestep-webhook.sidestep-system.svc";

/// How long the server may not accept connections, be there any or not.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

pub(crate) struct UnderTest {
    pub(crate) address: SocketAddr,
    /// What a client must trust, as PEM.
    pub(crate) trusted: String,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) ended: JoinHandle<()>,
    pub(crate) liveness: Liveness,
    pub(crate) folder: TempDir,
}

impl UnderTest {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    /// Reads the certificate's files again.
    pub(crate) fn refresh(&self) -> anyhow::Result<bool> {
        files(self.folder.path()).refresh(&self.certificate)
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let server = Self::serving(Arc::new(Certificate::default()), limits).await;
        server.refresh().expect("a certificate");
        server
    }

    /// Serves this certificate, which may come later.
    pub(crate) async fn serving(certificate: Arc<Certificate>, limits: Limits) -> Self {
        let folder = TempDir::new().expect("a folder");
        let trusted = write_certificate(folder.path());
        let metrics = Arc::new(Metrics::default());
        let (phase, phases) = watch::channel(Phase::Serve);
        let world = Arc::new(World::assumed());
        let app = App::new(Settings::default(), world, Arc::clone(&metrics), limits);
        let server = Server {
            router: Arc::new(app).router(),
            tls: Arc::new(certificate.server_config().expect("a configuration")),
            limits,
            metrics: Arc::clone(&metrics),
            phase: phases,
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listener, address) = bind(any).await.expect("a port");
        let liveness = Liveness::default();
        let heartbeat = liveness.heartbeat("accepting connections", SILENCE);
        Self {
            address,
            trusted,
            certificate,
            metrics,
            phase,
            ended: tokio::spawn(server.run(listener, Duration::from_secs(10), heartbeat)),
            liveness,
            folder,
        }
    }
}

pub(crate) fn files(folder: &Path) -> Files {
    Files {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    }
}

/// Writes a new certificate and its key; returns what a client must trust.
pub(crate) fn write_certificate(folder: &Path) -> String {
    let CertifiedKey { cert, signing_key }: CertifiedKey<KeyPair> =
        generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    let Files { certificate, key } = files(folder);
    std::fs::write(certificate, cert.pem()).expect("the folder can be written");
    std::fs::write(key, signing_key.serialize_pem()).expect("the folder can be written");
    cert.pem()
}
