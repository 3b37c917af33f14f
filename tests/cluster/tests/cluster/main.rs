//! On a real Kubernetes with a real Istio: Sidestep as users install it. One cluster for all tests; each test has a namespace of its own.

mod accelerated;
mod admission;
mod agent;
mod check;
mod desk;
mod flows;
mod forged;
mod istio_cni;
mod kept_clean;
mod kinds;
mod lifecycle;
mod many;
mod revisions;
mod shortcut;
mod uninstall;
mod waiting;
mod ways;
mod world;
