//! On a real Kubernetes with a real Istio: the webhook as users install it. One cluster for all tests; each test has a namespace of its own.

mod admission;
mod forged;
mod kept_clean;
mod lifecycle;
mod plain;
mod ways;
mod world;
