//! The agent on a Kubernetes node: a real API server, real cgroups and namespaces, and the test in the place of kubelet and
//! the container runtime.

mod bad_input;
mod capabilities;
mod crowds;
mod descriptors;
mod faults;
mod fleet;
mod flood;
mod life;
mod name_servers;
mod sandboxes;
mod share;
mod shortcut;
mod start;
mod stuck;
mod takeover;
mod uninstall;
mod unproven;
mod users;
mod versions;
