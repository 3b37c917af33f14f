//! What the chart applies, on a real API server: its policies, its registration, its rights, its life with Helm.

mod bugreport;
mod check;
mod explain;
mod helm;
mod pods;
mod policy;
mod registration;
mod rights;
mod standards;
mod status;
mod world;

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use sidestep_kit::{apiserver::ApiServer, parts, process::eventually};

/// How long the API server may take to act on a policy or a registration.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server with `install.yaml` applied and its policies in force, shared by the tests that run at the same time.
pub(crate) fn installed() -> Arc<ApiServer> {
    static SHARED: Mutex<Weak<ApiServer>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(ApiServer::start());
    let file = parts::workspace().join("manifests/install.yaml");
    server.must(&format!("apply --server-side -f {}", file.display()));
    policy::wait_until_in_force(&server);
    *shared = Arc::downgrade(&server);
    server
}

/// A fixture's file.
pub(crate) fn fixture(path: &str) -> String {
    let path = parts::fixtures().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Waits until something is refused with this text.
#[track_caller]
pub(crate) fn until_refused(text: &str, mut attempt: impl FnMut() -> Result<String, String>) {
    let mut last = None;
    let refused = eventually(PATIENCE, || {
        let outcome = attempt();
        let refused = outcome.as_ref().is_err_and(|error| error.contains(text));
        last = Some(outcome);
        refused
    });
    assert!(refused, "never refused with {text:?}: {last:?}");
}
